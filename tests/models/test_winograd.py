"""Convolution by transforms against the definition in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmresnest.models.fast import winograd
from mmresnest.models.fast.convolution import PackedConv2d, convolve

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    'size, channels, groups',
    [
        ((13, 7, 7), (16, 24), 1),
        ((2, 14, 9), (16, 16), 2),
        ((1, 69, 71), (8, 8), 1),  # several pieces of one image
        ((300, 1, 2), (8, 8), 1),  # of several
        ((2, 4, 8), (128, 128), 1),
    ],
)
@pytest.mark.parametrize('more', [False, True])
@torch.no_grad()
def test_values(size, channels, groups, more):
    torch.manual_seed(0)
    batch, height, width = size
    x = torch.randn(batch, channels[0], height, width).to(memory_format=torch.channels_last)
    weight = torch.randn(channels[1], channels[0] // groups, 3, 3)
    bias = torch.randn(channels[1]) if more else None
    expected = F.conv2d(
        x.double(), weight.double(), None if bias is None else bias.double(), 1, 1, 1, groups
    )
    add = torch.randn(expected.shape).to(memory_format=torch.channels_last) if more else None
    if add is not None:
        expected = (expected + add).relu()
    kernel = winograd.transform_kernel(weight, groups)
    found = winograd.convolve_winograd(x, kernel, bias, add, relu=more)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    error = (found - expected).norm() / expected.norm()
    assert error < 2e-6  # about twice that of a sum in single precision


@pytest.mark.parametrize('dilation', [2, 3])
@torch.no_grad()
def test_dilated_values(dilation):
    torch.manual_seed(0)
    x, add = (torch.randn(2, 8, 13, 18).to(memory_format=torch.channels_last) for _ in range(2))
    weight, bias = torch.randn(8, 8, 3, 3), torch.randn(8)
    kernel = winograd.transform_kernel(weight, 1)
    found = winograd.convolve_dilated(x, kernel, bias, add, True, dilation)
    y = F.conv2d(x.double(), weight.double(), bias.double(), padding=dilation, dilation=dilation)
    expected = (y + add).relu()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).norm() < 2e-6 * expected.norm()


@pytest.mark.parametrize(
    'changed, size, used',
    [
        (dict(), (1, 40, 40), True),
        (dict(), (25, 7, 7), True),
        (dict(), (1, 28, 28), False),  # too few tiles
        (dict(stride=2), (1, 40, 40), False),
        (dict(dilation=2, padding=2), (1, 40, 40), True),
        (dict(dilation=2, padding=1), (1, 40, 40), False),
        (dict(dilation=24, padding=24), (1, 40, 40), False),  # most of a tile lies beyond the map
        (dict(), (99, 5, 5), False),
        (dict(padding=0), (1, 40, 40), False),
        (dict(kernel_size=1, padding=0), (1, 40, 40), False),
        (dict(groups=2), (1, 40, 40), False),
    ],
)
def test_where_it_is_used(changed, size, used):
    settings = dict(kernel_size=3, padding=1, device='meta') | changed
    conv = nn.Conv2d(128, 128, **settings)
    batch, height, width = size
    x = torch.empty(batch, 128, height, width, device='meta')
    assert winograd.can_use_winograd(conv, x) == used


@torch.no_grad()
def test_a_convolution_for_inference_takes_it_and_renews_it():
    torch.manual_seed(0)
    conv = PackedConv2d.from_conv(nn.Conv2d(128, 128, 3, padding=1))
    x = torch.randn(1, 128, 40, 40).to(memory_format=torch.channels_last)
    conv(x)
    first = conv.transformed
    assert conv.packed is None and first is not None
    conv.weight.mul_(1.5)
    found = convolve(conv, x, conv.weight, conv.bias, relu=True)
    assert conv.transformed is not first
    weight, bias = conv.weight.double(), conv.get_parameter('bias').double()
    expected = F.conv2d(x.double(), weight, bias, padding=1).relu()
    assert (found - expected).norm() < 2e-6 * expected.norm()
    conv.weight.data = conv.weight.contiguous(memory_format=torch.channels_last)
    regions = conv(torch.randn(30, 128, 7, 7))  # as RoIAlign gives them
    assert conv.packed is None and regions.is_contiguous(memory_format=torch.channels_last)
    conv(x[:, :, :8, :8].contiguous(memory_format=torch.channels_last))
    assert conv.packed is not None  # a map of few tiles


@torch.no_grad()
def test_weights_are_packed_for_the_size_that_stays():
    conv = PackedConv2d.from_conv(nn.Conv2d(8, 8, 3, padding=1))
    one, two, three = (
        torch.randn(1, 8, side, 9).to(memory_format=torch.channels_last) for side in (9, 5, 3)
    )
    used = [conv.pack_weight(x) is not conv.weight for x in (one, two, three, one, two, two, two)]
    assert used == [True, False, False, True, False, True, True]
    for x in (two, one, three):
        torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1))
