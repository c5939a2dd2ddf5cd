"""Our operators against slow twins written from the definitions, and how they get into mmcv.

A twin loops over boxes, bins and samples and leaves its gradient to autograd.  All calls go through
mmcv's own functions, so its calling conventions are tested too.
"""

import ast
import math
import os
import subprocess
import sys
import warnings
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.deform import Conv, deform_twin, pair
from helpers.errors import refuses
from torch import Tensor

from mmresnest.compat import mmcv_ext, ops
from mmresnest.compat.ops import sparse
from mmresnest.compat.ops import torchvision as vision

MODULES = ('nms', 'roi_align', 'deform_conv', 'modulated_deform_conv', 'focal_loss')


@pytest.fixture(autouse=True)
def mmcv_ops(monkeypatch):
    """``mmcv.ops`` with our operators under it, also where a compiled mmcv is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmcv's own, at import
        module = import_module('mmcv.ops')
    table = type('Table', (), {name: staticmethod(op) for name, op in ops.TABLE.items()})
    for name in MODULES:
        monkeypatch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', table)
    monkeypatch.setattr(vision, 'has_kernels', lambda name: False)
    return module


@pytest.fixture(params=['fused', 'in steps'])
def kernel(request, monkeypatch):
    """Both ways to add rows: that of CPU and CUDA, and that of every other device."""
    if request.param == 'in steps':
        for name in ('roi_align', 'deform_conv'):
            monkeypatch.setattr(getattr(ops, name), 'sum_rows', sparse.sum_rows_in_steps)
        monkeypatch.setattr(sparse, 'sum_rows', sparse.sum_rows_in_steps)
        monkeypatch.setattr(sparse, 'GATHERED', 64)


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def draw(random, *shape, low=-1.0, high=1.0):
    return torch.rand(shape, generator=random, dtype=torch.float64) * (high - low) + low


def close(ours, twin, tolerance=1e-9):
    assert ours.shape == twin.shape
    torch.testing.assert_close(ours.to(twin.dtype), twin, rtol=tolerance, atol=tolerance)


def gradients(out, inputs, random):
    """The gradients of a random weighted sum of the output, for each input."""
    if not out.numel():
        return [torch.zeros_like(value) for value in inputs]
    return torch.autograd.grad((out * draw(random, *out.shape).to(out)).sum(), inputs)


def agree(function, twin, inputs, seed=1, tolerance=1e-9):
    """Value and every gradient of two functions are the same."""
    results = []
    for each in (function, twin):
        leaves = [value.clone().requires_grad_() for value in inputs]
        out = each(*leaves)
        results.append([out, *gradients(out, leaves, torch.Generator().manual_seed(seed))])
    for ours, other in zip(*results, strict=True):
        assert ours.isfinite().all()
        close(ours, other, tolerance)


# RoIAlign ----------------------------------------------------------------------------------------


def interpolate(plane: Tensor, y: float, x: float) -> Tensor:
    """Bilinear sample of (channels, height, width) planes; zero further than one cell outside."""
    height, width = plane.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return plane.sum((1, 2)) * 0
    y, x = (min(max(value, 0), size - 1) for value, size in ((y, height), (x, width)))
    top, left = math.floor(y), math.floor(x)
    total = plane.new_zeros(len(plane))
    for row, column in product((top, top + 1), (left, left + 1)):
        share = (1 - abs(y - row)) * (1 - abs(x - column))
        if share > 0:
            total = total + share * plane[:, row, column]
    return total


def roi_align_twin(feature, rois, size, scale, ratio, mode, aligned):
    out = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        rows_, columns = (
            ratio or max(0, math.ceil(extent / bins))
            for extent, bins in zip((height, width), size, strict=True)
        )
        for p, q in product(range(size[0]), range(size[1])):
            values = [
                interpolate(
                    feature[int(image)],
                    y1 + (p + (i + 0.5) / rows_) * height / size[0],
                    x1 + (q + (j + 0.5) / columns) * width / size[1],
                )
                for i, j in product(range(rows_), range(columns))
            ]
            if values:
                stack = torch.stack(values)
                out.append(stack.mean(0) if mode == 'avg' else stack.max(0)[0])
            else:
                out.append(feature[0].sum((1, 2)) * 0 + (0 if mode == 'avg' else -10000))
    channels = feature.shape[1]
    return torch.stack(out).view(len(rois), *size, channels).permute(0, 3, 1, 2)


# Inside, across each border, wholly outside, thinner than a cell, flat, empty, larger than the map.
# No sample lies on the edge of what counts, where rounding decides, nor at -1, by which mmcv's
# maximum marks "nowhere".
CORNERS = [
    (1.3, 2.1, 7.7, 4.9),
    (-5.1, -4.1, 3.2, 8.3),
    (4.2, 3.3, 13.4, 9.3),
    (50.1, 60.2, 53.3, 64.4),
    (5.1, 5.2, 5.4, 6.3),
    (3.1, 4.3, 9.2, 4.3),
    (7.1, 7.3, 7.1, 7.3),
    (-6.3, -5.2, 14.1, 10.57),
    (-1.1, -1.2, 0.3, 0.4),
]


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 3])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize(('size', 'scale'), [((2, 3), 0.5), ((3, 1), 1.0)])
def test_roi_align(mmcv_ops, random, kernel, mode, size, scale, ratio, aligned):
    feature = draw(random, 2, 3, 6, 9)
    rois = torch.tensor(
        [(i % 2, *corners) for i, corners in enumerate(CORNERS)], dtype=torch.float64
    )
    settings = (rois, size, scale, ratio, mode, aligned)
    agree(
        lambda x: mmcv_ops.roi_align(x, *settings),
        lambda x: roi_align_twin(x, *settings),
        [feature],
    )


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('axis', [0, 1])
def test_roi_align_at_the_edges_of_what_counts(mmcv_ops, kernel, mode, axis):
    """A cell of margin counts, its outer line included: there the border is repeated.

    All values are exact in binary, so that no rounding decides.
    """
    feature = torch.tensor([[1.0, 2.0, 4.0]])
    feature = (feature if axis else feature.t()).expand((4, 3) if axis else (3, 4)).double()
    feature = feature[None, None].clone().requires_grad_()
    cases = {  # where the one sample lies -> what it reads, and from which cells
        -1.25: (0.0, (0, 0, 0)),
        -1.0: (1.0, (1, 0, 0)),
        -0.5: (1.0, (1, 0, 0)),
        1.5: (3.0, (0, 0.5, 0.5)),
        2.5: (4.0, (0, 0, 1)),
        3.0: (4.0, (0, 0, 1)),
        3.25: (0.0, (0, 0, 0)),
    }
    for place, (value, weights) in cases.items():
        if mode == 'max' and place == -1.0:
            continue  # mmcv's maximum marks "nowhere" by -1
        along, across = (place - 0.5, place + 0.5), (0.5, 1.5)
        (x0, x1), (y0, y1) = (along, across) if axis else (across, along)
        rois = torch.tensor([[0, x0, y0, x1, y1]], dtype=torch.float64)
        found = mmcv_ops.roi_align(feature, rois, (1, 1), 1.0, 1, mode, False)
        assert float(found.detach()) == value, place
        (gradient,) = torch.autograd.grad(found.sum(), feature)
        summed = gradient[0, 0].sum(1 - axis)
        assert summed.tolist() == list(weights), place


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_in_small_pieces_is_the_same(mmcv_ops, random, monkeypatch, mode):
    feature = draw(random, 2, 3, 6, 9)
    rois = torch.tensor(
        [(i % 2, *corners) for i, corners in enumerate(CORNERS)], dtype=torch.float64
    )
    settings = (rois, (2, 2), 1.0, 0, mode, True)
    monkeypatch.setattr(ops.roi_align, 'ENTRIES', 20)
    monkeypatch.setattr(ops.roi_align, 'SAMPLED', 50)
    agree(
        lambda x: mmcv_ops.roi_align(x, *settings),
        lambda x: roi_align_twin(x, *settings),
        [feature],
    )


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_of_nothing(mmcv_ops, mode):
    for feature, rois in (
        (torch.zeros(2, 3, 4, 5), torch.zeros(0, 5)),
        (torch.zeros(2, 0, 4, 5), torch.zeros(3, 5)),
        (torch.zeros(0, 3, 4, 5), torch.zeros(0, 5)),
    ):
        feature.requires_grad_()
        out = mmcv_ops.roi_align(feature, rois, (7, 7), 1.0, 0, mode, True)
        assert out.shape == (len(rois), feature.shape[1], 7, 7)
        out.sum().backward()
        assert not feature.grad.any()


def test_roi_align_of_undefined_and_turned_rois_is_zero(mmcv_ops):
    rois = torch.tensor([[0, math.nan, 1, 3, 3], [0, 1, 1, math.inf, 3], [0, 3, 3, 1, 1]])
    feature = torch.ones(1, 2, 5, 5, requires_grad=True)
    out = mmcv_ops.roi_align(feature, rois, (2, 2), 1.0, 0, 'avg', True)
    out.sum().backward()
    assert not out.any() and not feature.grad.any()


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_gradcheck_of_roi_align(mmcv_ops, random, mode):
    rois = torch.tensor([[0, 0.3, 0.2, 3.1, 2.7], [1, -2, 1, 2.5, 9]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: mmcv_ops.roi_align(x, rois, (2, 2), 0.9, 0, mode, True),
        draw(random, 2, 2, 3, 4).requires_grad_(),
    )


def test_channels_last_and_strided_features_give_the_same(mmcv_ops, random):
    feature = draw(random, 2, 6, 6, 9)
    rois = torch.tensor([[1, 1, 1, 8, 5.0]], dtype=torch.float64)
    want = mmcv_ops.roi_align(feature, rois, (2, 2), 1.0, 0, 'avg', True)
    for same in (
        feature.contiguous(memory_format=torch.channels_last),
        feature.repeat_interleave(2, 3)[..., ::2],
    ):
        assert torch.equal(mmcv_ops.roi_align(same, rois, (2, 2), 1.0, 0, 'avg', True), want)


# Suppression -------------------------------------------------------------------------------------


def overlap(one, other, offset):
    """IoU in float32, as mmcv computes it."""
    width, height = (
        torch.clamp(
            torch.minimum(one[i + 2], other[i + 2]) - torch.maximum(one[i], other[i]) + offset,
            min=0,
        )
        for i in (0, 1)
    )
    one, other = ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (one, other))
    return width * height / (one + other - width * height)


def nms_twin(boxes, scores, threshold, offset):
    kept = []
    for index in scores.sort(0, descending=True)[1].tolist():
        if not any(overlap(boxes[other], boxes[index], offset) > threshold for other in kept):
            kept.append(index)
    return kept


def soft_nms_twin(boxes, scores, threshold, sigma, least, method, offset):
    """The array of boxes, its head sorted; a dropped one is overwritten by the last."""
    array = [[i, boxes[i], float(scores[i])] for i in range(len(boxes))]
    head = 0
    while head < len(array):
        best = max(range(head, len(array)), key=lambda i: (array[i][2], -i))
        array[head], array[best] = array[best], array[head]
        position = head + 1
        while position < len(array):
            iou = float(overlap(array[head][1], array[position][1], offset))
            if method == 'gaussian':
                array[position][2] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                array[position][2] *= 0 if method == 'naive' else 1 - iou
            if array[position][2] < least:
                array[position] = array[-1]
                array.pop()
            else:
                position += 1
        head += 1
    return [item[0] for item in array], [item[2] for item in array]


def boxes_and_scores(random, number, ties=False):
    corner = draw(random, number, 2, low=0, high=30)
    boxes = torch.cat([corner, corner + draw(random, number, 2, low=-1, high=20)], 1).float()
    scores = draw(random, number, low=0, high=1).float()
    return boxes, (scores * 8).floor() / 8 if ties else scores


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_nms_counts_pixels_or_measures_by_its_offset(mmcv_ops, dtype):
    """Two boxes of 9 x 9 and 9 x 4 lengths, or of 10 x 10 and 10 x 5 pixels: IoU 4/9 and 1/2."""
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 4], [10, 0, 19, 9]], dtype=dtype)
    scores = torch.tensor([0.9, 0.8, 0.7], dtype=dtype)
    for offset, iou in ((0, 4 / 9), (1, 1 / 2)):
        assert float(ops.nms.compute_ious(boxes[:1], boxes[1:2], offset)) == pytest.approx(iou)
        # they touch, or are neighbors: no pixel is of both
        assert float(ops.nms.compute_ious(boxes[:1], boxes[2:], offset)) == 0
        for threshold in (iou - 0.01, iou + 0.01):
            kept = [0, 1, 2] if threshold > iou else [0, 2]
            index = mmcv_ops.nms(boxes, scores, threshold, offset=offset)[1]
            assert index.tolist() == kept
        dets, index = mmcv_ops.soft_nms(
            boxes.float(), scores.float(), 0.1, method='linear', offset=offset
        )
        lowered = dict(zip(index.tolist(), dets[:, 4].tolist()))
        assert lowered == pytest.approx({0: 0.9, 1: 0.8 * (1 - iou), 2: 0.7})


def test_nms_of_one_group_in_several_steps(random, monkeypatch):
    boxes, scores = boxes_and_scores(random, 40)
    order = scores.argsort(descending=True)
    monkeypatch.setattr(ops.nms, 'BLOCK', 7)
    monkeypatch.setattr(ops.nms, 'TILE', 5)
    kept = ops.nms.keep_indices(boxes[order], 0.4, 0)
    assert order[kept].tolist() == nms_twin(boxes, scores, 0.4, 0)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize('block', [4, 256])
def test_nms(mmcv_ops, random, monkeypatch, block, threshold, offset, ties):
    monkeypatch.setattr(ops.nms, 'BLOCK', block)
    monkeypatch.setattr(ops.nms, 'TILE', 2 * block)
    for number in (0, 1, 2, 40):
        boxes, scores = boxes_and_scores(random, number, ties)
        index = mmcv_ops.nms(boxes, scores, threshold, offset=offset)[1]
        assert index.tolist() == nms_twin(boxes, scores, threshold, offset)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_of_boxes_far_apart(mmcv_ops, random, monkeypatch, offset):
    monkeypatch.setattr(ops.nms, 'BLOCK', 8)
    boxes, scores = boxes_and_scores(random, 60)
    boxes += torch.arange(60).remainder(7)[:, None] * 60  # as mmcv sets classes apart
    groups = list(ops.nms.split_by_gaps(boxes, offset))
    assert len(groups) > 3 and torch.cat(groups).sort()[0].equal(torch.arange(60))
    index = mmcv_ops.nms(boxes, scores, 0.3, offset=offset)[1]
    assert index.tolist() == nms_twin(boxes, scores, 0.3, offset)


def test_nms_of_touching_boxes_and_below_zero(mmcv_ops):
    boxes = torch.tensor([[0, 0, 2, 2], [2, 0, 4, 2], [9, 0, 9, 0], [30, 0, 31, 1.0]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    for offset, threshold in product((0, 1), (0.0, -0.5)):
        index = mmcv_ops.nms(boxes, scores, threshold, offset=offset)[1]
        assert index.tolist() == nms_twin(boxes, scores, threshold, offset)


def test_nms_of_a_long_chain(mmcv_ops):
    start = torch.arange(50.0)
    boxes = torch.stack([start, 0 * start, start + 3, 0 * start + 3], 1)  # IoU 1/2 with the next
    assert mmcv_ops.nms(boxes, -start, 0.45)[1].tolist() == list(range(0, 50, 2))


def test_nms_filters_scores_and_counts(mmcv_ops, random):
    boxes, scores = boxes_and_scores(random, 40)
    index = mmcv_ops.nms(boxes, scores, 0.7, score_threshold=0.5, max_num=5)[1]
    good = (scores > 0.5).nonzero()[:, 0]
    assert index.tolist() == good[nms_twin(boxes[good], scores[good], 0.7, 0)][:5].tolist()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_in_other_types(mmcv_ops, random, dtype):
    boxes, scores = (value.to(dtype) for value in boxes_and_scores(random, 40))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    index = mmcv_ops.nms(boxes, scores, 0.5)[1]
    assert index.tolist() == nms_twin(boxes.to(wide), scores, 0.5, 0)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('least', [1e-3, 0.3])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(mmcv_ops, random, method, offset, least, ties):
    for number in (0, 1, 40):
        boxes, scores = boxes_and_scores(random, number, ties)
        before = scores.clone()
        kept, index = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, least, method, offset)
        want, lowered = soft_nms_twin(boxes, scores, 0.3, 0.5, least, method, offset)
        assert index.tolist() == want
        assert torch.equal(scores, before) and torch.equal(kept[:, :4], boxes[index])
        close(kept[:, 4], torch.tensor(lowered, dtype=torch.float32).view(-1), 1e-5)


def test_batched_nms_above_the_split(mmcv_ops, random):
    boxes, scores = boxes_and_scores(random, 60)
    labels = torch.arange(60) % 3
    rule = {'type': 'nms', 'iou_threshold': 0.4}
    whole = mmcv_ops.batched_nms(boxes, scores, labels, rule)[1]
    split = mmcv_ops.batched_nms(boxes, scores, labels, {**rule, 'split_thr': 10})[1]
    assert whole.tolist() == split.tolist()


# Deformable convolution --------------------------------------------------------------------------


CONVS = [
    Conv(1, 1, 1, 1, 1),
    Conv(2, 1, 1, 2, 1),
    Conv(1, 2, 2, 1, 2),
    Conv((1, 2), (2, 0), (1, 2), 2, 4, (3, 2)),
    Conv(1, 0, 1, 4, 2, (1, 1)),
]


def conv_inputs(random, conv, images=2, modulated=True, spread=2.0):
    x = draw(random, images, 4, 4, 5)
    size = [
        (length + 2 * pad - step * (taps - 1) - 1) // stride + 1
        for length, pad, step, taps, stride in zip(
            (4, 5),
            pair(conv.padding),
            pair(conv.dilation),
            conv.kernel,
            pair(conv.stride),
            strict=True,
        )
    ]
    taps = math.prod(conv.kernel) * conv.deform_groups
    inputs = [
        x,
        draw(random, images, 2 * taps, *size, low=-spread, high=spread),
        draw(random, 4, 4 // conv.groups, *conv.kernel),
    ]
    return [*inputs, draw(random, images, taps, *size), draw(random, 4)] if modulated else inputs


@pytest.mark.parametrize('conv', CONVS)
def test_deform_conv(mmcv_ops, random, kernel, conv):
    agree(
        lambda x, offset, weight: mmcv_ops.deform_conv2d(x, offset, weight, *conv[:5]),
        lambda *inputs: deform_twin(conv, *inputs),
        conv_inputs(random, conv, modulated=False),
    )


@pytest.mark.parametrize('conv', CONVS)
def test_modulated_deform_conv(mmcv_ops, random, kernel, conv):
    agree(
        lambda x, offset, weight, mask, bias: mmcv_ops.modulated_deform_conv2d(
            x, offset, mask, weight, bias, *conv[:5]
        ),
        lambda *inputs: deform_twin(conv, *inputs),
        conv_inputs(random, conv),
    )


def test_offsets_of_zero_give_a_convolution_and_no_gradient_in_the_padding(mmcv_ops, random):
    """The first step of training: mmcv starts offsets at zero, where padded taps lie on -1."""
    conv = Conv(1, 1, 1, 1, 1)
    x, offset, weight = conv_inputs(random, conv, modulated=False, spread=0)
    agree(
        lambda *inputs: mmcv_ops.deform_conv2d(*inputs, *conv[:5]),
        lambda *inputs: deform_twin(conv, *inputs),
        [x, offset, weight],
    )
    close(mmcv_ops.deform_conv2d(x, offset, weight, 1, 1), torch.conv2d(x, weight, padding=1))


@pytest.mark.parametrize('step', [1, 2, 32])
def test_image_pieces_and_im2col_step_change_nothing(mmcv_ops, random, monkeypatch, step):
    conv = CONVS[4]
    monkeypatch.setattr(ops.deform_conv, 'COLUMNS', 1)
    agree(
        lambda *inputs: mmcv_ops.deform_conv2d(*inputs, *conv[:5], False, step),
        lambda *inputs: deform_twin(conv, *inputs),
        conv_inputs(random, conv, images=4, modulated=False),
    )


def test_gradients_that_nobody_wants_are_not_made(mmcv_ops, random):
    conv = CONVS[0]
    inputs = conv_inputs(random, conv, modulated=False)
    inputs[2].requires_grad_()
    mmcv_ops.deform_conv2d(*inputs, *conv[:5]).sum().backward()
    want = deform_twin(conv, *inputs)
    close(inputs[2].grad, torch.autograd.grad(want.sum(), inputs[2])[0])


def test_deform_conv_of_no_image(mmcv_ops, random):
    conv = CONVS[0]
    x, offset, weight, mask, bias = (
        value.requires_grad_() for value in conv_inputs(random, conv, images=0)
    )
    ext_output = x.new_empty(0, 4, 4, 5)
    scratch = x.new_empty(0)
    ops.TABLE['modulated_deform_conv_forward'](
        x,
        weight,
        bias,
        scratch,
        offset,
        mask,
        ext_output,
        scratch,
        3,
        3,
        1,
        1,
        1,
        1,
        1,
        1,
        1,
        1,
        with_bias=True,
    )
    totals = [torch.zeros_like(value) for value in (x, weight, bias, offset, mask)]
    ops.TABLE['modulated_deform_conv_backward'](
        x,
        weight,
        bias,
        scratch,
        offset,
        mask,
        scratch,
        *totals,
        ext_output,
        3,
        3,
        1,
        1,
        1,
        1,
        1,
        1,
        1,
        1,
        with_bias=True,
    )
    assert not any(total.any() for total in totals)


def test_gradcheck_of_deform_convs(mmcv_ops, random):
    conv = Conv(2, 1, 1, 2, 2, (2, 2))
    x, offset, weight, mask, bias = (
        value.requires_grad_() for value in conv_inputs(random, conv, images=1)
    )
    assert torch.autograd.gradcheck(
        lambda *inputs: mmcv_ops.deform_conv2d(*inputs, *conv[:5]), (x, offset, weight)
    )
    assert torch.autograd.gradcheck(
        lambda *inputs: mmcv_ops.modulated_deform_conv2d(*inputs, *conv[:5]),
        (x, offset, mask, weight, bias),
    )


@pytest.mark.parametrize('name', ['DeformConv2dPack', 'ModulatedDeformConv2dPack'])
def test_layers_start_as_convolutions(mmcv_ops, random, name):
    layer = getattr(mmcv_ops, name)(4, 6, 3, padding=1, bias=False).double()
    if name == 'ModulatedDeformConv2dPack':
        layer.conv_offset.bias.data[18:] = 40  # opens every mask
    x = draw(random, 2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    close(layer(x), torch.conv2d(x, layer.weight, padding=1))


# Focal losses ------------------------------------------------------------------------------------


def sigmoid_twin(scores, target, gamma, alpha, weight):
    losses = []
    for n, c in product(*map(range, scores.shape)):
        p, label = scores[n, c].sigmoid(), int(target[n])
        loss = (
            -alpha * (1 - p) ** gamma * p.log()
            if label == c
            else -(1 - alpha) * p**gamma * (1 - p).log()
        )
        losses.append(loss * (weight[label] if weight is not None and label < len(weight) else 1))
    return torch.stack(losses).view(scores.shape)


def softmax_twin(scores, target, gamma, alpha, weight):
    losses = []
    for n in range(len(scores)):
        label = int(target[n])
        p = scores[n].softmax(0)[label]
        loss = -alpha * (1 - p) ** gamma * p.log() * (1 if weight is None else weight[label])
        losses.append(loss if label >= 0 else 0 * p)
    return torch.stack(losses)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.6), (0.5, 0.5), (3.0, 1.0)])
def test_sigmoid_focal_loss(mmcv_ops, random, gamma, alpha, weighted):
    scores = draw(random, 6, 4, low=-4, high=4)
    target = torch.tensor([0, 1, 2, 3, 4, 4])  # 4: background
    weight = draw(random, 4, low=0.5, high=2) if weighted else None
    settings = (target, gamma, alpha, weight)
    agree(
        lambda x: mmcv_ops.sigmoid_focal_loss(x, *settings, 'none'),
        lambda x: sigmoid_twin(x, *settings),
        [scores],
    )
    agree(
        lambda x: mmcv_ops.sigmoid_focal_loss(x, *settings, 'mean'),
        lambda x: sigmoid_twin(x, *settings).sum() / 6,
        [scores],
    )


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.6), (0.5, 0.5), (3.0, 1.0)])
def test_softmax_focal_loss(mmcv_ops, random, gamma, alpha, weighted):
    scores = draw(random, 6, 4, low=-4, high=4)
    target = torch.tensor([0, 1, 2, 3, -1, 0])  # -1: ignored
    weight = draw(random, 4, low=0.5, high=2) if weighted else None
    settings = (target, gamma, alpha, weight)
    agree(
        lambda x: mmcv_ops.softmax_focal_loss(x, *settings, 'mean'),
        lambda x: softmax_twin(x, *settings).mean(),
        [scores],
    )
    close(mmcv_ops.softmax_focal_loss(scores, *settings, 'none'), softmax_twin(scores, *settings))


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_focal_losses_of_certain_scores_are_finite(mmcv_ops, gamma):
    scores = torch.tensor([[200.0, -200], [-200, 200], [0, 0]])
    target = torch.tensor([0, 0, 1])
    for loss in (mmcv_ops.sigmoid_focal_loss, mmcv_ops.softmax_focal_loss):
        leaf = scores.clone().requires_grad_()
        out = loss(leaf, target, gamma, 0.25, None, 'sum')
        out.backward()
        assert out.isfinite() and leaf.grad.isfinite().all()


def test_focal_losses_of_nothing(mmcv_ops):
    for loss in (mmcv_ops.sigmoid_focal_loss, mmcv_ops.softmax_focal_loss):
        scores = torch.zeros(0, 4, requires_grad=True)
        loss(scores, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum').backward()
        assert scores.grad.shape == (0, 4)


def test_gradcheck_of_focal_losses(mmcv_ops, random):
    scores, target = draw(random, 4, 3).requires_grad_(), torch.tensor([0, 2, 1, 1])
    weight = draw(random, 3, low=0.5, high=2)
    for loss in (mmcv_ops.sigmoid_focal_loss, mmcv_ops.softmax_focal_loss):
        assert torch.autograd.gradcheck(
            lambda x, loss=loss: loss(x, target, 2.0, 0.25, weight, 'mean'), scores
        )


# Half precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_given_back_in_half(mmcv_ops, random, dtype):
    coarse = 4 * torch.finfo(dtype).eps
    conv = CONVS[2]
    rois = torch.tensor([[0, 1, 1, 6, 4.0], [1, -1, 0, 3, 9]])
    target = torch.tensor([0, 2, 1, 1])
    feature, scores = draw(random, 2, 4, 6, 9), draw(random, 4, 3)
    inputs = conv_inputs(random, conv)
    calls = [
        (lambda x: mmcv_ops.roi_align(x, rois.to(x), (2, 2), 1.0, 0, 'avg', True), [feature]),
        (lambda x: mmcv_ops.roi_align(x, rois.to(x), (2, 2), 1.0, 0, 'max', True), [feature]),
        (lambda x: mmcv_ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'none'), [scores]),
        (lambda x: mmcv_ops.softmax_focal_loss(x, target, 2.0, 0.25, None, 'sum'), [scores]),
        (lambda *three: mmcv_ops.deform_conv2d(*three, *conv[:5]), inputs[:3]),
        (
            lambda x, offset, weight, mask, bias: mmcv_ops.modulated_deform_conv2d(
                x, offset, mask, weight, bias, *conv[:5]
            ),
            inputs,
        ),
    ]
    for call, values in calls:
        results = []
        for each in (dtype, torch.float32):
            leaves = [value.to(dtype).to(each).requires_grad_() for value in values]
            out = call(*leaves)
            assert out.dtype == each
            results.append([out, *torch.autograd.grad(out.sum(), leaves)])
        for half, single in zip(*results, strict=True):
            assert half.dtype == dtype
            torch.testing.assert_close(
                half.float(), single, rtol=coarse, atol=coarse * float(single.detach().abs().max())
            )


def test_autocast(mmcv_ops, random):
    """Layers under autocast meet float32 maps and bfloat16 offsets."""
    layer = mmcv_ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    x = draw(random, 2, 4, 6, 7).float().requires_grad_()
    rois = torch.tensor([[0, 1, 1, 6, 4.0]])
    want = mmcv_ops.roi_align(layer(x), rois, 2, 1.0, 0, 'avg', True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = mmcv_ops.roi_align(layer(x), rois.bfloat16(), 2, 1.0, 0, 'avg', True)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and x.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), want, rtol=0.05, atol=0.05)


def test_deterministic_algorithms_are_content(mmcv_ops, random):
    """``--deterministic`` makes PyTorch refuse operators whose result could vary."""
    conv, boxes = CONVS[0], boxes_and_scores(random, 30)
    feature = draw(random, 2, 3, 6, 9).requires_grad_()
    rois = torch.tensor([[1, 1, 1, 8, 5.0], [1, 2, 1, 7, 4]], dtype=torch.float64)
    inputs = [value.requires_grad_() for value in conv_inputs(random, conv, modulated=False)]
    torch.use_deterministic_algorithms(True)
    try:
        for mode in ('avg', 'max'):
            mmcv_ops.roi_align(feature, rois, (2, 2), 1.0, 0, mode, True).sum().backward()
        mmcv_ops.deform_conv2d(*inputs, *conv[:5]).sum().backward()
        kept = mmcv_ops.nms(*boxes, 0.5)[1].tolist()
    finally:
        torch.use_deterministic_algorithms(False)
    assert feature.grad.any() and inputs[1].grad.any()
    assert kept == nms_twin(*boxes, 0.5, 0)


# torchvision -------------------------------------------------------------------------------------

SCHEMAS = """
nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor
roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, \
SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor
_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, \
SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width, \
int sampling_ratio, bool aligned) -> Tensor
deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, \
SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, \
SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor
_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, \
Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, \
SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> \
(Tensor, Tensor, Tensor, Tensor, Tensor)
"""


class Kernels:
    """Stands for torchvision's kernels: our own operators behind its signatures, and a log."""

    def __init__(self):
        self.called = []

    def nms(self, boxes, scores, threshold):
        return torch.tensor(nms_twin(boxes, scores, threshold, 0), dtype=torch.long)

    def roi_align(self, input, rois, scale, height, width, ratio, aligned):
        size = (height, width)
        return roi_align_twin(input, rois, size, scale, ratio, 'avg', aligned).contiguous()

    def _roi_align_backward(self, grad, rois, scale, height, width, b, c, h, w, ratio, aligned):
        with torch.enable_grad():
            x = torch.zeros(b, c, h, w, dtype=grad.dtype, requires_grad=True)
            return torch.autograd.grad(
                self.roi_align(x, rois, scale, height, width, ratio, aligned), x, grad
            )[0]

    def deform_conv2d(
        self, x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offsets, use_mask
    ):
        conv = Conv((sh, sw), (ph, pw), (dh, dw), groups, offsets, tuple(weight.shape[2:]))
        return deform_twin(conv, x, offset, weight, mask if use_mask else None, bias).contiguous()

    def _deform_conv2d_backward(self, grad, *arguments):
        with torch.enable_grad():
            leaves = [value.detach().clone().requires_grad_() for value in arguments[:5]]
            out = self.deform_conv2d(*leaves, *arguments[5:])
            found = torch.autograd.grad(out, leaves, grad, allow_unused=True)
        return tuple(
            torch.zeros_like(leaf) if value is None else value
            for leaf, value in zip(leaves, found, strict=True)
        )


@pytest.fixture
def torchvision(monkeypatch, mmcv_ops):
    """A torchvision that imports, with kernels under torchvision's own signatures."""
    monkeypatch.undo()  # mmcv_ops hides torchvision
    parts = {'torchvision': ModuleType('torchvision'), 'torchvision.ops': ModuleType('ops')}
    parts['torchvision'].ops = parts['torchvision.ops']
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    table = type('Table', (), {name: staticmethod(op) for name, op in ops.TABLE.items()})
    for name in MODULES:
        monkeypatch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', table)
    kernels = Kernels()
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for schema in SCHEMAS.strip().splitlines():
        library.define(schema)
        name = schema.split('(')[0]

        def logged(*arguments, name=name):
            kernels.called.append(name)
            return getattr(kernels, name)(*arguments)

        library.impl(name, logged, 'CPU')
    vision.load_operators.cache_clear()
    vision.has_kernels.cache_clear()
    yield kernels
    library._destroy()
    vision.load_operators.cache_clear()
    vision.has_kernels.cache_clear()


@pytest.mark.skipif(vision.load_operators() is not None, reason='the real torchvision is here')
def test_torchvision_is_used_where_it_imports(mmcv_ops, random, torchvision):
    called = torchvision.called
    boxes, scores = boxes_and_scores(random, 30, ties=True)
    assert mmcv_ops.nms(boxes, scores, 0.5)[1].tolist() == nms_twin(boxes, scores, 0.5, 0)
    assert called == ['nms']
    mmcv_ops.nms(boxes, scores, 0.5, offset=1)
    assert called == ['nms']  # torchvision knows no offset
    called.clear()

    feature = draw(random, 2, 3, 6, 9)
    rois = torch.tensor([[1, 1, 1, 8, 5.0]], dtype=torch.float64)
    for mode, ratio in (('avg', 0), ('avg', 2), ('max', 0)):
        settings = (rois, (2, 3), 0.5, ratio, mode, True)
        agree(
            lambda x, settings=settings: mmcv_ops.roi_align(x, *settings),
            lambda x, settings=settings: roi_align_twin(x, *settings),
            [feature],
        )
    assert called == 2 * ['roi_align', '_roi_align_backward']  # nor the largest sample
    half = mmcv_ops.roi_align(feature.half(), rois.half(), (2, 3), 0.5, 0, 'avg', True)
    assert half.dtype == torch.float16
    called.clear()

    for conv in (CONVS[3], CONVS[4]):
        agree(
            lambda *inputs, conv=conv: mmcv_ops.deform_conv2d(*inputs, *conv[:5]),
            lambda *inputs, conv=conv: deform_twin(conv, *inputs),
            conv_inputs(random, conv, modulated=False),
        )
        agree(
            lambda x, offset, weight, mask, bias, conv=conv: mmcv_ops.modulated_deform_conv2d(
                x, offset, mask, weight, bias, *conv[:5]
            ),
            lambda *inputs, conv=conv: deform_twin(conv, *inputs),
            conv_inputs(random, conv),
        )
    forward, backward = 'deform_conv2d', '_deform_conv2d_backward'
    assert called == 2 * [forward, backward, backward, forward, backward]
    assert set(mmcv_ext.operator_sources().values()) in (
        {'compiled mmcv'},
        {'torch', 'torchvision'},
    )


@pytest.mark.parametrize('error', [ImportError, OSError, RuntimeError, AttributeError])
def test_a_torchvision_that_fails_at_import_is_not_there(monkeypatch, error):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition('.')[0] == 'torchvision':
                raise error('operator torchvision::nms does not exist')

    for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Broken, *sys.meta_path])
    assert vision.load_operators.__wrapped__() is None


# The stand-in ------------------------------------------------------------------------------------


def asked_for() -> list[str]:
    """Every function that mmcv's Python side asks its compiled module for."""
    import mmcv

    names = []
    for path in sorted((Path(mmcv.__file__).parent / 'ops').glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith('load_ext'):
                names += ast.literal_eval(node.args[1])
    return names


@pytest.fixture
def stand_in():
    """A fresh stand-in module."""
    module = ModuleType(mmcv_ext.NAME)
    mmcv_ext.ExtLoader().exec_module(module)
    return module


def test_every_operator_that_mmcv_knows_is_there_or_refuses(stand_in):
    names = asked_for()
    assert len(names) > 100 and set(ops.TABLE) <= set(names)
    for name in names:
        assert hasattr(stand_in, name)
        if name.startswith('get_compil'):
            assert 'mmresnest' in getattr(stand_in, name)()
        elif name not in ops.TABLE:
            with refuses('package.no-operator', f"'{name}'", 'pip install'):
                getattr(stand_in, name)(1, other=2)


def test_private_names_are_missing(stand_in):
    for name in ('__path__', '__wrapped__', '_anything'):
        assert not hasattr(stand_in, name)


@pytest.mark.parametrize(
    ('distribution', 'parts'),
    [
        ('onedl-mmcv', ['mim install onedl-mmcv', 'onedl-mmcv==9.9']),
        ('mmcv-lite', ['pip uninstall mmcv-lite', 'mim install', 'mmcv==9.9']),
        ('mmcv', ['mim install', 'mmcv==9.9']),
        (None, ['https://mmcv.readthedocs.io']),
    ],
)
def test_advice_fits_what_is_installed(monkeypatch, distribution, parts):
    def version(name):
        if name != distribution:
            raise mmcv_ext.metadata.PackageNotFoundError(name)
        return '9.9'

    monkeypatch.setattr(mmcv_ext.metadata, 'version', version)
    advice = mmcv_ext.install_advice()
    assert all(part in advice for part in parts) and '{' not in advice
    assert ('uninstall' in advice) == (distribution == 'mmcv-lite')
    assert ('onedl' in advice) == (distribution == 'onedl-mmcv')


def test_the_finder_knows_one_name():
    finder = mmcv_ext.ExtFinder()
    assert finder.find_spec('mmcv._ext').loader is not None
    assert finder.find_spec('mmcv.ops') is None and finder.find_spec('_ext') is None


def run(code: str, path: Path) -> str:
    """What a fresh interpreter prints that finds modules in a folder first."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(path), str(root)])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_compiled_module_wins(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text('')
    (tmp_path / 'mmcv' / '_ext.py').write_text('nms = "compiled"\n')
    assert (
        run(
            'import mmresnest, sys, mmcv._ext\n'
            'assert "torch" not in sys.modules\n'
            'from mmresnest.compat import mmcv_ext\n'
            'assert not mmcv_ext.is_stand_in(mmcv._ext)\n'
            'print(mmcv._ext.nms, set(mmcv_ext.operator_sources().values()))',
            tmp_path,
        )
        == "compiled {'compiled mmcv'}"
    )


def test_the_stand_in_is_found_where_nothing_is_compiled(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text('')
    assert (
        run(
            'import sys, mmresnest\n'
            'from importlib.util import find_spec\n'
            'assert find_spec("mmcv._ext") is not None and "torch" not in sys.modules\n'
            'import mmcv._ext as module\n'
            'from mmresnest.compat import mmcv_ext, ops\n'
            'assert mmcv_ext.is_stand_in(module) and module.nms is ops.TABLE["nms"]\n'
            'print(sorted(set(mmcv_ext.operator_sources().values()) - {"torchvision"}))',
            tmp_path,
        )
        == "['torch']"
    )


@pytest.mark.slow
def test_mmcv_and_the_toolboxes_import_and_say_what_they_run_on():
    assert (
        run(
            'import warnings; warnings.simplefilter("ignore")\n'
            'import mmresnest\n'
            'from mmcv.ops import *\n'
            'import mmdet.models, mmseg.models\n'
            'from mmcv.utils import collect_env\n'
            'from mmresnest.compat import mmcv_ext\n'
            'report = collect_env()\n'
            'ours = set(mmcv_ext.operator_sources().values()) != {"compiled mmcv"}\n'
            'print("ends", ("mmresnest" in report["MMCV Compiler"]) == ours)',
            Path(__file__).parents[1] / 'data',
        ).splitlines()[-1]
        == 'ends True'
    )
