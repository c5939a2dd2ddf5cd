"""A training that is broken off and taken up is, to the bit, the one that was not."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import noisy, toys
from helpers.breaking import KINDS, TOTAL, WORKERS, broken_off
from helpers.errors import refuses
from helpers.processes import HELPERS, environment
from helpers.tiers import mark_slow
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmresnest.engine.dataloader import ResumableBatchSampler
from mmresnest.engine.fingerprint import fingerprint_data, flatten_settings, list_differences
from mmresnest.engine.seeding import preserve_rng, seed_all

SOAK = bool(os.environ.get('MMRESNEST_SOAK'))
POINTS = 5 if SOAK else 1
"""Iterations at which each kind of training is broken off."""


# mmengine's schedulers expect a step of the optimiser in each iteration.
@pytest.mark.filterwarnings('ignore:Detected call of `scheduler.step')
# torch takes five seconds to let each persistent worker go.
@pytest.mark.parametrize(
    'kind, workers',
    mark_slow(
        [
            (kind, workers)
            for kind in KINDS
            for workers in WORKERS
            if SOAK or workers != 'persistent' or kind == 'iterations'
        ],
        lambda case: case == ('epochs', 'none'),
    ),
)
def test_as_if_nothing_had_happened(kind, workers, tmp_path):
    given = dict(KINDS[kind], **WORKERS[workers], interval=TOTAL[kind])
    noisy.train(noisy.config(tmp_path / 'whole', **given))
    wanted = noisy.state(tmp_path / 'whole' / f'iter_{TOTAL[kind]}.pth')
    draw = random.Random(f'{kind} {workers}')
    for iteration in draw.sample(range(1, TOTAL[kind]), POINTS):
        folder = tmp_path / f'broken_{iteration}'
        left = broken_off(noisy.config(folder, **given), iteration)
        assert left.name == f'iter_{iteration}.pth'
        noisy.train(noisy.config(folder, **given), resume=str(left))
        assert noisy.same(wanted, noisy.state(folder / f'iter_{TOTAL[kind]}.pth')) == [], iteration


@pytest.mark.slow
def test_who_loads_the_samples_does_not_matter(tmp_path):
    for name, given in WORKERS.items():
        noisy.train(noisy.config(tmp_path / name, epochs=3, interval=18, **given))
    states = [noisy.state(tmp_path / name / 'iter_18.pth') for name in WORKERS]
    for other in states[1:]:
        assert noisy.same(states[0], other) == []


@pytest.mark.slow
def test_the_comparison_can_fail(tmp_path):
    noisy.train(noisy.config(tmp_path / 'one', epochs=2, interval=12))
    noisy.train(noisy.config(tmp_path / 'other', epochs=2, interval=12, randomness=dict(seed=8)))
    found = noisy.same(*(noisy.state(tmp_path / name / 'iter_12.pth') for name in ('one', 'other')))
    assert {line.split('.')[1].split(':')[0] for line in found} >= {
        'weights',
        'averaged',
        'logs',
        'optimiser',
        'meta',
        'record',
    }


@pytest.mark.slow
def test_without_a_seed_the_drawn_one_is_kept(tmp_path):
    given = dict(epochs=3, randomness=dict(seed=None))
    noisy.train(noisy.config(tmp_path / 'whole', **given))
    noisy.train(
        noisy.config(tmp_path / 'other', **given), resume=str(tmp_path / 'whole/iter_7.pth')
    )
    assert (
        noisy.same(*(noisy.state(tmp_path / name / 'iter_18.pth') for name in ('whole', 'other')))
        == []
    )


@pytest.mark.slow
def test_checkpoints_of_epochs(tmp_path):
    hooks = dict(
        checkpoint=dict(
            type='mmresnest.CheckpointHook', interval=1, save_best='mean', rule='greater'
        )
    )
    given = dict(epochs=3, default_hooks=hooks)
    noisy.train(noisy.config(tmp_path / 'whole', **given))
    noisy.train(
        noisy.config(tmp_path / 'other', **given), resume=str(tmp_path / 'whole/epoch_2.pth')
    )
    assert (
        noisy.same(*(noisy.state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'other')))
        == []
    )


def test_epochs_do_not_repeat_their_augmentation(tmp_path, monkeypatch):
    seen, theirs = [], noisy.ToyModel.forward

    def forward(self, inputs, label, mode='tensor'):
        if mode == 'loss':
            seen.append(torch.stack(inputs)[:, 1:])
        return theirs(self, inputs, label, mode)

    monkeypatch.setattr(noisy.ToyModel, 'forward', forward)
    noisy.train(noisy.config(tmp_path, epochs=2, workers=2))
    noise = torch.cat(seen).flatten()
    assert len(noise.unique()) == noise.numel() == 2 * 24 * 3


def random_loader(folder):
    """A loader of torch, whose sampler draws from the generator of the process."""
    data = noisy.ToyDataset()
    data.full_init()
    return dict(
        train_dataloader=DataLoader(data, batch_size=4, shuffle=True, collate_fn=pseudo_collate)
    )


OTHERS = {
    'early stopping': dict(
        default_hooks=dict(
            early=dict(
                type='EarlyStoppingHook', monitor='mean', patience=2, min_delta=1e9, rule='greater'
            )
        )
    ),
    'plateau': dict(
        param_scheduler=[
            dict(type='ReduceOnPlateauLR', monitor='mean', patience=0, rule='less', factor=0.5)
        ]
    ),
    'batches by shape': dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler')),
    'repeated': dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(type='ToyDataset'))),
    'bfloat16': dict(wrapper='mmresnest.Bfloat16OptimWrapper'),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', OTHERS)
def test_other_parts_of_a_training(kind, tmp_path, monkeypatch):
    def config(folder):
        settings = noisy.config(folder, epochs=4, interval=1)
        for key, value in OTHERS[kind].items():
            if key in ('batch_sampler', 'dataset'):
                settings['train_dataloader'][key] = value
            elif key == 'default_hooks':
                settings[key] = dict(settings[key], **value)
            elif key == 'wrapper':
                settings['optim_wrapper']['type'] = value
            else:
                settings[key] = value
        return settings

    whole = noisy.train(config(tmp_path / 'whole'))
    last = max(int(path.stem[5:]) for path in (tmp_path / 'whole').glob('iter_*.pth'))
    assert kind != 'early stopping' or whole.epoch < 4
    for iteration in (5, last - 4):
        folder = tmp_path / f'from_{iteration}'
        noisy.train(config(folder), resume=str(tmp_path / 'whole' / f'iter_{iteration}.pth'))
        assert (
            noisy.same(
                *(noisy.state(place / f'iter_{last}.pth') for place in (tmp_path / 'whole', folder))
            )
            == []
        ), iteration


@pytest.mark.slow
def test_a_loader_of_torch(tmp_path):
    for name in ('whole', 'other'):
        resume = str(tmp_path / 'whole' / 'iter_8.pth') if name == 'other' else ''
        settings = noisy.config(tmp_path / name, epochs=3)
        given = dict(settings, **random_loader(tmp_path))
        if resume:
            given.update(resume=True, load_from=resume)
        Runner(**given, experiment_name=f'loader {tmp_path.name} {name}').train()
    assert (
        noisy.same(*(noisy.state(tmp_path / name / 'iter_18.pth') for name in ('whole', 'other')))
        == []
    )


@pytest.mark.slow
def test_a_batch_that_never_fills(tmp_path):
    settings = noisy.config(tmp_path, iterations=4)
    settings['train_dataloader'].update(batch_size=50, drop_last=True)
    settings['train_dataloader']['sampler'] = dict(type='DefaultSampler', shuffle=True)
    with refuses('data.no-batch', 'drop_last', 'train_dataloader.batch_size'):
        noisy.train(settings)
    settings['train_dataloader']['sampler'] = dict(type='InfiniteSampler', shuffle=True)
    noisy.train(settings)  # takes batches over the end of the data


# ---- two processes -------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes(tmp_path):
    """One of two gets the signal, both stop; see exact.py."""
    kinds = list(KINDS) if SOAK else ['epochs', 'accumulating']
    script = HELPERS / 'exact.py'
    run = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node=2',
            script,
            tmp_path,
            str(POINTS),
            *kinds,
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment(),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((tmp_path / 'found.json').read_text())
    first, second = found.pop('failure')
    assert first == 'RuntimeError: of the first process'
    assert second.startswith('UserError:') and 'another process says why' in second
    assert len(found) == (len(KINDS) * len(WORKERS) if SOAK else len(kinds)) * POINTS
    assert {name: lines for name, lines in found.items() if lines} == {}


# ---- what has changed ----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    noisy.train(noisy.config(folder, epochs=2))
    return str(folder / 'iter_5.pth')


@pytest.mark.slow
def test_another_batch_size_is_refused_and_can_be_accepted(trained, tmp_path):
    settings = noisy.config(tmp_path, epochs=2)
    settings['train_dataloader']['batch_size'] = 3
    with refuses('resume.changed', 'was 4', 'now 3', '--allow-mismatch'):
        noisy.train(settings, resume=trained)
    settings['train_cfg']['accept_changes'] = True
    assert noisy.train(settings, resume=trained).iter > 12


@pytest.mark.slow
def test_epochs_of_another_length_follow_the_schedule(tmp_path):
    """Two epochs of six batches, then of twelve; milestones behind the first and the fourth."""
    schedule = [dict(type='MultiStepLR', by_epoch=True, end=6, milestones=[1, 4], gamma=0.1)]
    noisy.train(noisy.config(tmp_path, epochs=3, param_scheduler=schedule))
    settings = noisy.config(tmp_path / 'on', epochs=6, param_scheduler=schedule)
    settings['train_dataloader']['batch_size'] = 2
    settings['train_cfg']['accept_changes'] = True
    runner = noisy.train(settings, resume=str(tmp_path / 'iter_12.pth'))
    rates = runner.message_hub.get_scalar('train/lr').data[0].tolist()
    wanted = [0.05] * 6 + [0.005] * (6 + 24) + [0.0005] * 24
    assert rates == pytest.approx(wanted)


def test_other_data_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(noisy.ToyDataset, 'load_data_list', lambda self: [dict(value=0.0)] * 20)
    with refuses('resume.changed', 'samples of data set 1', '--allow-mismatch'):
        noisy.train(noisy.config(tmp_path, epochs=2), resume=trained)


def test_another_number_of_processes_is_refused(trained, tmp_path):
    content = torch.load(trained, weights_only=False)
    content['mmresnest']['world_size'] = 8
    torch.save(content, tmp_path / 'eight.pth')
    with refuses('resume.changed', 'processes was 8, now 1', '--allow-mismatch'):
        noisy.train(noisy.config(tmp_path / 'run', epochs=2), resume=str(tmp_path / 'eight.pth'))


def test_other_settings_are_named(trained, tmp_path, capfd):
    settings = noisy.config(tmp_path, epochs=2)
    settings['optim_wrapper']['optimizer']['lr'] = 0.01
    noisy.train(settings, resume=trained)
    said = capfd.readouterr()
    assert re.search(r'optim_wrapper\.optimizer\.lr: 0\.05 before, 0\.01 now', said.out + said.err)


def test_a_checkpoint_of_mmengine_goes_on_with_a_warning(trained, tmp_path, capfd):
    content = torch.load(trained, weights_only=False)
    del content['mmresnest']
    torch.save(content, tmp_path / 'theirs.pth')
    runner = noisy.train(
        noisy.config(tmp_path / 'run', epochs=2), resume=str(tmp_path / 'theirs.pth')
    )
    said = capfd.readouterr()
    assert 'written without mmresnest' in said.out + said.err and runner.epoch == 2


@pytest.mark.slow
def test_a_longer_training_follows_its_own_schedule(tmp_path):
    def rates(folder, resume='', **given):
        runner = noisy.train(noisy.config(folder, interval=6, **given), resume)
        return runner.message_hub.get_scalar('train/lr').data[0]

    schedule = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
        dict(type='MultiStepLR', by_epoch=True, end=5, milestones=[2, 4], gamma=0.1),
    ]
    whole = rates(tmp_path / 'whole', epochs=5, param_scheduler=schedule)
    rates(tmp_path / 'short', epochs=3)  # ends at 3, with a milestone at 2
    longer = rates(
        tmp_path / 'longer',
        str(tmp_path / 'short' / 'iter_18.pth'),
        epochs=5,
        param_scheduler=schedule,
    )
    assert longer.tolist() == pytest.approx(whole.tolist(), rel=1e-6)
    assert whole[-1] < whole[18] < whole[11]


# ---- parts ---------------------------------------------------------------------------------------


def test_sown_numbers_depend_on_the_place_alone():
    import numpy as np

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_all(1, 2, 3)
    first = draw()
    draw()
    seed_all(1, 2, 4)
    assert not set(draw()) & set(first)
    seed_all(1, 2, 3)
    with preserve_rng():
        seed_all(9)
        draw()
    assert draw() == first


def test_batches_begin_anywhere():
    batches = [[0, 1], [2, 3], [4]]
    stream = ResumableBatchSampler(batches, None, endless=False, seed=0)
    stream.start(2, 1)
    assert [(list(batch), batch.place) for batch in stream] == [([2, 3], (2, 1)), ([4], (2, 2))]
    endless = ResumableBatchSampler(batches, None, endless=True, seed=0)
    endless.start(0, 4)
    taken = [(list(batch), batch.place) for batch, _ in zip(endless, range(3))]
    assert taken == [([2, 3], (0, 4)), ([4], (0, 5)), ([0, 1], (0, 6))]


def test_fingerprints_see_contents_not_places(tmp_path):
    class Data:
        def __init__(self, ann_file='', **prefix):
            self.ann_file, self.data_prefix = str(ann_file), {k: str(v) for k, v in prefix.items()}

        def __len__(self):
            return 3

    def values(data):
        return list(fingerprint_data(data).values())

    for name in 'ab':
        (tmp_path / name / 'img').mkdir(parents=True)
        (tmp_path / name / 'x.json').write_text('{}')
        (tmp_path / name / 'img' / '1.png').write_text('12')
    a, b = tmp_path / 'a', tmp_path / 'b'
    assert values(Data(a / 'x.json')) == values(Data(b / 'x.json'))
    assert values(Data(img=a / 'img')) == values(Data(img=b / 'img'))
    (b / 'x.json').write_text('{ }')
    (b / 'img' / '1.png').write_text('123')
    assert values(Data(a / 'x.json')) != values(Data(b / 'x.json'))
    assert values(Data(img=a / 'img')) != values(Data(img=b / 'img'))


def test_settings_are_compared_by_name():
    before = flatten_settings(
        dict(model=dict(depth=50, stages=[dict(a=1), dict(a=2)]), work_dir='x')
    )
    assert before == {'model.depth': '50', 'model.stages.0.a': '1', 'model.stages.1.a': '2'}
    now = flatten_settings(dict(model=dict(depth=101, stages=[dict(a=1)]), work_dir='y'))
    assert list_differences(before, now) == [
        ('model.depth', '50', '101'),
        ('model.stages.1.a', '2', 'not set'),
    ]


def test_images_that_were_replaced_are_warned_of(tmp_path, capfd):
    """By the sizes of their files, and by files that are newer than the checkpoint."""
    rows = toys.pictures(tmp_path / 'images')
    loop = dict(type='mmresnest.EpochBasedTrainLoop', max_epochs=2)

    def resume(name):
        capfd.readouterr()
        last = str(tmp_path / 'whole' / 'epoch_1.pth')
        made = toys.build(tmp_path / name, rows, loop=loop, resume=True, load_from=last)
        made.train()
        return [line for line in toys.log(made).splitlines() if 'images of the training' in line]

    toys.build(tmp_path / 'whole', rows, loop=loop).train()
    assert resume('same') == []
    image = Path(rows[3]['img_path'])
    earlier = image.stat().st_mtime
    os.utime(image, (earlier + 3600, earlier + 3600))
    (line,) = resume('newer')
    assert f'{image} written since' in line and 'WARNING' in line
    image.write_bytes(image.read_bytes() + bytes(9))
    os.utime(image, (earlier, earlier))
    (line,) = resume('larger')
    assert 'other sizes of files' in line
    content = torch.load(tmp_path / 'whole' / 'epoch_1.pth', weights_only=False)
    del content['mmresnest']['images'], content['mmresnest']['written']
    torch.save(content, tmp_path / 'whole' / 'epoch_1.pth')
    Path(f'{tmp_path}/whole/epoch_1.pth.sha256').unlink(missing_ok=True)
    assert resume('earlier') == [], 'a checkpoint of an earlier version says nothing of images'


def test_iterations_of_two_processes_draw_in_their_own_ways(tmp_path, monkeypatch):
    """Dropout and the like: by the rank of the process, and by the iteration."""
    from mmresnest.engine import loops

    placed = []
    monkeypatch.setattr(loops, 'seed_all', lambda *place: placed.append(place))
    monkeypatch.setattr(loops, 'get_rank', lambda: 3)
    noisy.train(noisy.config(tmp_path, epochs=1))
    assert {place[1] for place in placed} == {3}
    assert {(7, 3, iteration) for iteration in range(6)} <= set(placed)
