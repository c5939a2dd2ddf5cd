"""Trainings whose numbers go wrong: stopped before the step, skipped, warned of; never saved."""

import copy
import json
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from helpers import toys
from helpers.errors import refuses
from helpers.processes import HELPERS, environment
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from torch import nn

from mmresnest.engine import optim_wrappers
from mmresnest.engine.finite import has_not_finite, has_overflow, image_names
from mmresnest.engine.hooks.nan_guard import CheckNumbers
from mmresnest.utils.text import format_some

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]

CHECK = dict(type='mmresnest.CheckNumbers')
EACH = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1))
NAN, INF = math.nan, math.inf


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    return toys.pictures(tmp_path_factory.mktemp('images'))


class Weights(Hook):
    """Notes the weights after each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.after = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.after.append(copy.deepcopy(runner.model.state_dict()))


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def finite(state):
    return all(value.isfinite().all() for value in state.values())


def stopped(work, rows, check=CHECK, code='training.not-finite', **more):
    """A training that must stop: its runner, the message, and the weights after each iteration."""
    runner, weights = toys.build(work, rows, [check], **{'default_hooks': EACH, **more}), Weights()
    runner.register_hook(weights)
    with refuses(code) as error:
        runner.train()
    return runner, str(error.value), weights.after


# ---- before the step -----------------------------------------------------------------------------


@pytest.mark.parametrize('value, flexible', [(NAN, False), (INF, True), (-INF, False)])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, rows, value, flexible):
    runner, said, weights = stopped(
        tmp_path / 'work', rows, flexible=flexible, model=dict(losses={3: value})
    )
    assert (
        said.startswith(
            'the loss is not finite at iteration 3: loss nan, loss_toy nan, '
            'loss_other nan, acc nan; images '
        )
        or 'loss inf' in said
    )
    assert f'images {rows[4]["img_path"]}, {rows[5]["img_path"]}.' in said
    assert rows[3]['img_path'] not in said
    assert f'The last good checkpoint is {tmp_path / "work" / "iter_2.pth"}' in said
    assert 'The step was not taken: the weights are finite.' in said and '--auto-scale-lr' in said
    assert len(weights) == 2 and same(runner.model.state_dict(), weights[-1])


@pytest.mark.parametrize(
    'wrapper', [{}, dict(clip_grad=dict(max_norm=1.0)), dict(type='mmresnest.Bfloat16OptimWrapper')]
)
def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path, rows, wrapper):
    runner, said, weights = stopped(
        tmp_path / 'work', rows, wrapper=wrapper, model=dict(losses={2: 'gradient'})
    )
    assert 'gradients are not finite at iteration 2 of linear.bias: loss 0.' in said
    assert rows[2]['img_path'] in said and 'iter_1.pth' in said
    assert same(runner.model.state_dict(), weights[-1]) and finite(weights[-1])


def test_before_the_first_checkpoint(tmp_path, rows):
    _, said, _ = stopped(tmp_path / 'work', rows, model=dict(losses={1: NAN}))
    assert 'No checkpoint was written before.' in said


def test_within_the_interval(tmp_path, rows):
    """What happened between two looks is found by the next one, and told as it was."""
    runner, said, weights = stopped(
        tmp_path / 'work',
        rows,
        dict(CHECK, interval=4),
        model=dict(losses={2: NAN}),
        default_hooks={},
    )
    assert runner.iter == 3 and len(weights) == 3 and not finite(weights[-1])
    assert 'not finite at iteration 2: loss nan' in said and rows[2]['img_path'] in said
    assert 'but for what happened in the 4 iterations since the last look' in said


def test_gathered_gradients(tmp_path, rows):
    """The loss of one of several forward passes keeps their common step from being taken."""
    runner, said, weights = stopped(
        tmp_path / 'work',
        rows,
        model=dict(losses={3: NAN}),
        wrapper=dict(accumulative_counts=2),
        default_hooks={},
    )
    assert runner.iter == 3 and 'at iteration 3: loss nan' in said and rows[4]['img_path'] in said
    assert same(weights[1], runner.model.state_dict()) and not same(weights[0], weights[1])


def test_it_changes_nothing_while_all_is_well(tmp_path, rows):
    found = []
    for number, hooks in enumerate(([], [CHECK], [dict(CHECK, action='skip')])):
        runner = toys.build(
            tmp_path / f'{number}',
            rows,
            hooks,
            model=dict(normed=True),
            wrapper=dict(accumulative_counts=2, clip_grad=dict(max_norm=1.0)),
        )
        runner.train()
        found.append(runner.model.state_dict())
        assert getattr(runner.optim_wrapper, 'guard', None) is None
    assert same(found[0], found[1]) and same(found[0], found[2])


def test_a_copy_of_the_model_in_training_is_a_model(tmp_path, rows):
    class Copy(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.twin = copy.deepcopy(runner.model)

    runner, hook = toys.build(tmp_path / 'work', rows, [CHECK]), Copy()
    runner.register_hook(hook)
    runner.train()
    assert same(hook.twin.state_dict(), runner.model.state_dict())
    assert hook.twin.parse_losses(dict(loss=torch.ones(2)))[0] == 1


# ---- skipped -------------------------------------------------------------------------------------


def test_a_step_is_skipped(tmp_path, rows):
    """With it, what the forward pass left in the norms; the schedule goes on."""
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [dict(CHECK, action='skip')],
        model=dict(normed=True, losses={2: NAN, 4: 'gradient'}),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    )
    weights = Weights()
    runner.register_hook(weights)
    runner.train()
    after = [
        {name: value for name, value in one.items() if 'num_batches' not in name}
        for one in weights.after
    ]
    assert runner.iter == 4 and finite(runner.model.state_dict())
    assert same(after[0], after[1]) and not same(after[1], after[2]) and same(after[2], after[3])
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.01)
    said = toys.log(runner)
    assert 'at iteration 2: loss nan' in said and 'left out: 1 in a row, 1 in all' in said
    assert 'left out: 1 in a row, 2 in all' in said and 'CheckNumbers: 2 steps were left' in said


def test_not_many_in_a_row(tmp_path, rows):
    runner, said, weights = stopped(
        tmp_path / 'work',
        rows,
        dict(CHECK, action='skip', max_skips=2),
        model=dict(losses={1: NAN, 2: NAN, 4: NAN, 5: NAN, 6: INF}),
        loop=dict(by_epoch=True, max_epochs=2),
    )
    assert runner.iter == 5 and '3 steps in a row.' in said and 'at iteration 6' in said
    assert finite(weights[-1])


def test_gathered_gradients_are_skipped_together(tmp_path, rows):
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [dict(CHECK, action='skip')],
        model=dict(normed=True, losses={1: NAN}),
        wrapper=dict(accumulative_counts=2),
    )
    before, weights = copy.deepcopy(runner.model.state_dict()), Weights()
    runner.register_hook(weights)
    runner.train()
    assert finite(weights.after[-1])
    assert torch.equal(weights.after[1]['norm.running_mean'], before['norm.running_mean'])
    assert torch.equal(weights.after[1]['linear.weight'], before['linear.weight'])
    assert not torch.equal(weights.after[3]['linear.weight'], before['linear.weight'])


# ---- mixed precision -----------------------------------------------------------------------------


@pytest.fixture
def scaler(monkeypatch):
    """AmpOptimWrapper on a CPU: mmengine has none there, torch's scaler does not mind."""
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))


def scaled(**scale):
    return dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=scale or 'dynamic')


def test_a_scale_that_is_searched_for(tmp_path, rows, scaler):
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [CHECK],
        wrapper=scaled(init_scale=3e38),
        loop=dict(by_epoch=True, max_epochs=4),
    )
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    assert runner.optim_wrapper.loss_scaler.get_scale() < 3e38, 'gradients did overflow'
    assert not same(before, runner.model.state_dict()), 'and then did not'


def test_a_scale_that_collapses(tmp_path, rows, scaler):
    losses = dict.fromkeys(range(3, 99), 'gradient')
    runner, said, weights = stopped(
        tmp_path / 'work',
        rows,
        dict(CHECK, min_scale=0.25),
        'training.loss-scale',
        wrapper=scaled(init_scale=2.0),
        model=dict(losses=losses),
        loop=dict(by_epoch=True, max_epochs=9),
    )
    assert 'the loss scale of mixed precision collapses: it is 0.125 after iteration 6' in said
    assert 'bfloat16' in said and same(runner.model.state_dict(), weights[1])


def test_losses_and_fixed_scales(tmp_path, rows, scaler):
    _, said, _ = stopped(tmp_path / 'loss', rows, wrapper=scaled(), model=dict(losses={2: NAN}))
    assert 'the loss is not finite at iteration 2' in said
    _, said, _ = stopped(
        tmp_path / 'fixed',
        rows,
        model=dict(losses={2: 'gradient'}),
        wrapper=dict(scaled(), loss_scale=8.0),
    )
    assert 'gradients are not finite at iteration 2 of linear.bias' in said


# ---- where nothing stands before the step --------------------------------------------------------


@MODELS.register_module()
class TwoSteps(toys.TroubledModel):
    """As those of generative models: one optimiser for each part."""

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        total, terms = self.parse_losses(self._run_forward(data, mode='loss'))
        optim_wrapper['linear'].update_params(total)
        return terms


def two_optimisers(runner):
    runner.optim_wrapper = OptimWrapperDict(
        **{
            name: OptimWrapper(torch.optim.SGD(getattr(runner.model, name).parameters(), lr=0.1))
            for name in ('linear', 'other')
        }
    )
    return runner


def test_several_optimisers(tmp_path, rows):
    runner = two_optimisers(
        toys.build(tmp_path / 'work', rows, [CHECK], model=dict(type='TwoSteps', losses={3: NAN}))
    )
    with refuses('training.not-finite', 'iteration 3: loss nan', 'step was taken'):
        runner.train()
    runner = two_optimisers(
        toys.build(
            tmp_path / 'work', rows, [dict(CHECK, action='skip')], model=dict(type='TwoSteps')
        )
    )
    with refuses('config.type-unfit', "action='skip'", 'OptimWrapperDict', "action='stop'"):
        runner.train()


# ---- saving --------------------------------------------------------------------------------------


class Spoil(Hook):
    """Weights go bad, in whatever way."""

    def __init__(self, at, name='linear.weight'):
        self.at, self.name = at, name

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.at:
            runner.model.state_dict()[self.name].fill_(NAN)


@pytest.mark.parametrize(
    'unit, kept, name',
    [
        (dict(by_epoch=True), 'epoch_1.pth', 'linear.weight'),
        (dict(by_epoch=False), 'iter_6.pth', 'norm.running_var'),
    ],
)
def test_bad_weights_take_the_place_of_no_checkpoint(tmp_path, rows, unit, kept, name):
    """mmengine removes the old one first, so its hook must not get as far."""
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [CHECK],
        model=dict(normed=True),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, **unit)
        ),
        loop=dict(by_epoch=True, max_epochs=3),
    )
    runner.register_hook(Spoil(6, name), 'VERY_LOW' if unit['by_epoch'] else 'NORMAL')
    with refuses('training.not-finite', kept, '--resume'):
        runner.train()
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == [kept]


def test_what_is_saved(tmp_path, rows):
    runner = toys.build(tmp_path / 'work', rows, [CHECK])
    runner.model.register_buffer('mask', torch.tensor([0.0, -INF]))
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckNumbers))
    good = runner.model.state_dict()
    hook.before_save_checkpoint(runner, dict(state_dict=good, ema_state_dict={'steps': 3}))
    hook.before_save_checkpoint(runner, {})
    for part in ('state_dict', 'ema_state_dict'):
        bad = dict(good, **{'linear.bias': torch.tensor([0.0, NAN])})
        with refuses('training.not-finite', 'linear.bias', 'epoch_1.pth', '--resume'):
            hook.before_save_checkpoint(runner, {part: bad})


def test_bad_weights_are_not_validated(tmp_path, rows):
    runner = toys.build(tmp_path / 'work', rows, [CHECK], validated=True, default_hooks={})
    runner.register_hook(Spoil(3), 'LOWEST')
    with refuses('training.not-finite', 'iteration 4', 'linear.weight'):
        runner.train()
    runner = toys.build(tmp_path / 'after', rows, [CHECK], validated=True)
    runner.train()
    runner.model.linear.weight.data.fill_(NAN)
    assert runner.val_loop.run()['score'] == 1, 'after a training it only looks on'


# ---- warnings ------------------------------------------------------------------------------------


def test_an_explosion_is_warned_of(tmp_path, rows):
    losses = {number: 1.0 + number / 100 for number in range(1, 200)}
    losses.update({10: 900.0, 40: 80.0, 41: 8000.0, 180: 500.0})
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [CHECK],
        model=dict(losses=losses),
        loop=dict(by_epoch=True, max_epochs=45),
    )
    runner.train()
    lines = [line for line in toys.log(runner).splitlines() if 'the loss explodes' in line]
    assert len(lines) == 2, 'not among the first, and once in a hundred iterations'
    assert (
        'WARNING - the loss explodes: 80.25 at iteration 40, where the median of the last 39'
        in lines[0]
        and 'at iteration 180' in lines[1]
    )
    silent = toys.build(
        tmp_path / 'silent',
        rows,
        [dict(CHECK, explosion=None)],
        model=dict(losses=losses),
        loop=dict(by_epoch=True, max_epochs=12),
    )
    silent.train()
    assert 'explodes' not in toys.log(silent)


@pytest.mark.parametrize(
    'model, expected',
    [
        (dict(scores=[0.01, 0.04], classes=None), 'no image of the validation has a detection'),
        (dict(scores=[], classes=None), 'no image of the validation has a detection'),
        (dict(scores=[0.01, 0.05], classes=None), ''),
        (
            dict(scores=None, classes=[3, 3]),
            'every pixel of the validation is predicted as class 3',
        ),
        (dict(scores=None, classes=[3, 0]), ''),
        (dict(scores=None, classes=None), ''),
    ],
)
def test_all_background_is_warned_of(tmp_path, rows, model, expected):
    runner = toys.build(tmp_path / 'work', rows, [CHECK], model=model, validated=True)
    runner.train()
    said = toys.log(runner)
    assert (
        (expected in said and 'learning rate' in said)
        if expected
        else ('of the validation' not in said)
    )


# ---- two processes -------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_stop_together(tmp_path):
    """See stops.py: what is wrong in one of them ends both, in the same iteration and words."""
    env = environment()
    run = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            f'--master_port={env["PORT"]}',
            HELPERS / 'stops.py',
            tmp_path,
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    one, two = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert one == two
    assert one['loss']['iteration'] == 2 and one['loss']['finite']
    assert 'not finite at iteration 3: process 1: loss nan' in one['loss']['said']
    assert 'process 0' not in one['loss']['said'] and '5.jpg' in one['loss']['said']
    assert one['skipped']['iteration'] == 8 and one['skipped']['finite']
    assert one['images']['iteration'] == 9 and '2 images' in one['images']['said']
    assert '3.jpg' in one['images']['said'] and one['images']['lines'] == 2


# ---- its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'wrong',
    [
        dict(interval=0),
        dict(interval=True),
        dict(max_skips=0),
        dict(action='warn'),
        dict(action='skip', interval=2),
        dict(explosion=1),
        dict(score_thr=1.0),
        dict(min_scale=-1),
    ],
)
def test_arguments(wrong):
    name, value = next(iter(wrong.items()))
    with refuses('argument', f'CheckNumbers: {name}={value!r}', 'legal: '):
        CheckNumbers(**wrong)


def test_finite():
    some = [torch.zeros(0), torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.float64)]
    for judge in (has_overflow, has_not_finite):
        assert not judge(some) and not judge([]) and not judge([torch.zeros(0)])
        for value in (NAN, INF, -INF):
            assert judge([*some, torch.tensor([0.0, value])])
    great = torch.full((3,), 3e38), torch.full((3,), 6e4, dtype=torch.float16)
    assert has_overflow(great) and not has_not_finite(great)


def test_great_gradients_are_not_infinite_ones(tmp_path, rows):
    """What the fast look cannot tell apart, a second one does."""
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [CHECK],
        wrapper=dict(optimizer=dict(type='SGD', lr=1e-30), clip_grad=dict(max_norm=1.0)),
        model=dict(great=1e30),
    )
    runner.train()
    assert runner.iter == 4


def test_names_of_images():
    def sample(path):
        return toys.BaseDataElement(metainfo=dict(img_path=path))

    assert image_names(dict(data_samples=[sample('a'), sample('b')])) == ['a', 'b']
    assert image_names(dict(data_samples=dict(sup=[sample('a')], teacher=[sample('c')]))) == [
        'a',
        'c',
    ]
    assert image_names(None) == image_names(torch.zeros(3)) == image_names(dict(inputs=3)) == []
    assert image_names([nn.Identity()]) == []
    assert format_some(list('abcdefghij')) == 'a, b, c, d, e, f, g, h and 2 more'


def test_processes_agree_before_a_step(tmp_path, rows, monkeypatch, scaler):
    """Another process has a bad loss: no step here either, also with a dynamic loss scale."""
    for name, wrapper in (('amp', scaled()), ('plain', {})):
        asked = []

        def another(bad, asked=asked):
            asked.append(bool(bad))
            return len(asked) > 2  # in the third iteration

        monkeypatch.setattr(optim_wrappers, 'any_process', another)
        runner, said, weights = stopped(
            tmp_path / name, rows, wrapper=wrapper, default_hooks={}, model=dict(normed=True)
        )
        assert len(asked) == 4 and not any(asked), 'nothing was wrong with this process'
        trained = {key: value for key, value in weights[-1].items() if 'norm' not in key}
        assert same(trained, runner.model.state_dict()) and runner.iter == len(weights) == 2


def test_several_processes_are_asked(monkeypatch):
    """The answer is that of the processes together."""
    from mmresnest.engine import finite

    monkeypatch.setattr(finite, 'all_reduce', lambda flag, how: flag.fill_(1.0))
    assert finite.any_process(torch.tensor(False))
    monkeypatch.setattr(finite, 'all_reduce', lambda flag, how: None)
    assert not finite.any_process(torch.tensor(False)) and finite.any_process(torch.tensor(True))
