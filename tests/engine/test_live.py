"""Runs that are watched: all numbers and pictures arrive in the backends, whatever ends a run."""

import json
import shlex
import sys
import time
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny, toys
from helpers.errors import check_refused, refuses
from mmengine.config import Config
from mmengine.visualization import Visualizer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmresnest.config import defaults
from mmresnest.config.defaults import BACKENDS, configure_loggers, disable_loggers
from mmresnest.config.options import LOGGERS
from mmresnest.engine.hooks import live_pictures
from mmresnest.engine.hooks.live_pictures import LivePictures
from mmresnest.engine.train import release_on_exit, train
from mmresnest.engine.trained_run import find_command, find_config
from mmresnest.visualization import backends

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]

LOCAL = dict(type='LocalVisBackend')


def scalars(work_dir):
    """Name -> [(step, value)], as mmengine's own file has them, of all runs of a folder."""
    found = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            step = row.pop('step')
            for name, value in row.items():
                found.setdefault(name, []).append((step, value))
    return found


def events(work_dir):
    """The same as TensorBoard reads it; and what it has of pictures."""
    found, pictures = {}, {}
    for folder in sorted(Path(work_dir).glob('*/vis_data')):
        read = EventAccumulator(str(folder), size_guidance=dict(scalars=0, images=0))
        read.Reload()
        for name in read.Tags()['scalars']:
            found.setdefault(name, []).extend((one.step, one.value) for one in read.Scalars(name))
        for name in read.Tags()['images']:
            pictures.setdefault(name, []).extend(
                (one.step, one.width, one.height) for one in read.Images(name)
            )
    return found, pictures


def agree(found, expected):
    """Whether the same numbers stand at the same steps; TensorBoard keeps 32 bits of them."""
    assert found.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert np.array_equal(
            np.float32([value for _, value in found[name]]),
            np.float32([value for _, value in points]),
            equal_nan=True,
        ), name


# ---- a training ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def watched(shapes, tmp_path_factory):
    """A detector, trained while TensorBoard listens, and its twin without."""
    folder = tmp_path_factory.mktemp('live')
    config = tiny.write(folder, 'detection')

    def run(name, **more):
        return train(
            config,
            data=shapes,
            from_scratch=True,
            seed=3,
            work_dir=folder / name,
            cfg_options={'train_cfg.max_epochs': 2, 'val_dataloader.batch_size': 1},
            **more,
        )

    return run('watched', logger=['tensorboard']), run('alone')


@pytest.mark.slow
def test_tensorboard_has_all_numbers_and_pictures(watched):
    folder = watched[0].work_dir
    found, pictures = events(folder)
    agree(found, scalars(folder))
    assert {'loss', 'lr', 'coco/bbox_mAP'} <= found.keys()
    assert [step for step, _ in found['loss']] == [1, 2, 3, 4]
    [written] = folder.glob('**/events.out*')
    assert b'data_preprocessor' in written.read_bytes()  # the config
    # two images of the validation split, after each epoch of two iterations
    assert pictures.keys() == {'predictions_1', 'predictions_2'}
    assert all(
        [step for step, *_ in points] == [2, 4] and min(points[0][1:]) > 200
        for points in pictures.values()
    )


@pytest.mark.slow
def test_the_training_is_the_same_to_the_bit(watched):
    one, two = (torch.load(run.checkpoint, weights_only=False)['state_dict'] for run in watched)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert watched[0].metrics == watched[1].metrics


@pytest.mark.slow
def test_the_report_of_a_watched_run(watched):
    page = watched[0].report
    assert page == watched[0].work_dir / 'report.html' and page.stat().st_size > 1e6
    cfg = Config.fromfile(watched[0].work_dir / 'tiny_detection.py')
    assert cfg.command == shlex.join(sys.argv) and cfg.command in unescape(page.read_text())
    assert [one.type for one in cfg.visualizer.vis_backends] == [
        'LocalVisBackend',
        'mmresnest.TensorboardVisBackend',
    ]
    # as a test in the same folder leaves it
    (folder := watched[1].work_dir).joinpath('tiny_detection.py').write_text('x = 1\n')
    assert find_command(folder, find_config(folder), 3) == cfg.command
    # predictions were those of the last validation, and nothing was written to TensorBoard anew
    assert len(list((watched[0].work_dir / 'report').iterdir())) == 1
    assert len(list(watched[0].work_dir.glob('**/events.out*'))) == 1


# ---- configs -------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(defaults, 'find_spec', lambda name: True)


def types(cfg):
    return [one['type'] for one in cfg.visualizer.vis_backends]


@pytest.mark.parametrize(
    'given, asked, found',
    [
        (
            None,
            ['wandb', 'mlflow'],
            ['LocalVisBackend', 'mmresnest.WandbVisBackend', 'mmresnest.MLflowVisBackend'],
        ),
        (dict(type='Visualizer'), ['wandb'], ['LocalVisBackend', 'mmresnest.WandbVisBackend']),
        (
            dict(type='Visualizer', vis_backends=LOCAL),
            ['tensorboard'],
            ['LocalVisBackend', 'mmresnest.TensorboardVisBackend'],
        ),
        (
            dict(vis_backends=[LOCAL, dict(type='TensorboardVisBackend', name='a')]),
            ['tensorboard', 'tensorboard'],
            ['LocalVisBackend', 'mmresnest.TensorboardVisBackend'],
        ),
        (
            dict(vis_backends=[dict(type='mmengine.MLflowVisBackend')]),
            [],
            ['mmresnest.MLflowVisBackend'],
        ),
        (
            dict(vis_backends=[dict(type=backends.TheirWandbVisBackend)]),
            [],
            ['mmresnest.WandbVisBackend'],
        ),
        (
            dict(vis_backends=[dict(type='AimVisBackend'), LOCAL]),
            ['tensorboard'],
            ['AimVisBackend', 'LocalVisBackend', 'mmresnest.TensorboardVisBackend'],
        ),
    ],
)
def test_backends_are_added_to_what_is_there(installed, given, asked, found):
    cfg = Config(dict(visualizer=given) if given else {})
    configure_loggers(cfg, asked)
    assert types(cfg) == found
    assert cfg.default_hooks.live.type == 'mmresnest.LivePictures'
    if given and 'name' in str(given):
        assert cfg.visualizer.vis_backends[1].name == 'a'
    disable_loggers(cfg)
    assert types(cfg) == ['LocalVisBackend']


@pytest.mark.parametrize(
    'given, hook',
    [
        (None, None),
        (dict(number=8), dict(number=8, type='mmresnest.LivePictures')),
        (dict(type='Mine'), dict(type='Mine')),
    ],
)
def test_pictures_are_as_the_config_says(installed, given, hook):
    cfg = Config(dict(default_hooks=dict(live=given)))
    configure_loggers(cfg, ['tensorboard'])
    assert cfg.default_hooks.get('live') == hook


def test_a_config_without_them_is_left_alone():
    cfg = Config(dict(visualizer=dict(type='Visualizer', vis_backends=[LOCAL])))
    configure_loggers(cfg)
    assert cfg.to_dict() == dict(visualizer=dict(type='Visualizer', vis_backends=[LOCAL]))


def test_what_is_missing_is_named_before_anything_is_written(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, 'find_spec', lambda name: None)
    config = tiny.write(tmp_path, 'detection')
    line = f'train {config} --data {shapes} --from-scratch --work-dir {tmp_path / "work"} --logger'
    remedy = 'pip install "mmresnest[wandb,mlflow]"'
    check_refused([*line.split(), 'wandb', 'mlflow'], 'package.missing', '--logger', remedy)
    assert not (tmp_path / 'work').exists()
    with refuses('option.unknown', '--logger tensorbord', 'nearest: tensorboard'):
        train(
            config,
            data=shapes,
            from_scratch=True,
            work_dir=tmp_path / 'work',
            logger=['tensorbord'],
        )
    assert tuple(BACKENDS) == LOGGERS


@pytest.mark.parametrize('number', [0, 2.5, True])
def test_the_number_of_pictures(number):
    with refuses('argument', f'number={number!r}', 'legal: whole numbers from 1'):
        LivePictures(number=number)


# ---- runs of milliseconds ------------------------------------------------------------------------


def toy(folder, backend, *, hooks=(), fail=0, **more):
    """A run whose pictures cannot be drawn; at call ``fail`` of the model it breaks off."""
    rows = toys.pictures(folder / 'images')
    visualizer = dict(
        type='Visualizer', name=f'{folder}{more}', vis_backends=[LOCAL, dict(type=backend)]
    )
    return toys.build(
        folder / 'work',
        rows,
        hooks,
        visualizer=visualizer,
        model=dict(losses={fail: np.inf} if fail else None),
        validated=True,
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            live=dict(type='mmresnest.LivePictures'),
            checkpoint=dict(type='CheckpointHook', interval=1),
        ),
        **more,
    )


def test_a_run_that_goes_on_goes_on_in_tensorboard(tmp_path):
    loop = dict(by_epoch=True, max_epochs=1)
    toy(tmp_path, 'mmresnest.TensorboardVisBackend', loop=loop).train()
    runner = toy(
        tmp_path,
        'mmresnest.TensorboardVisBackend',
        loop=dict(loop, max_epochs=2),
        resume=True,
        load_from=str(tmp_path / 'work/epoch_1.pth'),
    )
    runner._log_dir = str(tmp_path)
    runner.train()
    found, _ = events(tmp_path / 'work')
    agree(
        {name: points for name, points in found.items() if name != 'acc'},
        {name: points for name, points in scalars(tmp_path / 'work').items() if name != 'acc'},
    )
    assert [step for step, _ in found['loss']] == list(range(1, 9))


def test_what_breaks_off_has_written_all_before(tmp_path):
    runner = toy(
        tmp_path,
        'mmresnest.TensorboardVisBackend',
        fail=3,
        hooks=[dict(type='mmresnest.CheckNumbers')],
    )
    # Nothing is closed yet: a killed run leaves the same.
    with refuses('training.not-finite', 'iteration 3'):
        runner.train()
    losses = events(tmp_path / 'work')[0]['loss']
    assert [(step, bool(np.isfinite(loss))) for step, loss in losses] == [
        (1, True),
        (2, True),
        (3, False),  # the loss that ended it
    ]
    closed = []
    runner.visualizer.close = lambda: closed.append(sys.exc_info()[0])
    with pytest.raises(SystemExit), release_on_exit(runner):
        raise SystemExit(75)
    assert closed == [SystemExit]


def test_a_picture_that_cannot_be_drawn_ends_nothing(tmp_path):
    runner = toy(tmp_path, 'mmresnest.TensorboardVisBackend')
    runner.train()
    assert 'is not drawn for those who watch: AttributeError' in toys.log(runner)


def test_only_the_first_process_draws(monkeypatch):
    monkeypatch.setattr(live_pictures, 'is_main_process', lambda: False)
    hook = LivePictures()
    hook.before_val_epoch(None)
    hook.after_val_iter(None, 0, outputs=[1])
    hook.after_val_epoch(SimpleNamespace(visualizer=None, iter=3))
    assert not hook.drawn


def test_a_backend_that_takes_no_steps_is_refused(tmp_path):
    visualizer = Visualizer(vis_backends=[dict(type='MLflowVisBackend')], save_dir=str(tmp_path))
    with refuses('config.type-unfit', "type='mmresnest.MLflowVisBackend'"):
        LivePictures().before_run(SimpleNamespace(visualizer=visualizer))


# ---- wandb and MLflow, by stand-ins that write down what they are told ---------------------------


class Recorder:
    """A module of which every function may be called."""

    def __init__(self, **values):
        self.calls = []
        vars(self).update(values)

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *given, **named: self.calls.append((name, given, named))

    def of(self, name):
        return [
            (*given, named) if named else given[0] if len(given) == 1 else given
            for called, given, named in self.calls
            if called == name
        ]


@pytest.fixture
def wandb(monkeypatch):
    class Error(Exception):
        pass

    module = Recorder(
        errors=SimpleNamespace(Error=Error), Image=lambda image: image.shape, config=Recorder()
    )
    monkeypatch.setitem(sys.modules, 'wandb', module)
    return module


@pytest.fixture
def mlflow(monkeypatch):
    class MlflowException(Exception):
        pass

    module = Recorder(
        MlflowException=MlflowException,
        get_experiment_by_name=lambda name: None,
        active_run=lambda: 'one',
    )
    monkeypatch.setitem(sys.modules, 'mlflow', module)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    return module


def visualizer(tmp_path, kind, **more):
    return Visualizer(
        vis_backends=[dict(type=f'mmresnest.{kind}', **more)],
        save_dir=str(tmp_path / 'work' / 'now'),
    )


def test_wandb_counts_iterations(tmp_path, wandb):
    written = visualizer(tmp_path, 'WandbVisBackend', init_kwargs=dict(project='mine'))
    written.add_config(Config(dict(a=1)))
    written.add_scalars(dict(loss=1.0, iter=5), step=5)
    written.add_image('predictions_1', np.zeros((2, 3, 3), np.uint8), 5)
    written.add_scalars(dict(mIoU=0.5), step=1)  # of the first epoch
    written.close()
    assert wandb.of('log') == [
        (dict(iter=5, loss=1.0), dict(commit=True)),
        (dict(iter=5, predictions_1=(2, 3, 3)), dict(commit=True)),
        (dict(iter=5, mIoU=0.5), dict(commit=True)),
    ]
    assert wandb.of('define_metric')[-1][-1] == dict(name='*', step_metric='iter')
    assert wandb.of('init')[0][-1] == dict(
        project='mine', group='work', name='work/now', dir=str(tmp_path / 'work/now/vis_data')
    )
    assert wandb.config.of('update') == [(dict(a=1), dict(allow_val_change=True))]
    assert wandb.of('finish')[0][-1] == dict(exit_code=0)
    with pytest.raises(ZeroDivisionError):
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            written.close()
            raise
    assert wandb.of('finish')[1][-1] == dict(exit_code=1)


def test_wandb_that_cannot_begin_says_what_to_do(tmp_path, wandb):
    def init(**given):
        raise wandb.errors.Error('no API key')

    wandb.init = init
    with refuses('logger.failed', 'wandb', 'no API key', 'WANDB_MODE=offline'):
        visualizer(tmp_path, 'WandbVisBackend').add_config(Config())


def test_mlflow_is_written_to_the_work_folder(tmp_path, mlflow):
    written = visualizer(tmp_path, 'MLflowVisBackend')
    written.add_config(Config({'a': {'b (c)': 1}}))
    written.add_scalars({'coco/b (c)%': 0.5, 'loss': 1}, step=3)
    written.add_scalar('lr', 0.1, 3)
    written.add_image('predictions_1', np.zeros((2, 3, 3), np.uint8), 3)
    (tmp_path / 'work/now/now.log').write_text('lines')
    (tmp_path / 'work/now/vis_data/scalars.json').write_text('{}')
    (tmp_path / 'work/other.json').write_text('{}')
    written.close()
    work = tmp_path / 'work'
    assert mlflow.of('set_tracking_uri') == [f'sqlite:///{(work / "mlflow.db").as_posix()}']
    assert mlflow.of('create_experiment') == [('work', (work / 'mlruns').as_uri())]
    assert mlflow.of('log_params')[-1] == {'a.b _28c_29': 1}
    assert mlflow.of('log_metrics') == [
        ({'coco/b _28c_29_25': 0.5, 'loss': 1.0}, 3),
        ({'lr': 0.1}, 3),
    ]
    assert mlflow.of('log_image')[0][-1] == dict(key='predictions_1', step=3)
    assert mlflow.of('log_artifact') == [
        (str(work / 'now/now.log'), None),
        (str(work / 'now/vis_data/scalars.json'), 'vis_data'),
    ]
    assert mlflow.of('end_run') == ['FINISHED']


def test_mlflow_that_does_not_take_something_ends_no_run(tmp_path, mlflow, monkeypatch):
    told = []
    monkeypatch.setattr(backends, 'print_log', lambda line, *more: told.append(line))

    def refuse(*given, **more):
        raise mlflow.MlflowException('no')

    written = visualizer(tmp_path, 'MLflowVisBackend', tracking_uri='http://there')
    mlflow.log_metrics = mlflow.log_params = mlflow.log_image = mlflow.end_run = refuse
    with refuses('logger.failed', 'MLflow', 'http://there: no;', 'MLFLOW_TRACKING_URI'):
        written.add_config(Config(dict(a=1)))
    mlflow.log_params = lambda params: None
    written.add_config(Config(dict(a=1)))
    written.add_scalars(dict(loss=1), step=3)
    written.add_image('a', np.zeros((2, 3, 3), np.uint8), 3)
    written.close()
    assert told == [
        f'MLflow did not take {what}: no'
        for what in ('the numbers of step 3', 'the picture a', 'the end of the run')
    ]


# ---- and where they are installed ----------------------------------------------------------------


def test_real_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    runner = toy(tmp_path, 'mmresnest.MLflowVisBackend')
    runner.train()
    client = mlflow.MlflowClient(f'sqlite:///{(tmp_path / "work/mlflow.db").as_posix()}')
    [run] = client.search_runs([client.get_experiment_by_name('work').experiment_id])
    assert run.info.status == 'FINISHED'
    found = {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    agree(found, scalars(tmp_path / 'work'))
    assert 'Saving checkpoint' in toys.log(runner)  # alembic closes log files


def test_real_wandb(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    toy(tmp_path, 'mmresnest.WandbVisBackend').train()
    [run] = (tmp_path / 'work').glob('*/vis_data/wandb/offline-run-*/run-*.wandb')
    end = time.monotonic() + 60
    wanted = {name.encode() for name in scalars(tmp_path / 'work')}
    while missing := {name for name in wanted if name not in run.read_bytes()}:
        assert time.monotonic() < end, missing  # wandb writes in a process of its own
        time.sleep(0.1)
