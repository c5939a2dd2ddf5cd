"""Population statistics against all activations kept and measured at once; the hook in use."""

import copy
import random

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from mmengine.config import Config
from torch import nn

from mmresnest import build_backbone
from mmresnest.config.load import load_config
from mmresnest.config.retarget import use_data
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine import checkpoints
from mmresnest.engine.hooks.bn_statistics import estimate_statistics, norms_in_training
from mmresnest.engine.hooks.precise_bn import PreciseBN
from mmresnest.engine.train import train
from mmresnest.models.blocks.split_attention import SplitAttention

pytestmark = pytest.mark.filterwarnings('ignore')


class Tiny(nn.Module):
    """A norm used twice, one of its own class, a frozen one, one never reached, a plain buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.shared, self.frozen = nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval()
        self.sync, self.unreached = nn.SyncBatchNorm(4, momentum=None), nn.BatchNorm2d(4)
        self.instance = nn.InstanceNorm2d(4, track_running_stats=True)
        self.stateless = nn.BatchNorm2d(4, track_running_stats=False)
        self.register_buffer('calls', torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        x = self.shared(self.first(x)).relu()
        x = self.shared(self.second(x)).relu()
        return self.stateless(self.instance(self.sync(self.frozen(x))))


def batches(count=5, **size):
    """Of different sizes, with a mean far from zero, where a difference of squares cancels."""
    torch.manual_seed(3)
    return [100 + torch.randn(size.get('batch', 2 + i % 3), 3, 6 + i, 9) for i in range(count)]


def twin(model, data):
    """Statistics of every norm from all of its inputs, kept: the obvious way."""
    model, kept = copy.deepcopy(model), {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            module.register_forward_pre_hook(
                lambda _, args, name=name: kept.setdefault(name, []).append(args[0])
            )
        if isinstance(module, SplitAttention) and module.bn1.training:
            # its second norm is computed without a call of the module
            module.fc1.register_forward_hook(
                lambda _, args, out, name=name: kept.setdefault(f'{name}.bn1', []).append(out)
            )
    with torch.no_grad():
        for batch in data:
            model(batch)
    found = {}
    for name, inputs in kept.items():
        flat = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], 1).double().numpy()
        found[name] = flat.mean(1), flat.var(1)
    return found


def check_against_twin(model, data):
    wanted = twin(model, data)
    before = copy.deepcopy(model.state_dict())
    modules = dict(model.named_modules())
    live = {name for name in wanted if modules[name].running_mean is not None}
    assert estimate_statistics(model, model, data) == len(live) > 0
    for name in live:
        mean, var = wanted[name]
        np.testing.assert_allclose(modules[name].running_mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(modules[name].running_var, var, rtol=1e-5, atol=1e-7)
    for name, value in model.state_dict().items():
        owner, _, last = name.rpartition('.')
        if not (owner in live and last in ('running_mean', 'running_var')):
            assert torch.equal(value, before[name]), f'{name} was changed'
    return live


def test_against_the_twin():
    model = Tiny()
    momentum = [getattr(module, 'momentum', None) for module in model.modules()]
    live = check_against_twin(model, batches())
    assert live == {'shared', 'sync'}
    assert momentum == [getattr(module, 'momentum', None) for module in model.modules()]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.frozen.running_var.eq(1).all() and model.unreached.running_var.eq(1).all()


@pytest.mark.parametrize('arch', ['resnest14', 'seresnext26d_32x4d', 'res2net50_26w_4s'])
def test_against_the_twin_in_our_networks(arch):
    torch.manual_seed(0)
    model = build_backbone(arch, frozen_stages=1, out_indices=(2,), pretrained=False)
    live = check_against_twin(model, [torch.randn(2 + i, 3, 33, 40) for i in range(3)])
    assert not any(name.startswith(('stem', 'layer1', 'bn1')) for name in live)
    if arch == 'resnest14':
        assert 'layer2.0.conv2.bn1' in live


def test_a_batch_of_one_leaves_the_attention_as_it_trains():
    """There the norms of 1x1 maps use their running statistics in training: these are its own."""
    model = build_backbone('resnest14', out_indices=(1,), pretrained=False)
    before = copy.deepcopy(model.state_dict())
    estimate_statistics(model, model, [torch.randn(1, 3, 32, 32) for _ in range(3)])
    after = model.state_dict()
    for name in before:
        same = name.split('.')[-1] not in ('running_mean', 'running_var') or '.conv2.bn1.' in name
        assert torch.equal(before[name], after[name]) == same, name


def test_what_evaluation_then_sees():
    """The point of it: with the statistics of the data, evaluation equals training on one batch."""
    model = build_backbone('resnest14', out_indices=(3,), pretrained=False)
    image = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        (wanted,) = model(image)
        estimate_statistics(model, model, [image])
        (found,) = copy.deepcopy(model).eval()(image)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_an_error_leaves_no_trace():
    model = Tiny()
    before = copy.deepcopy(model.state_dict())

    def fail(batch):
        model(batch)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        estimate_statistics(model, fail, batches())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not torch.overrides._get_current_function_mode_stack()
    assert estimate_statistics(nn.Conv2d(3, 3, 1), fail, batches()) == 0, (
        'nothing to do is nothing done'
    )
    assert norms_in_training(Tiny().eval()) == []


@pytest.mark.parametrize(
    'wrong',
    [
        dict(num_iters=0),
        dict(num_iters=2.5),
        dict(interval=-1),
        dict(interval=True),
        dict(num_iters='200'),
    ],
)
def test_arguments(wrong):
    ((name, value),) = wrong.items()
    with refuses('argument', f'{name}={value!r}', 'legal: whole numbers from 1'):
        PreciseBN(**wrong)


# ---- in trainings --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return draw_dataset(
        tmp_path_factory.mktemp('shapes'), train=6, val=1, test=1, size=(64, 64), progress=False
    )


class Recorder:
    """Everything random that training sees, and what is estimated when."""

    def __init__(self, patch):
        from mmdet.models.detectors import FasterRCNN
        from mmengine.runner import ValLoop
        from mmseg.models.segmentors import EncoderDecoder

        self.images, self.events = [], []
        for cls in (FasterRCNN, EncoderDecoder):

            def loss(model, inputs, samples, theirs=cls.loss):
                if torch.is_grad_enabled():
                    self.images.append(
                        (
                            inputs.sum().item(),
                            torch.rand(1).item(),
                            np.random.rand(),
                            random.random(),
                        )
                    )
                return theirs(model, inputs, samples)

            patch.setattr(cls, 'loss', loss)
        ours, theirs = PreciseBN._update_norms, ValLoop.run

        def reestimated(hook, runner):
            self.events.append(f'estimate {runner.iter + 1}')
            ours(hook, runner)

        def validated(loop):
            self.events.append(f'evaluate {loop.runner.iter}')
            return theirs(loop)

        patch.setattr(PreciseBN, '_update_norms', reestimated)
        patch.setattr(ValLoop, 'run', validated)


def config(tmp_path, kind, hook=None, **options):
    cfg = load_config(tiny.write(tmp_path, kind), options)
    cfg.custom_hooks = [] if hook is None else [dict(type='mmresnest.PreciseBN', **hook)]
    return cfg


def run(shapes, tmp_path, cfg, name, **kwargs):
    with pytest.MonkeyPatch.context() as patch:
        seen = Recorder(patch)
        cfg = copy.deepcopy(cfg)
        use_data(cfg, shapes)  # beforehand, so that no pictures are drawn
        result = train(cfg, work_dir=tmp_path / name, seed=0, **kwargs)
    log = next((tmp_path / name).glob('*/*.log')).read_text()
    return seen, result, log


UNSCORED = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.save_best': None,
}
LOOPS = {
    'detection': (
        {'train_cfg.max_epochs': 4, 'train_cfg.val_interval': 2},
        'epoch_{}.pth',
        ['estimate 6', 'evaluate 6', 'estimate 12', 'evaluate 12'],
        {1: False, 2: True, 3: False, 4: True},
    ),
    'semantic': (
        {
            'train_cfg.max_iters': 5,
            'train_cfg.val_interval': 2,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
        },
        'iter_{}.pth',
        [f'{what} {i}' for i in (2, 4, 5) for what in ('estimate', 'evaluate')],
        {1: False, 2: True, 3: False, 4: True, 5: True},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', LOOPS)
def test_in_both_loops(shapes, tmp_path, kind):
    options, template, events, precise = LOOPS[kind]
    options = {**options, 'default_hooks.checkpoint.max_keep_ckpts': -1}
    plain, _, _ = run(shapes, tmp_path, config(tmp_path, kind, **options), 'plain')
    hook = dict(num_iters=2)
    seen, result, log = run(shapes, tmp_path, config(tmp_path, kind, hook, **options), 'precise')
    assert seen.events == events
    assert plain.images == seen.images, 'training saw other images, or other random numbers'
    assert log.count('PreciseBN: averaging') == log.count('PreciseBN: set') == len(events) / 2
    assert 'over 2 batches\n' in log and 'all there are' not in log
    for number, has_precise in precise.items():
        with_, without = (
            checkpoints.read_checkpoint(tmp_path / name / template.format(number))
            for name in ('precise', 'plain')
        )
        for key, value in without['state_dict'].items():
            statistics = key.endswith(('running_mean', 'running_var')) and has_precise
            same = torch.equal(with_['state_dict'][key], value)
            assert same or statistics or key.endswith(('running_mean', 'running_var')), key
            if statistics and 'layer4' in key:
                assert not same, f'{key} of checkpoint {number} is not re-estimated'
    assert result.metrics


@pytest.mark.slow
def test_the_last_of_a_run_is_precise_and_right(shapes, tmp_path):
    """What the checkpoint holds is what the twin measures with the checkpoint's weights."""
    from mmengine.registry import MODELS
    from mmengine.runner import Runner

    cfg = config(tmp_path, 'semantic', {}, **UNSCORED, **{'train_cfg.max_iters': 2})
    seen, result, log = run(shapes, tmp_path, cfg, 'work')
    assert seen.events == ['estimate 2'], 'without evaluation: at the end'
    assert 'over 3 batches, which is all there are: fewer than num_iters=200' in log
    assert result.metrics == {}
    content = checkpoints.read_checkpoint(result.checkpoint)['state_dict']
    cfg = Config.fromfile(str(next((tmp_path / 'work').glob('*.py'))))
    model = MODELS.build(cfg.model).train()
    model.load_state_dict(content)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    data = [model.data_preprocessor(batch, True) for batch, _ in zip(loader, range(3))]
    kept = {}
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, args, name=name: kept.setdefault(name, []).append(args[0])
            )
    with torch.no_grad():
        for batch in data:
            model(**batch, mode='loss')
    assert len(kept) > 10
    for name, inputs in kept.items():
        flat = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], 1).double()
        torch.testing.assert_close(
            content[f'backbone.{name}.running_mean'], flat.mean(1).float(), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            content[f'backbone.{name}.running_var'],
            flat.var(1, correction=0).float(),
            rtol=1e-4,
            atol=1e-6,
        )


@pytest.mark.slow
def test_interval_counts_on_after_a_resumption(shapes, tmp_path):
    options = {'train_cfg.val_interval': 1, 'default_hooks.checkpoint.interval': 1}
    hook = dict(num_iters=1, interval=2)

    def go(iters, **kwargs):
        return run(
            shapes,
            tmp_path,
            config(tmp_path, 'semantic', hook, **options, **{'train_cfg.max_iters': iters}),
            'work',
            **kwargs,
        )[0]

    estimates = [event for event in go(3).events if 'estimate' in event]
    assert estimates == ['estimate 2', 'estimate 3'], 'every second evaluation, and the last'
    estimates = [event for event in go(7, resume='auto').events if 'estimate' in event]
    assert estimates == ['estimate 4', 'estimate 6', 'estimate 7']


@pytest.mark.slow
def test_dynamic_intervals(shapes, tmp_path):
    """The loops change their interval between an iteration and the question whether to evaluate."""
    cfg = config(
        tmp_path,
        'semantic',
        dict(num_iters=1),
        **{
            'train_cfg.max_iters': 7,
            'train_cfg.val_interval': 3,
            'train_cfg.val_begin': 2,
            'train_cfg.dynamic_intervals': [(5, 1)],
        },
    )
    events = run(shapes, tmp_path, cfg, 'work')[0].events
    assert events[::2] == [event.replace('evaluate', 'estimate') for event in events[1::2]]
    assert [event.split()[1] for event in events[::2]] == ['3', '4', '5', '6', '7']


@pytest.mark.slow
def test_with_workers(shapes, tmp_path):
    """Persistent ones serve the training's loader, whose state another iteration would reset."""
    options = {
        **UNSCORED,
        'train_dataloader.num_workers': 1,
        'train_dataloader.persistent_workers': True,
        'train_cfg.max_epochs': 2,
    }
    plain, _, _ = run(shapes, tmp_path, config(tmp_path, 'detection', **options), 'plain')
    cfg = config(tmp_path, 'detection', dict(num_iters=2), **options)
    with pytest.MonkeyPatch.context() as patch:  # at every epoch, though nothing is evaluated
        patch.setattr(PreciseBN, '_next_events', lambda hook, runner, index: (index == 2, False))
        seen, _, _ = run(shapes, tmp_path, cfg, 'work')
    assert seen.events == ['estimate 3', 'estimate 6']
    assert seen.images == plain.images and len(seen.images) == 6


def test_nothing_to_do(shapes, tmp_path):
    cfg = config(tmp_path, 'semantic', {}, **{**UNSCORED, 'train_cfg.max_iters': 1})
    cfg.model.backbone.norm_eval = True
    for head in ('decode_head', 'auxiliary_head'):
        cfg.model[head].norm_cfg = None
    assert 'no batch norm is in training mode' in run(shapes, tmp_path, cfg, 'frozen')[2]


def test_refusals(shapes, tmp_path):
    cfg = config(tmp_path, 'semantic', {}, **{'train_cfg.max_iters': 1})
    cfg.custom_hooks.append(dict(type='EMAHook'))
    with refuses('config.type-unfit', 'EMAHook', 'custom_hooks'):
        run(shapes, tmp_path, cfg, 'ema')
    hook, runner = PreciseBN(), type('Runner', (), dict(train_loop=Tiny()))()
    with refuses('config.type-unfit', 'Tiny', 'train_cfg.type', 'IterBasedTrainLoop'):
        hook.before_train(runner)
    cfg = config(tmp_path, 'semantic', dict(num_iter=3))
    with refuses('config.unbuildable', "'num_iter'", 'nearest: num_iters'):
        run(shapes, tmp_path, cfg, 'typo')
