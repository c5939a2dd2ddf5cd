"""``--compile`` in training and testing: backbone and neck, one graph for all sizes."""

import functools
import re

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from mmengine.config import Config
from torch._dynamo.testing import CompileCounter
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from mmresnest import deploy
from mmresnest.config import hardware
from mmresnest.engine import checkpoints, runner
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]


@pytest.fixture
def counter(monkeypatch):
    """Graphs that are compiled are counted, and run as they are."""
    counter = CompileCounter()
    monkeypatch.setattr(
        deploy, 'compile_backbone', functools.partial(deploy.compile_backbone, backend=counter)
    )
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


SIZES = """
resize = dict(type='RandomChoiceResize', scales=[(96, 96), (160, 128), (128, 192)],
              keep_ratio=False)
train_dataloader = dict(dataset=dict(pipeline=[*load, resize, dict(type='PackDetInputs')]))
train_cfg = dict(max_epochs=3)
"""


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'semantic'])
def test_it_trains_and_scores_as_without(shapes, tmp_path, counter, kind):
    path = tiny.write(tmp_path, kind)
    if kind == 'detection':
        path.write_text(tiny.TEXTS[kind].replace('train_cfg = dict(max_epochs=1)', '') + SIZES)
    weights, metrics, logs = {}, {}, {}
    for compiled in (True, False):
        folder = tmp_path / str(compiled)
        run = train(path, data=shapes, work_dir=folder, seed=0, compile=compiled)
        scored = score(path, run.checkpoint, data=shapes, work_dir=folder, compile=compiled)
        weights[compiled] = checkpoints.read_checkpoint(run.checkpoint)['state_dict']
        metrics[compiled] = run.metrics.keys(), scored.metrics.keys()
        logs[compiled] = ''.join(log.read_text() for log in folder.glob('*/*.log'))
        # In training and in evaluation one graph of the backbone, and one of a detector's neck.
        assert counter.frame_count == 2 * (2 if kind == 'detection' else 1)
    assert list(weights[True]) == list(weights[False]) and metrics[True] == metrics[False]
    # The statistics of norms are measured on modules, which compiled code does not call.
    reached = [re.findall(r'PreciseBN: set (\d+) norms', logs[compiled]) for compiled in logs]
    assert reached[0] == reached[1] and bool(reached[0]) == (kind == 'detection')
    # Rounding decides which regions a detector samples: its later steps are other steps.
    for name, value in weights[False].items() if kind == 'semantic' else ():
        torch.testing.assert_close(weights[True][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_wrapped_models():
    """As DistributedDataParallel and augmented testing wrap them."""
    model, wrapper = torch.nn.Module(), torch.nn.Module()
    model.backbone = torch.nn.Linear(4, 4)
    wrapper.module = model
    runner.compile_parts(wrapper)
    assert model.backbone._compiled_call_impl is not None
    assert model._compiled_call_impl is None and wrapper._compiled_call_impl is None


def test_what_cannot_be_compiled_is_refused(monkeypatch):
    divided = Config(
        dict(
            runner_type='FlexibleRunner',
            launcher='pytorch',
            strategy=dict(type='mmresnest.FSDPStrategy'),
        )
    )
    with refuses('option.conflict', '--compile', 'mmresnest.FSDPStrategy'):
        hardware.check_compiler(divided)
    alone = Config(dict(launcher='none'))
    monkeypatch.setattr('mmresnest.config.hardware.has_accelerator', lambda: False)

    def missing():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, 'get_cpp_compiler', missing)
    with refuses('package.no-compiler', '--compile', 'apt install g++'):
        hardware.check_compiler(alone)
    monkeypatch.setattr('mmresnest.config.hardware.has_accelerator', lambda: True)
    hardware.check_compiler(alone)


def test_it_is_asked_before_anything_is_built(shapes, tmp_path, monkeypatch):
    def missing():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, 'get_cpp_compiler', missing)
    monkeypatch.setattr('mmresnest.engine.train.build_runner', lambda cfg: pytest.fail('built'))
    path = tiny.write(tmp_path, 'detection')
    with refuses('package.no-compiler', '--compile'):
        train(path, data=shapes, work_dir=tmp_path / 'run', compile=True)
    assert not (tmp_path / 'run').exists()
