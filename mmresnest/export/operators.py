"""The two steps of detection that torch has no operator for: NMS, and RoIAlign.

    nms_keep(boxes R N 4, scores R N, iou_threshold)                -> R N, whether a box is kept
    roi_align_levels(maps, rois N 5, level N, scales, bins, ratio)  -> N C bins bins

Both are operators of torch here, which the exporter writes as ONNX's ``NonMaxSuppression`` and
``RoiAlign``; OpenVINO has these too. Rows with score 0 hold no box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

if not hasattr(torch.library, 'custom_op'):  # the decorators below would fail
    raise UserError(
        f'export takes torch 2.6 or newer, and this is {torch.__version__}; update it',
        code='package.too-old',
    )


@dataclass(frozen=True)
class DetectionOperators:
    """The operators that a graph calls; see the module.

    Attributes:
        nms_keep: of greedy NMS.
        roi_align_levels: of RoIAlign on the levels of a pyramid.
    """

    nms_keep: Callable[[Tensor, Tensor, float], Tensor]
    roi_align_levels: Callable[[list[Tensor], Tensor, Tensor, Sequence[float], int, int], Tensor]


@torch.library.custom_op('mmresnest::nms_keep', mutates_args=())
def nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Tell which boxes greedy NMS keeps, in each row separately."""
    from mmcv.ops import nms

    left = scores.new_zeros(scores.shape, dtype=torch.bool)
    for row in scores.sum(1).nonzero()[:, 0].tolist():
        at = scores[row].nonzero()[:, 0]
        _, chosen = nms(boxes[row, at], scores[row, at], iou_threshold)
        left[row, at[chosen]] = True
    return left


@nms_keep.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


@torch.library.custom_op('mmresnest::roi_align_levels', mutates_args=())
def roi_align_levels(
    maps: list[Tensor], rois: Tensor, level: Tensor, scales: list[float], bins: int, ratio: int
) -> Tensor:
    """Pool each RoI on its level by RoIAlign."""
    from mmcv.ops import roi_align

    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], bins, bins)
    for number, (one, scale) in enumerate(zip(maps, scales)):
        at = (level == number).nonzero()[:, 0]
        if len(at):
            pooled[at] = roi_align(one, rois[at], (bins, bins), scale, ratio, 'avg', True)
    return pooled


@roi_align_levels.register_fake
def _(
    maps: list[Tensor], rois: Tensor, level: Tensor, scales: list[float], bins: int, ratio: int
) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], bins, bins)


NATIVE = DetectionOperators(nms_keep, roi_align_levels)


def onnx_translations() -> dict[Any, Callable]:
    """Return operator -> the function that writes it in ONNX."""
    return {
        torch.ops.mmresnest.nms_keep.default: _write_nms,
        torch.ops.mmresnest.roi_align_levels.default: _write_roi_align,
    }


def _write_nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    from onnxscript import opset18 as op

    unlimited = op.Constant(value_ints=[2**31 - 1])
    found = op.NonMaxSuppression(  # M 3: row, 0, box
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        unlimited,
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),
    )
    place = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(
        op.Constant(value_floats=[1.0]),
        op.Slice(op.Shape(found), op.Constant(value_ints=[0]), op.Constant(value_ints=[1])),
    )
    return op.Cast(op.ScatterND(op.Mul(scores, 0.0), place, ones), to=9)  # 9: bool


def _write_roi_align(
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
    # Each RoI is on one level, so the indices of all levels are a permutation: it is inverted.
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
