"""The rules that hold for every kind: geometry, freezing, checkpointing, arguments."""

import copy
import pickle

import pytest
import torch
from helpers.errors import refuses
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import mmresnest
from mmresnest.models.blocks import KINDS
from mmresnest.models.trunk import ResTrunk, TrunkSpec

# The smallest trunk of every kind: one block a stage, narrow.
SMALL = dict(
    depths=(1, 2, 1, 1),
    stem=(8, 8, 16),
    base_channels=16,
    pooled_shortcut=True,
    zero_init_residual=False,
)
OWN = dict(
    resnext={}, se=dict(reduction=4), res2=dict(base_width=16), split={}, sk=dict(min_hidden=8)
)


def trunk(kind: str, **more) -> ResTrunk:
    torch.manual_seed(0)
    return ResTrunk(kind, **{**SMALL, **OWN[kind], **more})


kinds = pytest.mark.parametrize('kind', list(KINDS))


@kinds
@pytest.mark.parametrize('size', [(64, 64), (65, 97)])
def test_stage_shapes(kind, size):
    network = trunk(kind, out_indices=(1, 3))
    maps = network(torch.randn(2, 3, *size))
    assert [m.shape[1] for m in maps] == [128, 512] == list(network.out_channels)
    halved = [-(-s // 2) for s in size]
    sizes = []
    for _ in range(4):
        halved = [-(-s // 2) for s in halved]
        sizes.append(tuple(halved))
    assert [tuple(m.shape[2:]) for m in maps] == [sizes[1], sizes[3]]


@kinds
def test_output_stride_8(kind):
    network = trunk(kind, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)).eval()
    maps = network(torch.randn(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [16, 8, 8, 8]


def test_dilations_of_blocks():
    def of_last(dilation, depth, contract, multi_grid=None):
        spec = TrunkSpec(
            'resnext',
            (1, depth),
            dilations=(1, dilation),
            contract_dilation=contract,
            multi_grid=multi_grid,
            out_indices=(1,),
        )
        return spec.block_dilations(1)

    assert of_last(4, 3, True) == [2, 4, 4]
    assert of_last(2, 3, True) == [1, 2, 2]
    assert of_last(4, 3, False) == [4, 4, 4]
    assert of_last(1, 2, True) == [1, 1]
    assert of_last(4, 3, True, (1, 2, 4)) == [1, 2, 4]


def test_contraction_is_the_default_except_in_mm_compatibility():
    dilated = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    first = [
        trunk('resnext', **dilated, **more).layer4[0].conv2.dilation[0]
        for more in (
            {},
            dict(compat='mm'),
            dict(compat='mm', contract_dilation=True),
            dict(contract_dilation=False),
        )
    ]
    assert first == [1, 2, 1, 2]


def test_multi_grid_is_the_last_stage_s():
    network = trunk('resnext', depths=(1, 1, 1, 3), strides=(1, 2, 2, 1), multi_grid=(1, 2, 4))
    assert [block.conv2.dilation[0] for block in network.layer4] == [1, 2, 4]


@kinds
def test_every_parameter_gets_a_gradient(kind):
    network = trunk(kind)
    sum(m.square().mean() for m in network(torch.randn(2, 3, 64, 64))).backward()
    without = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    # A bias in front of a norm is subtracted again: its gradient is zero but for rounding.
    assert not [name for name in without if not name.endswith('fc1.bias')]


@kinds
def test_checkpointing_changes_nothing(kind):
    plain, saving = trunk(kind), trunk(kind, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 64)
    outputs = []
    for network in (plain, saving):
        maps = network(image)
        sum(m.square().mean() for m in maps).backward()
        outputs.append(maps)
    for one, two in zip(*outputs):
        assert torch.equal(one, two)
    for (name, one), two in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, one), two in zip(plain.named_buffers(), saving.buffers()):
        assert torch.equal(one, two), name
    assert plain.layer1[0].bn1.num_batches_tracked == 1


@kinds
@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_freezing(kind, frozen):
    network = trunk(kind, frozen_stages=frozen)
    assert network.train() is network and network.eval() is network
    network.train()
    before = copy.deepcopy(network.state_dict())
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    sum(m.square().mean() for m in network(torch.randn(2, 3, 64, 64))).backward()
    optimiser.step()
    changed = {
        key.split('.')[0]
        for key, value in network.state_dict().items()
        if not torch.equal(value, before[key])
    }
    parts = ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    assert changed == set(parts[max(frozen + 1, 0) :])


def test_freezing_a_plain_stem():
    network = trunk('resnext', stem=16, frozen_stages=0)
    assert not network.conv1.weight.requires_grad and not network.bn1.training
    assert network.layer1[0].conv1.weight.requires_grad


@kinds
def test_norm_eval(kind):
    network = trunk(kind, norm_eval=True).train()
    assert network.training
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    assert all(p.requires_grad for m in norms for p in m.parameters())


@kinds
def test_drop_path_rises_linearly_and_rests_in_evaluation(kind):
    network = trunk(kind, drop_path_rate=0.4)
    rates = [getattr(block.drop_path, 'rate', 0.0) for stage in network.stages for block in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 0.0
        one, two = network(image)[-1], network(image)[-1]
        assert not torch.equal(one, two)
        network.eval()
        assert torch.equal(network(image)[-1], network(image)[-1])


@kinds
def test_zero_init_residual_makes_blocks_start_as_identities(kind):
    network = trunk(kind, zero_init_residual=True).eval()
    x = torch.rand(1, 128, 8, 8)
    assert torch.equal(network.layer2[1](x), x)
    assert all(block.bn3.weight.abs().sum() > 0 for block in trunk(kind).layer2)


@kinds
def test_image_channels(kind):
    assert trunk(kind, in_channels=5)(torch.randn(2, 5, 64, 64))[0].shape[1] == 64


@kinds
def test_empty_batch_copy_and_pickle(kind):
    network = trunk(kind).eval()
    assert [len(m) for m in network(torch.randn(0, 3, 64, 64))] == [0, 0, 0, 0]
    image = torch.randn(1, 3, 64, 64)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert all(map(torch.equal, network(image), twin(image)))


@kinds
def test_batch_of_one_trains(kind):
    maps = trunk(kind)(torch.randn(1, 3, 96, 96))
    assert all(m.isfinite().all() for m in maps)


@kinds
def test_both_memory_layouts_agree(kind):
    last, first = trunk(kind).eval(), trunk(kind, channels_last=False).eval()
    first.load_state_dict(last.state_dict())
    image = torch.randn(2, 3, 64, 64)
    for one, two in zip(last(image), first(image)):
        assert one.is_contiguous(memory_format=torch.channels_last)
        assert two.is_contiguous()
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@kinds
def test_group_norm(kind):
    network = trunk(kind, norm=lambda channels: nn.GroupNorm(4, channels))
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert network(torch.randn(1, 3, 64, 64))[0].isfinite().all()


@kinds
@pytest.mark.parametrize('stem', [16, (8, 8, 16)], ids=['plain', 'deep'])
def test_the_network_is_its_children_in_order(kind, stem):
    """For those who cut it up, as for perceptual losses and knowledge distillation."""
    network = trunk(kind, stem=stem).eval()
    image = torch.randn(2, 3, 65, 64)
    with torch.no_grad():
        assert torch.equal(nn.Sequential(*network.children())(image), network(image)[-1])


@kinds
@pytest.mark.parametrize('stem', [16, (8, 8, 16)], ids=['plain', 'deep'])
def test_hooks_on_stages_and_stems_are_called(kind, stem):
    network, seen = trunk(kind, stem=stem), []
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    network.layer2.register_forward_hook(lambda module, args, y: y * 0)
    maps = network(torch.randn(2, 3, 64, 64))
    assert seen == [name for name, _ in network.named_children()]
    assert not maps[1].any() and maps[0].any()


class Halved(nn.Module):
    """Whatever stands around a stage: it is no ``nn.Sequential``."""

    def __init__(self, stage: nn.Module):
        super().__init__()
        self.stage = stage

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stage(x) / 2


@pytest.mark.filterwarnings('ignore:The .grad attribute')  # dynamo looks at the map's
@kinds
@pytest.mark.parametrize('how', ['identity', 'wrapped', 'checkpointed', 'compiled', 'sequential'])
def test_a_stage_that_is_replaced_is_what_is_run(kind, how):
    network = trunk(kind, out_indices=(0, 3), with_cp=how == 'checkpointed')
    plain = copy.deepcopy(network)
    image = torch.randn(2, 3, 64, 64)
    stage = network.layer4
    if how == 'identity':
        network.layer4 = nn.Identity()
    elif how == 'wrapped':
        network.layer4 = Halved(stage)
    elif how == 'checkpointed':
        network.layer4 = checkpoint_wrapper(stage)
    elif how == 'compiled':
        network.layer4 = torch.compile(stage, backend=(counter := CompileCounter()))
    else:
        network.layer4 = nn.Sequential(*stage)
    maps, expected = network(image), plain(image)
    assert len(maps) == len(expected) == 2 and torch.equal(maps[0], expected[0])
    if how == 'identity':
        assert maps[1].shape[1] == 256  # that of stage 3, and a map of its own all the same
    elif how == 'wrapped':
        assert torch.equal(maps[1], expected[1] / 2)
    else:
        torch.testing.assert_close(maps[1], expected[1], rtol=1e-4, atol=1e-5)
    if how == 'compiled':
        assert counter.frame_count == 1
        torch._dynamo.reset()
    network.frozen_stages = 4  # reaches what stands in the stage's place
    assert not any(module.training for module in network.train().layer4.modules())
    assert not any(p.requires_grad for p in network.layer4.parameters())


def test_a_stage_that_nobody_reads_is_not_built():
    assert not hasattr(trunk('split', out_indices=(0, 1)), 'layer3')


@pytest.mark.parametrize(
    'arguments, kind, parts',
    [
        (dict(kind='resnet'), 'value', ["kind='resnet'", 'nearest: resnext']),
        (dict(strides=(1, 2)), 'value', ['strides=(1, 2)', '4 stages']),
        (dict(dilations=(1, 1, 0, 1)), 'value', ['dilations=(1, 1, 0, 1)', '4 stages']),
        (dict(out_indices=(0, 4)), 'value', ['out_indices=(0, 4)', 'legal: 0, 1, 2, 3']),
        (dict(out_indices=(2, 1)), 'value', ['out_indices=(2, 1)', 'legal: 0, 1, 2, 3']),
        (dict(out_indices=()), 'value', ['out_indices=()', 'legal: 0, 1, 2, 3']),
        (dict(out_indices=3), 'value', ['out_indices=3', 'legal: a list']),
        (dict(out_indices='0123'), 'value', ["out_indices='0123'", 'legal: a list']),
        (dict(depths=3), 'value', ['depths=3', 'legal: a list']),
        (dict(strides=2), 'value', ['strides=2', 'legal: a list']),
        (dict(dilations=(1, 1, 1.5, 2)), 'value', ['dilations=', 'legal: a list']),
        (dict(frozen_stages=5), 'value', ['frozen_stages=5', 'legal: -1']),
        (dict(drop_path_rate=1.0), 'value', ['drop_path_rate=1.0', '[0, 1)']),
        (dict(compat='timm'), 'value', ["compat='timm'", "legal: None, 'mm'"]),
        (dict(multi_grid=(1, 2)), 'value', ['multi_grid=(1, 2)', '1 blocks']),
        (dict(stem=(8, 8)), 'value', ['stem=(8, 8)']),
        (dict(radixx=2), 'unknown', ["'radixx'", 'nearest: radix']),
        (dict(scales=4), 'unknown', ["'scales'", 'legal: avd']),
        (dict(depths=(1,) * 5), 'value', ['num_stages=5', 'legal: 1, 2, 3, 4']),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(arguments, kind, parts):
    with refuses(f'argument.{kind}', *parts):
        ResTrunk(**{**SMALL, 'kind': 'split', **arguments})


def test_build_backbone():
    network = mmresnest.build_backbone('resnest14', out_indices=(2,))
    assert network.out_channels == (1024,)
    assert 'resnest14' in mmresnest.list_archs()
    with refuses('argument.value', "arch='resnest51'", 'nearest: resnest50'):
        mmresnest.build_backbone('resnest51')
    with refuses('argument.unknown', "'out_indexes'", 'nearest: out_indices'):
        mmresnest.build_backbone('resnest14', out_indexes=(2,))
