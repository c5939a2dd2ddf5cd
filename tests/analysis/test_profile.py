"""Where the time goes: every second of a step is booked once, on the part that spent it."""

import ctypes
import json
import subprocess
import sys
import time
import types
from contextlib import nullcontext

import pytest
import torch
from helpers import tiny
from helpers.errors import check_refused, refuses
from torch import nn

from mmresnest import deploy
from mmresnest.analysis import profile
from mmresnest.cli import main

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]

PARTS = {
    ('detection', 'training'): [
        'reading',
        'preprocessing',
        'backbone',
        'neck',
        'RPN head',
        'proposals, NMS',
        'RoI heads',
        'RoIAlign',
        'backward, neck and heads',
        'backward, backbone',
        'optimizer',
        'rest',
    ],
    ('detection', 'inference'): [
        'reading',
        'preprocessing',
        'backbone',
        'neck',
        'RPN head',
        'proposals, NMS',
        'RoI heads',
        'RoIAlign',
        'detections, NMS',
        'rest',
    ],
    ('panoptic', 'inference'): [
        'reading',
        'preprocessing',
        'backbone',
        'neck',
        'RPN head',
        'proposals, NMS',
        'RoI heads',
        'RoIAlign',
        'detections, NMS',
        'semantic head',
        'panoptic fusion',
        'rest',
    ],
    ('semantic', 'training'): [
        'reading',
        'preprocessing',
        'backbone',
        'decode head',
        'auxiliary head',
        'backward, neck and heads',
        'backward, backbone',
        'optimizer',
        'rest',
    ],
    ('semantic', 'inference'): ['reading', 'preprocessing', 'backbone', 'decode head', 'rest'],
}


@pytest.mark.parametrize('kind, mode', PARTS)
def test_parts_of_a_step(shapes, tmp_path, kind, mode):
    said = []
    found = profile.profile(
        tiny.write(tmp_path, kind), data=shapes, mode=mode, steps=1, say=said.append
    )
    assert list(found.parts) == PARTS[kind, mode] and len(said) == 2
    assert found.images == (2 if mode == 'training' else 1) and found.shape == (64, 64)
    assert sum(found.parts.values()) == pytest.approx(found.total, rel=0.05)
    assert all(seconds >= 0 for seconds in found.parts.values())
    assert found.parts['backbone'] > 0 and f'{found.total * 1e3:.0f} ms' in profile.format_table(
        found
    )


class Slow(nn.Module):
    """Takes a known time forwards, and another backwards."""

    def __init__(self, forwards, backwards):
        super().__init__()
        self.forwards, self.backwards = forwards, backwards
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        seconds = self.backwards

        class Wait(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                time.sleep(seconds)
                return gradient

        time.sleep(self.forwards)
        return Wait.apply(x * self.weight)


class Model(nn.Module):
    """A backbone of two maps, and a head that looks at both through an extractor."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.decode_head = Head()

    def data_preprocessor(self, batch, training):
        return dict(inputs=batch['inputs'])

    def forward(self, inputs, mode):
        return dict(loss=self.decode_head.loss(self.backbone(inputs)))

    def parse_losses(self, losses):
        return losses['loss'], losses


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Slow(0.1, 0.3), Slow(0.0, 0.2)])

    def forward(self, x):
        first = self.layers[0](x)
        return first, self.layers[1](first)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.bbox_roi_extractor = Slow(0.2, 0.1)

    def loss(self, maps):
        time.sleep(0.05)
        return sum(self.bbox_roi_extractor(one).sum() for one in maps)


def test_time_is_booked_on_who_spent_it():
    model = Model()
    optimizer = types.SimpleNamespace(
        step=lambda: time.sleep(0.15),
        zero_grad=lambda: None,
        scale_loss=lambda loss: 2 * loss,
        backward=lambda loss: loss.backward(),
        optim_context=lambda model: nullcontext(),
    )
    runner = types.SimpleNamespace(model=model, optim_wrapper=optimizer)
    found = profile.time_steps(
        runner, [dict(inputs=torch.ones(1, 3, 8, 8))], 'training', 3, lambda line: None
    )
    expected = {
        'backbone': 0.1,
        'decode head': 0.05,
        'RoIAlign': 0.4,
        'optimizer': 0.15,
        'backward, neck and heads': 0.2,
        'backward, backbone': 0.5,
    }
    # No less than was slept, and in all no more than the step took: nothing is booked twice.
    for name, seconds in expected.items():
        assert seconds <= found.parts[name] < seconds + 0.3, (name, found.parts)
    assert sum(found.parts.values()) == pytest.approx(found.total, rel=0.05)


def test_the_command(shapes, tmp_path, capsys):
    path, file = tiny.write(tmp_path, 'semantic'), tmp_path / 'figures.json'
    assert (
        main.main(
            [
                'profile',
                str(path),
                '--data',
                str(shapes),
                '--steps',
                '1',
                '--batch',
                '3',
                '--json',
                str(file),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert 'training: 3 x 3 x 64 x 64' in out and 'inference: 1 x 3 x 64 x 64' in out
    assert [one['mode'] for one in json.loads(file.read_text())] == ['training', 'inference']


def test_reading_by_transform(shapes, tmp_path, capsys):
    path, file = tiny.write(tmp_path, 'detection'), tmp_path / 'figures.json'
    given = ['--data', str(shapes), '--loading', '3', '--json', str(file)]
    assert main.main(['profile', str(path), *given]) == 0
    out = capsys.readouterr().out
    training, inference = json.loads(file.read_text())
    assert list(training['transforms'])[0] == 'LoadImageFromFile'
    assert {'LoadAnnotations', 'Resize', 'RandomFlip', 'PackDetInputs'} < set(
        training['transforms']
    )
    assert 'RandomFlip' not in inference['transforms']
    for one, images in ((training, 4), (inference, 3)):  # whole batches
        assert one['images'] == images and min(one['transforms'].values()) >= 0
        assert sum(one['transforms'].values()) == pytest.approx(one['total'])
        assert f'{one["mode"]}: {one["total"] * 1e3:.1f} ms' in out


@pytest.mark.slow
def test_the_wait_for_workers(shapes, tmp_path):
    found = profile.profile(
        tiny.write(tmp_path, 'detection'), data=shapes, mode='inference', steps=1, workers=1
    )
    assert found.workers == 1 and found.parts['reading'] > 0
    assert profile.format_table(found).startswith('inference, 1 workers: 1 x 3')


@pytest.mark.parametrize(
    'given, code, part',
    [
        (['--modes', 'inference', 'train'], 'option.unknown', 'legal: training, inference'),
        (['--steps', '0'], 'option.value', 'steps=0'),
        (['--workers', '0', '-1'], 'option.value', '--workers -1'),
        (['--loading', '0'], 'option.value', '--loading 0'),
        (['--batch', '0'], 'option.value', '--batch 0'),
        (['--threads', '0'], 'option.value', '--threads 0'),
        (['--json', 'none/a.json'], 'option.no-folder', '--json none/a.json'),
    ],
)
def test_what_it_refuses(shapes, tmp_path, capsys, given, code, part):
    path = tiny.write(tmp_path, 'semantic')
    check_refused(['profile', str(path), '--data', str(shapes), *given], code, part)
    assert 'ms' not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    'options',
    [
        pytest.param(
            dict(runner_type='FlexibleRunner', strategy=dict(type='mmresnest.FSDPStrategy')),
            marks=pytest.mark.slow,
        ),
        {'optim_wrapper.type': 'mmresnest.Bfloat16OptimWrapper'},
    ],
)
def test_runners_and_precisions(shapes, tmp_path, options, monkeypatch):
    """One process times a divided model whole; mixed precision is obeyed."""
    seen = []

    def watch(model, clock):
        model.backbone.register_forward_hook(lambda _, given, maps: seen.append(maps[0].dtype))

    monkeypatch.setattr(profile, 'time_methods', watch)
    mixed = 'optim_wrapper.type' in options
    found = profile.profile(tiny.write(tmp_path, 'semantic'), data=shapes, steps=1, options=options)
    assert found.total > 0 and set(seen) == {torch.bfloat16 if mixed else torch.float32}


def test_what_is_frozen_stays_frozen(shapes, tmp_path, monkeypatch):
    kept, time_steps = [], profile.time_steps

    def keep(runner, *more):
        kept.append(runner.model.backbone)
        return time_steps(runner, *more)

    monkeypatch.setattr(profile, 'time_steps', keep)
    profile.profile(tiny.write(tmp_path, 'detection'), data=shapes)
    assert kept[0].frozen_stages == 1 and not kept[0].stem[0].weight.requires_grad


def printed(code):
    """The number that a process prints; None, with the reason, where memory cannot be kept."""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    if 'keep_memory()' in code and not hasattr(ctypes.CDLL(None), 'gnu_get_libc_version'):
        assert run.returncode == 1 and 'keep_memory sets what glibc does' in run.stderr
        return None
    return int(run.stdout)


@pytest.mark.slow
def test_kept_memory_is_not_cleared_again():
    code = (
        'import resource, torch\nfrom mmresnest.deploy import keep_memory\n{}\n'
        'def step(): torch.empty(2 ** 24).fill_(1.0)\n'
        'for _ in range(40): step()\n'  # the heap has grown as far as it does
        'faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'before = faults()\nfor _ in range(8): step()\nprint(faults() - before)'
    )
    usual, kept = printed(code.format('')), printed(code.format('keep_memory()'))
    assert kept is None or kept < 8 * 2**26 / 4096 / 50 and kept < usual / 10


def test_kept_memory_beyond_what_an_int_counts():
    code = (
        'import ctypes\nfrom mmresnest.deploy import keep_memory\nkeep_memory()\n'
        'libc = ctypes.CDLL(None)\nlibc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p\n'
        'libc.free.argtypes = [ctypes.c_void_p]\nlibc.malloc.argtypes = [ctypes.c_size_t]\n'
        'start = libc.sbrk(0)\nlibc.free(libc.malloc(5 * 2 ** 29))\n'
        'print(libc.sbrk(0) - start)'
    )
    kept = printed(code)
    assert kept is None or kept >= 5 * 2**29


def test_other_c_libraries_are_named(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(deploy.ctypes, 'CDLL', missing)
    with refuses('system.no-glibc', '--no-malloc-trim'):
        deploy.keep_memory()
    monkeypatch.setattr(
        deploy.ctypes, 'CDLL', lambda name: types.SimpleNamespace(mallopt=lambda setting, value: 0)
    )
    with refuses('system.setting-refused', 'mallopt', -4, '--no-malloc-trim'):
        deploy.keep_memory()
