"""mmcv's operators on drawn inputs: value and gradients, by whatever computes them here.

Boxes are multiples of half a pixel, which all formats hold exactly, so that a half precision is not
blamed for boxes that lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...compat.mmcv_ext import operator_sources
from ...compat.ops import torchvision

Results = dict[str, Tensor]
INSTALLED, OURS = 'as installed', 'torch'

FLOATS = {torch.float64: 1e-8, torch.float32: 1e-4}
HALVES = {torch.float16: 1e-2, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Operator:
    """An operator, and how exact it has to be.

    Attributes:
        run: device, format -> values and gradients.
        dtypes: format -> tolerance, of the norm of a tensor.
        truth: the same by its definition, where a compiled mmcv has nothing for CPUs.
    """

    run: Callable[[Any, torch.dtype], Results]
    dtypes: Mapping[torch.dtype, float]
    truth: Callable[[Any, torch.dtype], Results] | None = None

    def reference(self) -> Results:
        """Return what it gives on the CPU in double precision."""
        return (self.truth or self.run)('cpu', torch.float64)


@contextmanager
def use_source(source: str) -> Iterator[None]:
    """Have the operators in PyTorch compute, without the kernels of torchvision."""
    before = dict(torchvision.DEVICES)
    if source == OURS:
        torchvision.DEVICES.update(dict.fromkeys(before, ()))
    try:
        yield
    finally:
        torchvision.DEVICES.update(before)


def list_sources() -> tuple[str, ...]:
    """Return what can compute: what is installed, and ours where nothing else would be asked."""
    compiled = 'compiled mmcv' in operator_sources().values()
    return (INSTALLED,) if compiled else (INSTALLED, OURS)


def list_dtypes(operator: Operator) -> list[torch.dtype]:
    """Return the formats of an operator that are implemented here; compiled mmcv lacks bfloat16."""
    compiled = OURS not in list_sources()
    return [one for one in operator.dtypes if not (compiled and one == torch.bfloat16)]


class Inputs:
    """Draw inputs, the same in every format and on every device.

    Args:
        device: where they are used.
        dtype: format of what is drawn as real numbers.
    """

    def __init__(self, device: Any, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator().manual_seed(0)
        self.leaves: dict[str, Tensor] = {}

    def draw_normal(self, name: str, *shape: int) -> Tensor:
        """Return normal numbers whose gradient is asked for."""
        value = torch.randn(*shape, generator=self.generator).to(self.device, self.dtype)
        self.leaves[name] = value.requires_grad_()
        return value

    def draw_boxes(self, number: int, extent: int) -> Tensor:
        """Return boxes, number x 4, of half pixels."""
        corner = torch.randint(0, extent, (number, 2), generator=self.generator) / 2
        size = torch.randint(2, extent, (number, 2), generator=self.generator) / 2
        return torch.cat([corner, corner + size], 1).to(self.device, self.dtype)

    def draw_scores(self, number: int) -> Tensor:
        """Return numbers between 0 and 1, no two alike."""
        order = torch.randperm(number, generator=self.generator)
        return ((order + 1) / (number + 1)).to(self.device, self.dtype)

    def draw_labels(self, number: int, classes: int) -> Tensor:
        """Return numbers of classes."""
        drawn = torch.randint(0, classes, (number,), generator=self.generator)
        return drawn.to(self.device)

    def differentiate(self, y: Tensor) -> Results:
        """Return a value and the gradients of all leaves that it depends on."""
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(y, list(self.leaves.values()), weights.to(y))
        named = {f'gradient of {name}': g for name, g in zip(self.leaves, gradients)}
        return {'value': y.detach(), **named}


def mark_kept(number: int, index: Tensor, dets: Tensor) -> Results:
    """Return which boxes were kept, in which order, and what became of them."""
    order = torch.zeros(number, dtype=torch.float64)
    order[index.cpu()] = torch.arange(1, len(index) + 1, dtype=torch.float64)
    return {'kept': (order > 0).double(), 'order': order, 'boxes and scores': dets.detach()}


def run_nms(offset: int, device: Any, dtype: torch.dtype) -> Results:
    """Suppress boxes of one class."""
    from mmcv.ops import nms

    inputs = Inputs(device, dtype)
    boxes, scores = inputs.draw_boxes(300, 200), inputs.draw_scores(300)
    dets, index = nms(boxes, scores, 0.45, offset=offset)
    return mark_kept(300, index, dets)


def run_batched_nms(device: Any, dtype: torch.dtype) -> Results:
    """Suppress boxes of several classes, as detectors do."""
    from mmcv.ops import batched_nms

    inputs = Inputs(device, dtype)
    boxes, scores = inputs.draw_boxes(300, 200), inputs.draw_scores(300)
    rule = dict(type='nms', iou_threshold=0.45)
    dets, index = batched_nms(boxes, scores, inputs.draw_labels(300, 4), rule)
    return mark_kept(300, index, dets)


def run_soft_nms(device: Any, dtype: torch.dtype) -> Results:
    """Lower the scores of overlapping boxes."""
    from mmcv.ops import soft_nms

    inputs = Inputs(device, dtype)
    boxes, scores = inputs.draw_boxes(100, 200), inputs.draw_scores(100)
    dets, index = soft_nms(boxes, scores, 0.3, 0.5, 1e-3, 'linear')
    return mark_kept(100, index, dets)


def run_roi_align(mode: str, ratio: int, aligned: bool, device: Any, dtype: torch.dtype) -> Results:
    """Pool regions of two maps."""
    from mmcv.ops import RoIAlign

    inputs = Inputs(device, dtype)
    feature = inputs.draw_normal('feature', 2, 6, 20, 28)
    image = inputs.draw_labels(12, 2).to(dtype)
    rois = torch.cat([image[:, None], inputs.draw_boxes(12, 80)], 1)
    pool = RoIAlign((7, 5), 0.5, ratio, mode, aligned)
    return inputs.differentiate(pool(feature, rois))


def run_deform_conv(device: Any, dtype: torch.dtype) -> Results:
    """Convolve at moved places, v1, with groups of both kinds."""
    from mmcv.ops import deform_conv2d

    inputs = Inputs(device, dtype)
    x, offset = inputs.draw_normal('x', 2, 8, 11, 13), inputs.draw_normal('offset', 2, 36, 6, 7)
    weight = inputs.draw_normal('weight', 6, 4, 3, 3)
    return inputs.differentiate(deform_conv2d(x, offset, weight, 2, 1, 1, 2, 2))


def run_modulated_deform_conv(device: Any, dtype: torch.dtype) -> Results:
    """Convolve at moved places, v2, with weights of the places."""
    from mmcv.ops import modulated_deform_conv2d

    inputs = Inputs(device, dtype)
    x, offset = inputs.draw_normal('x', 2, 8, 11, 13), inputs.draw_normal('offset', 2, 36, 11, 13)
    mask = inputs.draw_normal('mask', 2, 18, 11, 13)
    weight, bias = inputs.draw_normal('weight', 6, 4, 3, 3), inputs.draw_normal('bias', 6)
    y = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 2, 2, 2, 2)
    return inputs.differentiate(y)


def run_sigmoid_focal_loss(device: Any, dtype: torch.dtype) -> Results:
    """Compute mmcv's sigmoid focal loss; the label 5 is background."""
    from mmcv.ops import sigmoid_focal_loss

    inputs = Inputs(device, dtype)
    x, labels = inputs.draw_normal('scores', 50, 5), inputs.draw_labels(50, 6)
    return inputs.differentiate(sigmoid_focal_loss(x, labels, 2.0, 0.25, None, 'none'))


def define_sigmoid_focal_loss(device: Any, dtype: torch.dtype) -> Results:
    """Compute the same by its definition."""
    inputs = Inputs(device, dtype)
    x, labels = inputs.draw_normal('scores', 50, 5), inputs.draw_labels(50, 6)
    hit = F.one_hot(labels, 6)[:, :5].bool()
    p = x.sigmoid()
    one = -0.25 * (1 - p) ** 2 * F.logsigmoid(x)
    return inputs.differentiate(one.where(hit, -0.75 * p**2 * F.logsigmoid(-x)))


def run_softmax_focal_loss(device: Any, dtype: torch.dtype) -> Results:
    """Compute mmcv's softmax focal loss."""
    from mmcv.ops import softmax_focal_loss

    inputs = Inputs(device, dtype)
    x, labels = inputs.draw_normal('scores', 50, 5), inputs.draw_labels(50, 5)
    return inputs.differentiate(softmax_focal_loss(x, labels, 2.0, 0.25, None, 'mean'))


def define_softmax_focal_loss(device: Any, dtype: torch.dtype) -> Results:
    """Compute the same by its definition."""
    inputs = Inputs(device, dtype)
    x, labels = inputs.draw_normal('scores', 50, 5), inputs.draw_labels(50, 5)
    log_p = F.log_softmax(x, 1).gather(1, labels[:, None])[:, 0]
    return inputs.differentiate((-0.25 * (1 - log_p.exp()) ** 2 * log_p).mean())


SINGLE = {torch.float32: 1e-4}  # compiled mmcv suppresses in single precision only
OPERATORS: dict[str, Operator] = {
    'nms': Operator(partial(run_nms, 0), SINGLE),
    'nms of pixels': Operator(partial(run_nms, 1), SINGLE),
    'batched_nms': Operator(run_batched_nms, SINGLE),
    'soft_nms': Operator(run_soft_nms, SINGLE),
    'roi_align': Operator(partial(run_roi_align, 'avg', 0, True), {**FLOATS, **HALVES}),
    'roi_align, 2 samples': Operator(partial(run_roi_align, 'avg', 2, False), FLOATS),
    'roi_align of maxima': Operator(partial(run_roi_align, 'max', 0, True), FLOATS),
    'deform_conv2d': Operator(run_deform_conv, FLOATS),
    'modulated_deform_conv2d': Operator(run_modulated_deform_conv, FLOATS),
    'sigmoid_focal_loss': Operator(run_sigmoid_focal_loss, FLOATS, define_sigmoid_focal_loss),
    'softmax_focal_loss': Operator(run_softmax_focal_loss, FLOATS, define_softmax_focal_loss),
}
"""Name -> operator."""
