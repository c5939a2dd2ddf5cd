"""Inference by weights folded beside a model: equal results, and nobody has touched the model."""

import copy

import pytest
import torch
from helpers import tiny
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.utils import parametrize

from mmresnest.config.hardware import replace_sync_norms
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train
from mmresnest.models.fast.beside import InferenceForm
from mmresnest.models.fast.conv_module import FoldedConvModule
from mmresnest.models.fast.convolution import PackedConv2d
from mmresnest.models.trunk import to_memory_format


def build(folder, kind: str) -> nn.Module:
    """A tiny model in evaluation, its norms with statistics that matter."""
    torch.manual_seed(0)
    config = Config.fromfile(tiny.write(folder, kind))
    init_default_scope(config.default_scope)
    replace_sync_norms(config.model)
    model = MODELS.build(config.model).eval()
    to_memory_format(model, torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def compute(model: nn.Module, pooled: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Everything that convolutions of a model give for an image; of RoI heads for given regions."""
    torch.manual_seed(1)
    x = torch.randn(2, 3, 96, 128).to(memory_format=torch.channels_last)
    with torch.no_grad():
        if hasattr(model, 'decode_head'):
            return list(model.decode_head(model.backbone(x))[None])
        maps = model.neck(model.backbone(x))
        regions = torch.randn(6, 16, 7, 7).to(memory_format=torch.channels_last)
        heads = model.rpn_head(maps), model.roi_head.bbox_head(regions)
        return [*maps, *heads[0][0], *heads[0][1], *heads[1]]


@pytest.mark.parametrize(
    'kind', mark_slow(['detection', 'semantic'], lambda kind: kind == 'detection')
)
def test_results_are_equal_and_the_model_is_as_it_was(kind, tmp_path):
    model = build(tmp_path, kind)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inside = [(type(module), sorted(vars(module))) for module in model.modules()]
    expected = compute(model)
    form = InferenceForm(model)
    for _ in range(2):
        with form.in_place():
            found = compute(model)
            kinds = [type(module) for module in model.modules()]
            assert FoldedConvModule in kinds and PackedConv2d in kinds
            assert list(model.state_dict()) == list(state)
        for one, two in zip(expected, found, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
            assert not torch.equal(two, one) or one.numel() < 200  # it was another way
        assert inside == [(type(module), sorted(vars(module))) for module in model.modules()]
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
        assert all(torch.equal(one, two) for one, two in zip(expected, compute(model)))


def test_what_changes_is_folded_anew(tmp_path):
    model = build(tmp_path, 'detection')
    form = InferenceForm(model)
    with form.in_place():
        before = compute(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.01)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.mul_(1.5)
    with form.in_place():
        found = compute(model)
    for one, two, old in zip(compute(model), found, before, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(two, old, rtol=1e-3)


def test_hooks_and_changed_layers_are_obeyed(tmp_path):
    model = build(tmp_path, 'detection')
    called = []
    tower = model.roi_head.bbox_head.shared_convs
    tower[0].conv.register_forward_hook(lambda *_: called.append('before'))
    tower[2].activate = nn.LeakyReLU(0.5)
    form = InferenceForm(model)
    tower[1].norm.register_forward_hook(lambda *_: called.append('after'))
    expected = compute(model)
    del called[:]
    with form.in_place():
        for one, two in zip(expected, compute(model), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
    assert called == ['before', 'after']


def test_a_convolution_that_changes_after_the_form_is_made():
    """By a hook or by a parametrization: from then on it computes itself."""

    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model, called = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)).eval(), []
    x, form = torch.randn(1, 3, 9, 9).to(memory_format=torch.channels_last), InferenceForm(model)
    model[0].register_forward_hook(lambda *_: called.append('hook'))
    parametrize.register_parametrization(model[1], 'weight', Double())
    with torch.no_grad(), form.in_place():
        found = model(x)
        assert called == ['hook']
    torch.testing.assert_close(found, model(x).detach())


def test_compiled_parts_are_left_alone(tmp_path):
    model = build(tmp_path, 'detection')
    model.neck.compile(backend='eager')
    form = InferenceForm(model)
    assert not form.twins.keys() & set(model.neck.modules())
    assert form.twins.keys() & set(model.rpn_head.modules())
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.usefixtures('fresh_logger')
def test_a_training_is_the_same_and_so_are_its_scores(tmp_path, shapes):
    path, runs = tiny.write(tmp_path, 'detection'), {}
    for fuse in (True, False):
        work_dir = tmp_path / str(fuse)
        result = train(path, data=shapes, work_dir=work_dir, seed=0, fuse=fuse)
        held = torch.load(result.checkpoint, weights_only=False)
        scores = score(
            path, result.checkpoint, data=shapes, fuse=fuse, work_dir=tmp_path / f'test{fuse}'
        )
        runs[fuse] = held['state_dict'], held['optimizer'], scores.metrics
    (weights, optimizer, scores), (other, others, plain) = runs[True], runs[False]
    assert list(weights) == list(other)
    assert all(torch.equal(value, other[name]) for name, value in weights.items())
    moments = copy.deepcopy(optimizer['state']), others['state']
    assert all(
        torch.equal(value['momentum_buffer'], moments[1][key]['momentum_buffer'])
        for key, value in moments[0].items()
    )
    assert scores == pytest.approx(plain, abs=1e-5)
