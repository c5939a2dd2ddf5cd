"""What the heads of a detector share: decoding of boxes, and the settings of their test_cfg."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError


class DeltaXYWHCoder(nn.Module):
    """Move and scale boxes by (dx, dy, dw, dh) (Girshick et al., R-CNN, 2014, appendix C).

    Args:
        coder: a ``DeltaXYWHBBoxCoder``.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, coder: Any) -> None:
        super().__init__()
        if type(coder).__name__ != 'DeltaXYWHBBoxCoder':
            raise unsupported_error(coder, 'DeltaXYWHBBoxCoder')
        self.register_buffer('means', torch.tensor(coder.means, dtype=torch.float32))
        self.register_buffer('stds', torch.tensor(coder.stds, dtype=torch.float32))
        self.clips, self.clamps = bool(coder.clip_border), bool(coder.add_ctr_clamp)
        self.clamp = float(coder.ctr_clamp)

    def forward(self, boxes: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
        """Decode boxes and deltas B ... 4, on images of sizes B ... 2, into boxes B ... 4.

        The sizes have one axis less than the boxes.
        """
        deltas = deltas * self.stds + self.means
        center = (boxes[..., :2] + boxes[..., 2:]) * 0.5
        sides = boxes[..., 2:] - boxes[..., :2]
        move, grow = sides * deltas[..., :2], deltas[..., 2:]
        limit = abs(math.log(16 / 1000))  # mmdet's wh_ratio_clip
        if self.clamps:
            move, grow = move.clamp(-self.clamp, self.clamp), grow.clamp(max=limit)
        else:
            grow = grow.clamp(-limit, limit)
        center, half = center + move, sides * grow.exp() * 0.5
        result = torch.cat([center - half, center + half], -1)
        if self.clips:
            border = size.to(result.dtype).flip(-1)
            border = torch.cat([border, border], -1)[..., None, :]
            result = torch.minimum(result.clamp(min=0), border)
        return result


def topk_by_score(
    boxes: Tensor, scores: Tensor, number: int, labels: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return the best ``number`` of B N objects, always so many.

    Rows that hold no object have a box of zeros, score 0 and label -1.
    """
    spare = max(0, number - scores.shape[1]) if isinstance(scores.shape[1], int) else number
    best, index = F.pad(scores, (0, spare)).topk(number, 1)
    index = index.clamp(max=scores.shape[1] - 1)
    is_object = best > 0
    boxes = boxes.gather(1, index[:, :, None].expand(-1, -1, 4))
    boxes = torch.where(is_object[:, :, None], boxes, 0.0)
    if labels is None:
        return boxes, best
    return boxes, best, torch.where(is_object, labels.gather(1, index), -1)


def nms_iou_threshold(settings: Mapping) -> float:
    """Return the IoU above which NMS drops the worse of two boxes.

    Raises:
        UserError: the settings ask for something else than plain NMS.
    """
    nms = dict(settings['nms'])
    kind, threshold = nms.pop('type', 'nms'), nms.pop('iou_threshold', None)
    nms.pop('split_thr', None)  # how mmcv saves memory
    if kind != 'nms' or threshold is None or any(nms.values()):
        raise UserError(
            f'the test_cfg has nms={dict(settings["nms"])}, and exported files '
            "know dict(type='nms', iou_threshold=...) only; set that and test with it, as "
            'it changes scores, or export --part neck',
            code='export.unknown-part',
        )
    return float(threshold)


def max_per_img(settings: Mapping) -> int:
    """Return how many objects of an image are kept.

    Raises:
        UserError: there is no limit, and a file has a fixed number of rows.
    """
    number = int(settings['max_per_img'])
    if number < 1:
        raise UserError(
            f'max_per_img={number} keeps any number of objects, and an exported file has '
            'room for a fixed number; set it, to 100 as is usual',
            code='export.unknown-part',
        )
    return number


def overrides_prediction(head: Any, module: str, base: str, names: Sequence[str]) -> bool:
    """Tell whether a head overrides methods of prediction of the class that is known here."""
    known = getattr(import_module(module), base)
    return any(getattr(type(head), name, None) is not getattr(known, name) for name in names)


def unsupported_error(found: Any, legal: str) -> UserError:
    """Return the error for a part of a model that is not known here."""
    return UserError(
        f'a whole model cannot be exported with {type(found).__name__}; known here: '
        f'{legal}. Export --part neck or backbone, whose maps your code takes on',
        code='export.unknown-part',
    )
