"""The two steps of detection that are no products: thinning out boxes, and pooling RoIs.

    keep(boxes R N 4, scores R N, overlap)              -> R N, whether the box is left
    align(maps, rois N 5, level N, scales, bins, ratio) -> N C bins bins

``NATIVE`` names them as operators, which ONNX and OpenVINO have: ``NonMaxSuppression`` and
``RoiAlign``. A box whose score is 0 is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

if not hasattr(torch.library, 'custom_op'):  # the decorators below would fail
    raise UserError(f'export takes torch 2.6 or newer, and this is {torch.__version__}; update it')


@dataclass(frozen=True)
class Kernels:
    """How a graph takes these steps; see the module.

    Attributes:
        keep: thins out.
        align: pools.
    """

    keep: Callable[[Tensor, Tensor, float], Tensor]
    align: Callable[[list[Tensor], Tensor, Tensor, Sequence[float], int, int], Tensor]


@torch.library.custom_op('mmresnest::keep', mutates_args=())
def keep(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Greedy NMS of each row."""
    from mmcv.ops import nms

    left = scores.new_zeros(scores.shape, dtype=torch.bool)
    for row in scores.sum(1).nonzero()[:, 0].tolist():
        at = scores[row].nonzero()[:, 0]
        _, chosen = nms(boxes[row, at], scores[row, at], overlap)
        left[row, at[chosen]] = True
    return left


@keep.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


@torch.library.custom_op('mmresnest::align', mutates_args=())
def align(
    maps: list[Tensor], rois: Tensor, level: Tensor, scales: list[float], bins: int, ratio: int
) -> Tensor:
    """RoIAlign of each RoI on its level."""
    from mmcv.ops import roi_align

    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], bins, bins)
    for number, (one, scale) in enumerate(zip(maps, scales)):
        at = (level == number).nonzero()[:, 0]
        if len(at):
            pooled[at] = roi_align(one, rois[at], (bins, bins), scale, ratio, 'avg', True)
    return pooled


@align.register_fake
def _(
    maps: list[Tensor], rois: Tensor, level: Tensor, scales: list[float], bins: int, ratio: int
) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], bins, bins)


NATIVE = Kernels(keep, align)


# ---- in ONNX -------------------------------------------------------------------------------------


def translations() -> dict[Any, Callable]:
    """Operator -> the function that writes it in ONNX."""
    return {torch.ops.mmresnest.keep.default: _keep, torch.ops.mmresnest.align.default: _align}


def _keep(boxes: Any, scores: Any, overlap: float) -> Any:
    from onnxscript import opset18 as op

    most = op.Constant(value_ints=[2**31 - 1])
    found = op.NonMaxSuppression(  # M 3: row, 0, box
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        most,
        op.Constant(value_floats=[overlap]),
        op.Constant(value_floats=[0.0]),
    )
    place = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(
        op.Constant(value_floats=[1.0]),
        op.Slice(op.Shape(found), op.Constant(value_ints=[0]), op.Constant(value_ints=[1])),
    )
    return op.Cast(op.ScatterND(op.Mul(scores, 0.0), place, ones), to=9)  # 9: bool


def _align(
    maps: Sequence[Any], rois: Any, level: Any, scales: Sequence[float], bins: int, ratio: int
) -> Any:
    from onnxscript import opset18 as op

    image = op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=7)  # 7: int64
    box = op.Slice(rois, [1], [5], [1])
    pooled, places = [], []
    for number, (one, scale) in enumerate(zip(maps, scales)):
        at = op.Squeeze(
            op.NonZero(op.Equal(level, op.Constant(value_int=number))), op.Constant(value_ints=[0])
        )
        pooled.append(
            op.RoiAlign(
                one,
                op.Gather(box, at, axis=0),
                op.Gather(image, at, axis=0),
                mode='avg',
                coordinate_transformation_mode='half_pixel',
                output_height=bins,
                output_width=bins,
                sampling_ratio=max(ratio, 0),
                spatial_scale=scale,
            )
        )
        places.append(at)
    # The level of each RoI is one: sorted by their places, they are in the old order.
    order = op.Concat(*places, axis=0)
    back = op.ScatterElements(
        order,
        order,
        op.Range(
            op.Constant(value_int=0),
            op.Squeeze(op.Shape(order), op.Constant(value_ints=[0])),
            op.Constant(value_int=1),
        ),
        axis=0,
    )
    return op.Gather(op.Concat(*pooled, axis=0), back, axis=0)
