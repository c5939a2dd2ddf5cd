"""The deployed form against the plain one, and what compiling the backbone costs in graphs."""

import copy
import io
import pickle
from collections import OrderedDict

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from helpers.networks import FORMS, KINDS, ROWS, build, image
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.modules.batchnorm import _BatchNorm

from mmresnest import deploy
from mmresnest.deploy import MergedRes2NetBottleneck, compile_backbone, fuse
from mmresnest.models import backbones, fast

forms = pytest.mark.parametrize('row', FORMS, ids=lambda row: row.name)
kinds = pytest.mark.parametrize('row', KINDS, ids=lambda row: row.trunk['kind'])
split_first = pytest.mark.parametrize(  # `make test` takes the kind that overrides most steps
    'row',
    mark_slow(KINDS, lambda row: row.trunk['kind'] == 'split'),
    ids=lambda row: row.trunk['kind'],
)
FEW = dict(depths=(2, 1), out_indices=(0, 1))  # what compiles grows with the stages
OS8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


@pytest.fixture(autouse=True)
def _graphs():
    yield
    torch._dynamo.reset()
    torch.fx.experimental._config.use_duck_shape = True


def norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def assert_fused(network, sizes=((64, 64), (65, 97))) -> None:
    """No norm is left, and nothing is changed: in double precision to 1e-10."""
    expected = fast.disable(copy.deepcopy(network)).eval()
    fused = fuse(network.eval())
    assert norms(network) and not norms(fused)
    with torch.no_grad():
        for size in sizes:
            for batch in (1, 2):
                x = image(batch, size)
                for one, two in zip(expected(x), fused(x), strict=True):
                    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
                    assert two.stride() == one.stride()
        x = image(2, sizes[-1]).double()
        for one, two in zip(expected.double()(x), fuse(network.double())(x), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('row', mark_slow(ROWS, lambda row: row in KINDS), ids=lambda row: row.name)
def test_every_row(row):
    assert_fused(build(row), sizes=[(65, 97)])


@pytest.mark.parametrize(
    'row', mark_slow(FORMS, lambda row: row in KINDS), ids=lambda row: row.name
)
@pytest.mark.parametrize(
    'more',
    mark_slow([OS8, dict(compat='mm'), dict(channels_last=False)], lambda more: more is OS8),
    ids=['dilated', 'mm', 'nchw'],
)
def test_other_forms(row, more):
    if row.type == 'DLA' and 'compat' in more:
        with refuses('argument.unknown', "'compat'"):  # mmdet and mmseg have no such network
            build(row, **more)
        return
    assert_fused(build(row, **more))


def test_blocks_of_res2net_without_hierarchy_become_one_convolution():
    row = next(
        row for row in FORMS if row.trunk['kind'] == 'res2' and row.trunk.get('scales', 4) > 2
    )
    fused = fuse(build(row).eval())
    merged = [type(stage[0]) is MergedRes2NetBottleneck for stage in fused.stages]
    assert merged == [True] * 4 and type(fused.layer1[1]) is not MergedRes2NetBottleneck
    assert len(fused.layer1[0].convs) == 1 and len(fused.layer1[1].convs) > 1


def test_a_model_that_trains_is_refused():
    network = build(KINDS[0])
    with refuses('model.training-mode', 'model.eval()'):
        fuse(network)
    network.eval()
    network.layer2[0].bn1.train()
    with refuses('model.training-mode', 'layer2.0.bn1', 'model.eval()'):
        fuse(network)


@split_first
def test_a_copy_unless_told(row):
    network = build(row).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    types = [type(module) for module in network.modules()]
    fused = fuse(network)
    assert types == [type(module) for module in network.modules()]
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(p.requires_grad for p in fused.parameters())
    assert fuse(network, inplace=True) is network and not norms(network)
    with torch.no_grad():
        for twin in (network, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
            assert all(map(torch.equal, fused(image()), twin(image())))
    file = io.BytesIO()
    torch.save(fused.state_dict(), file)
    assert not [key for key in fused.state_dict() if 'packed' in key or 'running' in key]


@pytest.mark.slow
@kinds
@torch.no_grad()
def test_traced_exported_and_compiled(row):
    """Graphs are made of the definition's walk, over the folded weights."""
    fused = fuse(build(row, **FEW).eval())
    expected = fused(image())
    for graph in (
        torch.fx.symbolic_trace(fused),
        torch.jit.trace(fused, image()),
        torch.export.export(fused, (image(),)).module(),
        torch.compile(fused, backend='eager', fullgraph=True),
    ):
        for one, two in zip(expected, graph(image())):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_norms_that_are_not_batch_norm_and_deformable_convolutions_stay():
    grouped = build(KINDS[0], norm=lambda channels: nn.GroupNorm(4, channels)).eval()
    deformable = backbones.ResNeSt(
        depth=14, dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, False, True, True)
    ).eval()
    for network in (grouped, deformable):
        fused = fuse(network)
        for one, two in zip(network(image()), fused(image())):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    assert norms(fused) == ['layer3.0.conv2.bn0', 'layer4.0.conv2.bn0']


@pytest.mark.parametrize('kind', ['detection', 'semantic'])
@torch.no_grad()
def test_a_whole_model(kind, tmp_path):
    config = Config.fromfile(tiny.write(tmp_path, kind))
    init_default_scope(config.default_scope)
    model = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    fused = fuse(model)
    assert norms(model) and not norms(fused)
    features = model.extract_feat(image()), fused.extract_feat(image())
    if kind == 'detection':
        features = tuple(
            [*found, *sum(map(list, one.rpn_head(found)), [])]
            for one, found in zip((model, fused), features)
        )
    else:
        features = tuple(
            [one.decode_head(found), one.auxiliary_head(found)]
            for one, found in zip((model, fused), features)
        )
    for one, two in zip(*features, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@kinds
def test_one_graph_for_all_sizes(row):
    """No break, and no new graph per size: of the fused form, and of one kind in all three.

    Of the others' definitions tests/models/test_invariants.py says so.
    """
    makers = [
        lambda: fuse(build(row, **FEW).eval()),
        lambda: build(row, **FEW).eval(),
        lambda: build(row, **FEW),
    ]
    for make in makers if row is KINDS[0] else makers[:1]:
        network = make()
        counter = CompileCounter()
        names = list(network.state_dict())
        assert compile_backbone(network, backend=counter, fullgraph=True) is network
        for size in ((64, 64), (96, 64), (65, 97), (128, 160)):
            network(image(2, size))
        assert counter.frame_count == 1, row.name
        assert list(network.state_dict()) == names
        torch._dynamo.reset()


@pytest.mark.slow
def test_backbone_and_neck_are_compiled_and_heads_are_not(tmp_path):
    config = Config.fromfile(tiny.write(tmp_path, 'detection'))
    init_default_scope(config.default_scope)
    model = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    counter = CompileCounter()
    compile_backbone(model, backend=counter)
    with torch.no_grad():
        # from 20480 numbers on torch convolves by oneDNN: an image below is another graph
        for size in ((192, 192), (192, 256), (256, 192)):
            model.extract_feat(image(1, size))
    assert counter.frame_count == 2  # backbone and neck, once each
    assert model.rpn_head._compiled_call_impl is None


def test_convolutions_that_norms_share_are_left_alone():
    """As in the heads of RTMDet: folded for one level, they would be wrong for the others."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 1, bias=False)
    model = nn.ModuleList(
        [
            nn.Sequential(conv, nn.BatchNorm2d(4)),
            nn.Sequential(conv, nn.BatchNorm2d(4)),
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)),
        ]
    ).eval()
    for level in model:
        nn.init.normal_(level[1].weight)
        nn.init.normal_(level[1].running_mean)
    fused, image = fuse(model), torch.randn(1, 3, 5, 5)
    for before, after in zip(model, fused):
        assert torch.allclose(before(image), after(image), atol=1e-6)
    assert [isinstance(level[1], nn.BatchNorm2d) for level in fused] == [True, True, False]


@torch.no_grad()
def test_bfloat16_only_where_the_processor_has_it(monkeypatch):
    network = build(KINDS[0]).eval()
    monkeypatch.setattr(deploy, 'has_bfloat16', lambda: False)
    with refuses('device.no-bfloat16', 'AVX512-BF16'):
        fuse(network, dtype=torch.bfloat16)
    with refuses('option.value', 'torch.float16;', 'legal: torch.float32, torch.bfloat16'):
        fuse(network, dtype=torch.float16)
    half = fuse(network, dtype=torch.bfloat16, emulate=True)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    for one, two in zip(network(image()), half(image()), strict=True):
        assert two.dtype == torch.float32 and (two - one).norm() < 0.05 * one.norm()


def test_layers_in_a_row_may_have_names():
    """As those of timm's Xception: OrderedDict's names, not numbers."""
    layers = dict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), last=nn.Conv2d(4, 2, 1))
    row = nn.Sequential(OrderedDict(layers)).eval()
    nn.init.uniform_(row.norm.running_mean), nn.init.uniform_(row.norm.running_var, 0.5, 1)
    fused, x = fuse(row), image(1, (9, 9))
    assert not norms(fused)
    torch.testing.assert_close(fused(x), row(x), rtol=1e-5, atol=1e-5)
