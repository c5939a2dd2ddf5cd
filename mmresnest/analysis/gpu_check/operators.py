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


@dataclass(frozen=True)
class Operator:
    """An operator, and how exact it has to be.

    Attributes:
        compute: inputs -> its value, whose gradients are compared, too; or several results.
        dtypes: format -> tolerance, of the norm of a tensor.
        truth: the same by its definition, where a compiled mmcv has nothing for CPUs.
    """

    compute: Callable[[Inputs], Tensor | Results]
    dtypes: Mapping[torch.dtype, float]
    truth: Callable[[Inputs], Tensor] | None = None

    def run(self, device: Any, dtype: torch.dtype) -> Results:
        """Return what it gives on a device in a format."""
        return run_with_inputs(self.compute, device, dtype)

    def reference(self) -> Results:
        """Return what it gives on the CPU in double precision."""
        return run_with_inputs(self.truth or self.compute, 'cpu', torch.float64)


def run_with_inputs(
    compute: Callable[[Inputs], Tensor | Results], device: Any, dtype: torch.dtype
) -> Results:
    """Return the results of a function, or its value with the gradients of its inputs."""
    inputs = Inputs(device, dtype)
    found = compute(inputs)
    return inputs.differentiate(found) if isinstance(found, Tensor) else found


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


def suppress_boxes(
    rule: Callable[..., tuple[Tensor, Tensor]], number: int, inputs: Inputs
) -> Results:
    """Return which boxes mmcv's rule keeps, in which order, and what becomes of them.

    Args:
        rule: mmcv's operators, boxes, scores and classes -> boxes with scores, and their indices.
        number: of boxes.
        inputs: where they are drawn.
    """
    from mmcv import ops

    boxes, scores = inputs.draw_boxes(number, 200), inputs.draw_scores(number)
    dets, index = rule(ops, boxes, scores, inputs.draw_labels(number, 4))
    order = torch.zeros(number, dtype=torch.float64)
    order[index.cpu()] = torch.arange(1, len(index) + 1, dtype=torch.float64)
    return {'kept': (order > 0).double(), 'order': order, 'boxes and scores': dets.detach()}


def pool_regions(mode: str, ratio: int, aligned: bool, inputs: Inputs) -> Tensor:
    """Pool regions of two maps."""
    from mmcv.ops import RoIAlign

    feature = inputs.draw_normal('feature', 2, 6, 20, 28)
    image = inputs.draw_labels(12, 2).to(inputs.dtype)
    rois = torch.cat([image[:, None], inputs.draw_boxes(12, 80)], 1)
    return RoIAlign((7, 5), 0.5, ratio, mode, aligned)(feature, rois)


def convolve_deformed(inputs: Inputs) -> Tensor:
    """Convolve at moved places, v1, with groups of both kinds."""
    from mmcv.ops import deform_conv2d

    x, offset = inputs.draw_normal('x', 2, 8, 11, 13), inputs.draw_normal('offset', 2, 36, 6, 7)
    weight = inputs.draw_normal('weight', 6, 4, 3, 3)
    return deform_conv2d(x, offset, weight, 2, 1, 1, 2, 2)


def convolve_modulated(inputs: Inputs) -> Tensor:
    """Convolve at moved places, v2, with weights of the places."""
    from mmcv.ops import modulated_deform_conv2d

    x, offset = inputs.draw_normal('x', 2, 8, 11, 13), inputs.draw_normal('offset', 2, 36, 11, 13)
    mask = inputs.draw_normal('mask', 2, 18, 11, 13)
    weight, bias = inputs.draw_normal('weight', 6, 4, 3, 3), inputs.draw_normal('bias', 6)
    return modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 2, 2, 2, 2)


def compute_focal_loss(
    loss: Callable[[Any, Tensor, Tensor], Tensor], labels: int, inputs: Inputs
) -> Tensor:
    """Compute a focal loss of mmcv's operators, scores of five classes and so many labels."""
    from mmcv import ops

    return loss(ops, inputs.draw_normal('scores', 50, 5), inputs.draw_labels(50, labels))


def define_sigmoid_focal_loss(ops: Any, x: Tensor, labels: Tensor) -> Tensor:
    """Compute the sigmoid focal loss by its definition; the label 5 is background."""
    hit = F.one_hot(labels, 6)[:, :5].bool()
    p = x.sigmoid()
    one = -0.25 * (1 - p) ** 2 * F.logsigmoid(x)
    return one.where(hit, -0.75 * p**2 * F.logsigmoid(-x))


def define_softmax_focal_loss(ops: Any, x: Tensor, labels: Tensor) -> Tensor:
    """Compute the softmax focal loss by its definition."""
    log_p = F.log_softmax(x, 1).gather(1, labels[:, None])[:, 0]
    return (-0.25 * (1 - log_p.exp()) ** 2 * log_p).mean()


SINGLE = {torch.float32: 1e-4}  # compiled mmcv suppresses in single precision only
NMS = dict(type='nms', iou_threshold=0.45)
LOSS = (2.0, 0.25, None)  # gamma, alpha, weights of classes
# fmt: off
OPERATORS: dict[str, Operator] = {
    'nms': Operator(partial(
        suppress_boxes, lambda ops, *drawn: ops.nms(*drawn[:2], 0.45, offset=0), 300), SINGLE),
    'nms of pixels': Operator(partial(
        suppress_boxes, lambda ops, *drawn: ops.nms(*drawn[:2], 0.45, offset=1), 300), SINGLE),
    'batched_nms': Operator(partial(
        suppress_boxes, lambda ops, *drawn: ops.batched_nms(*drawn, NMS), 300), SINGLE),
    'soft_nms': Operator(partial(
        suppress_boxes,
        lambda ops, *drawn: ops.soft_nms(*drawn[:2], 0.3, 0.5, 1e-3, 'linear'), 100), SINGLE),
    'roi_align': Operator(partial(pool_regions, 'avg', 0, True), {**FLOATS, **HALVES}),
    'roi_align, 2 samples': Operator(partial(pool_regions, 'avg', 2, False), FLOATS),
    'roi_align of maxima': Operator(partial(pool_regions, 'max', 0, True), FLOATS),
    'deform_conv2d': Operator(convolve_deformed, FLOATS),
    'modulated_deform_conv2d': Operator(convolve_modulated, FLOATS),
    'sigmoid_focal_loss': Operator(
        partial(compute_focal_loss, lambda ops, *of: ops.sigmoid_focal_loss(*of, *LOSS, 'none'), 6),
        FLOATS, partial(compute_focal_loss, define_sigmoid_focal_loss, 6)),
    'softmax_focal_loss': Operator(
        partial(compute_focal_loss, lambda ops, *of: ops.softmax_focal_loss(*of, *LOSS, 'mean'), 5),
        FLOATS, partial(compute_focal_loss, define_softmax_focal_loss, 5)),
}
# fmt: on
"""Name -> operator."""
