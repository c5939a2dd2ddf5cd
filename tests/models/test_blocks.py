"""Every kind of bottleneck against its twin, in value and gradient."""

import copy
from itertools import product

import pytest
import torch
from helpers import twins
from helpers.errors import refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmresnest.models.blocks import (
    KINDS,
    BlockGeometry,
    BlockModules,
    DropPath,
    Res2NetBottleneck,
    ResNeXtBottleneck,
    SEBottleneck,
    SelectiveKernel,
    SelectiveKernelBottleneck,
    SplitAttention,
    SplitAttentionBottleneck,
)
from mmresnest.models.blocks.bottleneck import Bottleneck


def settle(module: nn.Module, seed: int = 0) -> nn.Module:
    """Double precision, evaluation mode, nothing at its default: a swapped tensor would show."""
    torch.manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.dtype.is_floating_point:
            nn.init.normal_(
                tensor, 1.0 if name.endswith('weight') and tensor.dim() == 1 else 0.0, 0.3
            )
        if name.endswith('running_var'):
            tensor.abs_().add_(0.5)
    return module.double().eval()


def agree(module: nn.Module, twin, x: torch.Tensor) -> None:
    """Equal outputs, and equal gradients of every parameter and of the input."""
    results = []
    for function in (module, twin):
        module.zero_grad()
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        results.append((y, leaf.grad, *(p.grad.clone() for p in module.parameters())))
    for ours, obvious in zip(*results, strict=True):
        torch.testing.assert_close(ours, obvious, rtol=1e-9, atol=1e-9)


SITES = st.builds(
    BlockGeometry,
    in_channels=st.just(32),
    planes=st.sampled_from([8, 16]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    stage=st.integers(0, 3),
    first=st.just(True),
    base_channels=st.just(8),
)


def shortcut(site: BlockGeometry) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(site.in_channels, 4 * site.planes, 1, site.stride, bias=False),
        nn.BatchNorm2d(4 * site.planes),
    )


def image(channels: int) -> torch.Tensor:
    return torch.randn(
        2, channels, 7, 6, dtype=torch.double, generator=torch.Generator().manual_seed(3)
    )


@settings(max_examples=15, deadline=None)
@given(SITES, st.sampled_from([1, 2, 4]), st.sampled_from([4, 8, 10]), st.booleans())
def test_resnext(site, groups, base_width, gated):
    kind = SEBottleneck if gated else ResNeXtBottleneck
    own = dict(reduction=4) if gated else {}
    block = settle(
        kind(
            site, BlockModules(shortcut=shortcut(site)), groups=groups, base_width=base_width, **own
        )
    )
    gate = (lambda y: twins.squeeze_excite(block.se, y)) if gated else (lambda y: y)
    agree(
        block,
        lambda x: twins.bottleneck(block, x, lambda y: twins.resnext(block, y), gate),
        image(site.in_channels),
    )


@settings(max_examples=20, deadline=None)
@given(SITES, st.integers(1, 5), st.sampled_from([1, 2]), st.booleans(), st.booleans())
def test_res2net(site, scales, groups, first, mm):
    from dataclasses import replace

    site = replace(site, first=first, pool_needs_stride=mm, stride=site.stride if first else 1)
    block = settle(
        Res2NetBottleneck(
            site, BlockModules(shortcut=shortcut(site)), base_width=4, scales=scales, groups=groups
        )
    )
    pooled = site.stride > 1 or not mm
    agree(
        block,
        lambda x: twins.bottleneck(
            block, x, lambda y: twins.res2net(block, y, first, site.stride, pooled)
        ),
        image(site.in_channels),
    )


@settings(max_examples=25, deadline=None)
@given(
    SITES,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([4, 8]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_split_attention(site, radix, groups, base_width, avd, avd_first, mm):
    from dataclasses import replace

    site = replace(site, pool_needs_stride=mm, sum_splits_first=mm)
    block = settle(
        SplitAttentionBottleneck(
            site,
            BlockModules(shortcut=shortcut(site)),
            radix=radix,
            groups=groups,
            base_width=base_width,
            avd=avd,
            avd_first=avd_first,
        )
    )

    def mix(y):
        pooled = avd and (site.stride > 1 or site.stage > 0 and not mm)
        pool = (lambda t: twins.pool3(t, site.stride)) if pooled else (lambda t: t)
        if avd_first:
            return twins.split_attention(block.conv2, pool(y))
        return pool(twins.split_attention(block.conv2, y))

    agree(block, lambda x: twins.bottleneck(block, x, mix), image(site.in_channels))


@settings(max_examples=15, deadline=None)
@given(SITES, st.sampled_from([1, 2]), st.sampled_from([4, 8]), st.booleans())
def test_selective_kernels(site, groups, base_width, split_input):
    block = settle(
        SelectiveKernelBottleneck(
            site,
            BlockModules(shortcut=shortcut(site)),
            groups=groups,
            base_width=base_width,
            min_hidden=4,
            split_input=split_input,
        )
    )
    agree(
        block,
        lambda x: twins.bottleneck(block, x, lambda y: twins.selective_kernel(block.conv2, y)),
        image(site.in_channels),
    )


def sk_as_split_attention(sk: SelectiveKernel, hidden: int) -> SplitAttention:
    """Split attention of radix 2 with the weights of a selective kernel of halves, biases zero."""
    split = settle(SplitAttention(sk.channels, BlockModules(), reduction_factor=2))
    assert split.fc1.out_channels == hidden
    with torch.no_grad():
        for layer in (split.fc1, split.fc2):
            layer.bias.zero_()
    state = {
        'conv.weight': torch.cat([conv.weight for conv in sk.convs]),
        **{
            f'bn0.{name}': torch.cat([bn.state_dict()[name] for bn in sk.bns])
            for name in ('weight', 'bias', 'running_mean', 'running_var')
        },
        **{
            key: value for key, value in sk.state_dict().items() if key[:3] in ('fc1', 'bn1', 'fc2')
        },
    }
    assert not split.load_state_dict(state, strict=False).unexpected_keys
    return split


def test_undilated_selective_kernels_of_halves_are_split_attention():
    """And of all channels, or dilated, they are not."""
    x = image(32)

    def pair(**more):
        sk = settle(SelectiveKernel(32, BlockModules(), min_hidden=32, split_input=True, **more))
        return sk(x), sk_as_split_attention(sk, 32)(x)

    torch.testing.assert_close(*pair(dilations=(1, 1)), rtol=1e-12, atol=1e-12)
    dilated, split = pair()
    assert (dilated - split).abs().max() > 1e-2
    of_all = SelectiveKernel(32, BlockModules(), dilations=(1, 1))
    assert of_all.convs[0].weight.shape[1] == 32  # each sees what split attention's halves do not


def test_halves_that_groups_do_not_divide_are_refused():
    with refuses('argument.value', 'split_input=True', '24 channels', '8 groups'):
        SelectiveKernel(24, BlockModules(), groups=8, split_input=True)


def test_one_walk():
    """A kind may override a step, never the walk."""
    for kind in KINDS.values():
        assert kind.forward is Bottleneck.forward
        assert kind.spatial_mix is not Bottleneck.spatial_mix


def test_hidden_layer_of_split_attention():
    assert SplitAttention(64, BlockModules()).fc1.out_channels == 32
    assert SplitAttention(512, BlockModules()).fc1.out_channels == 256
    assert SplitAttention(80, BlockModules(), radix=4, groups=2).fc1.out_channels == 80
    assert SplitAttention(64, BlockModules(), reduction_factor=2).fc1.out_channels == 64


def test_a_radix_that_does_not_divide_is_refused():
    with refuses('argument.value', 'radix=3', '64 channels'):
        SplitAttention(64, BlockModules(), radix=3)
    with refuses('argument.value', 'radix=0', '64 channels'):
        SplitAttention(64, BlockModules(), radix=0)


def test_batch_of_one_trains_on_running_statistics():
    module = SplitAttention(8, BlockModules())
    before = {key: value.clone() for key, value in module.bn1.state_dict().items()}
    out = module.train()(torch.randn(1, 8, 5, 5))
    assert out.isfinite().all()
    assert all(torch.equal(before[key], value) for key, value in module.bn1.state_dict().items())
    module(torch.randn(2, 8, 5, 5))  # two samples have statistics
    assert module.bn1.num_batches_tracked == 1


def test_drop_path():
    drop = DropPath(0.5)
    x = torch.ones(4096, 1, 1, 1)
    torch.manual_seed(0)
    y = drop(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert y.mean() == pytest.approx(1.0, abs=0.06)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize('kind,stride', list(product(KINDS, (1, 2))))
def test_channels_last_stays(kind, stride):
    site = BlockGeometry(64, 16, stride, first=True, stage=1, base_channels=16)
    block = KINDS[kind](site, BlockModules(shortcut=shortcut(site))).eval()
    x = torch.randn(2, 64, 8, 8).to(memory_format=torch.channels_last)
    assert block(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize(
    'setting', [dict(eps=0.5), dict(momentum=0.7), dict(momentum=None)], ids=str
)
def test_a_graph_of_split_attention_has_its_norms_settings(setting, batch):
    """A traced graph holds the norm of the pooled map as a function, not as the module."""
    torch.manual_seed(0)
    module = SplitAttention(16, BlockModules()).double()
    for norm in (module.bn0, module.bn1):
        for name, value in setting.items():
            setattr(norm, name, value)
    graph = torch.fx.symbolic_trace(copy.deepcopy(module))
    x = torch.randn(batch, 16, 6, 5, dtype=torch.double)
    for _ in range(2):
        torch.testing.assert_close(graph(x), module(x), rtol=1e-12, atol=1e-12)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(graph.state_dict()[name], buffer, rtol=1e-12, atol=1e-12)
