"""Our operators against torchvision's compiled ones, values and gradients, and by way of them."""

import pytest
import torch
from helpers.optional import import_or_skip
from torch import Tensor

from mmresnest.compat import ops
from mmresnest.compat.ops import torchvision as vision


@pytest.fixture(scope='module')
def torchvision():
    import_or_skip('torchvision')
    return import_or_skip('torchvision.ops')


@pytest.fixture(params=['ours', 'by way of torchvision'])
def way(request, monkeypatch):
    """Whose kernels run beneath mmcv's calling conventions."""
    if request.param == 'ours':
        monkeypatch.setattr(vision, 'has_kernels', lambda name: False)
    else:
        assert all(map(vision.has_kernels, vision.KERNELS))
    return request.param


def draw(random: torch.Generator, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=random, dtype=torch.float64) * (high - low) + low


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def draw_boxes(random: torch.Generator, number: int, side: float) -> Tensor:
    corner = draw(random, number, 2, low=-0.1 * side, high=side)
    return torch.cat([corner, corner + draw(random, number, 2, low=0.01, high=side)], 1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize(('size', 'scale'), [((7, 7), 0.25), ((2, 5), 1.0)])
def test_roi_align(torchvision, way, random, size, scale, ratio, aligned):
    feature = draw(random, 3, 8, 20, 28).requires_grad_()
    boxes = draw_boxes(random, 40, 20 / scale)
    rois = torch.cat([torch.arange(40.0, dtype=torch.float64)[:, None] % 3, boxes], 1)
    wanted = torchvision.roi_align(feature, rois, size, scale, ratio, aligned)
    weight = draw(random, *wanted.shape)
    (gradient,) = torch.autograd.grad((wanted * weight).sum(), feature)

    found, none, into = torch.zeros_like(wanted), torch.empty(0), torch.zeros_like(feature)
    arguments = (*size, scale, ratio, 1, aligned)
    with torch.no_grad():
        ops.TABLE['roi_align_forward'](feature, rois, found, none, none, *arguments)
        ops.TABLE['roi_align_backward'](weight, rois, none, none, into, *arguments)
    close(found, wanted.detach())
    close(into, gradient)
    assert wanted.any() and gradient.any()


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize('number', [0, 1, 300])
def test_nms(torchvision, way, random, number, threshold):
    boxes, scores = draw_boxes(random, number, 30), draw(random, number, low=0)
    found = ops.TABLE['nms'](boxes, scores, threshold, 0)
    wanted = torchvision.nms(boxes, scores, threshold)
    assert found.tolist() == wanted.tolist()
    assert number < 2 or 1 < len(wanted) < number


# stride, padding, dilation, groups, deformable groups, kernel
CONVS = [
    ((1, 1), (1, 1), (1, 1), 1, 1, (3, 3)),
    ((2, 1), (1, 2), (2, 1), 2, 1, (3, 3)),
    ((1, 2), (2, 0), (1, 2), 1, 2, (3, 2)),
    ((1, 1), (0, 0), (1, 1), 4, 4, (1, 1)),
]


@pytest.mark.parametrize('modulated', [True, False], ids=['DCNv2', 'DCN'])
@pytest.mark.parametrize('conv', CONVS)
def test_deform_conv(torchvision, way, random, conv, modulated):
    stride, padding, dilation, groups, deform_groups, kernel = conv
    size = [
        (side + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i, side in enumerate((9, 11))
    ]
    taps = kernel[0] * kernel[1] * deform_groups
    x, offset, weight, mask, bias = (
        value.requires_grad_()
        for value in (
            draw(random, 2, 8, 9, 11),
            draw(random, 2, 2 * taps, *size, low=-2, high=2),
            draw(random, 8, 8 // groups, *kernel),
            draw(random, 2, taps, *size),
            draw(random, 8),
        )
    )
    leaves = [x, weight, bias, offset, mask] if modulated else [x, weight, offset]
    wanted = torchvision.deform_conv2d(
        x,
        offset,
        weight,
        bias if modulated else None,
        stride,
        padding,
        dilation,
        mask if modulated else None,
    )
    grad = draw(random, *wanted.shape)
    gradients = torch.autograd.grad(wanted, leaves, grad)

    none, found, into = torch.empty(0), torch.zeros_like(wanted), [*map(torch.zeros_like, leaves)]
    with torch.no_grad():
        if modulated:
            settings = (*kernel, *stride, *padding, *dilation, groups, deform_groups, True)
            given = (x, weight, bias, none, offset, mask)
            ops.TABLE['modulated_deform_conv_forward'](*given, found, none, *settings)
            ops.TABLE['modulated_deform_conv_backward'](*given, none, *into, grad, *settings)
        else:
            # mmcv hands DCN's pairs over with the horizontal one first
            settings = (
                *(number for pair in (kernel, stride, padding, dilation) for number in pair[::-1]),
                groups,
                deform_groups,
            )
            ops.TABLE['deform_conv_forward'](x, weight, offset, found, none, none, *settings, 2)
            ops.TABLE['deform_conv_backward_input'](
                x, offset, grad, into[0], into[2], weight, none, *settings, 2
            )
            ops.TABLE['deform_conv_backward_parameters'](
                x, offset, grad, into[1], none, none, *settings, 1.0, 2
            )
    close(found, wanted.detach())
    for one, gradient in zip(into, gradients, strict=True):
        close(one, gradient)
        assert gradient.any()
