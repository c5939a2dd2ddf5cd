"""Non-maximum suppression, hard and soft.

Boxes in falling order of score; box i is kept if no kept box before it overlaps it by more than
the threshold:

    keep_i = not any_{j < i} (keep_j and IoU(j, i) > threshold)

The definition is sequential, but a fixed-point iteration from keep = 1 settles at least one more
box per round, and in practice all of them in a few: chains of suppressed suppressors are short.
Blocks bound the size of the IoU matrix, and boxes that fell to an earlier block are not compared
again.  Nothing leaves the device but one bit per round.
"""
import math

import torch
from torch import Tensor

from . import vision
from .rows import working_dtype

BLOCK = 1024


def overlaps(one: Tensor, other: Tensor, offset: int) -> Tensor:
    """IoU of every box of one list with every box of the other, in the order of mmcv's operations.

    Args:
        one: (M, 4) corners.
        other: (N, 4) corners.
        offset: 1 counts pixels, so that a box from 3 to 5 is three wide; 0 measures.

    Returns:
        (M, N); NaN, which exceeds no threshold, where both boxes are empty.
    """
    def area(box: Tensor) -> Tensor:
        return (box[:, 2] - box[:, 0] + offset) * (box[:, 3] - box[:, 1] + offset)

    def shared(low: int, high: int) -> Tensor:
        end = torch.minimum(one[:, None, high], other[None, :, high])
        return end.sub_(torch.maximum(one[:, None, low], other[None, :, low])).add_(offset) \
            .clamp_(min=0)

    both = shared(0, 2).mul_(shared(1, 3))
    return both / (area(one)[:, None] + area(other)[None]).sub_(both)


def greedy(suppresses: Tensor) -> Tensor:
    """Solves the recursion of the module's head inside one block.

    Args:
        suppresses: (N, N) whether box j would suppress box i; only j < i counts.

    Returns:
        (N,) which boxes are kept.
    """
    above = suppresses.triu_(1).float()
    keep = above.new_ones(len(above))
    while True:
        settled = (keep @ above == 0).float()
        if torch.equal(settled, keep):
            return keep.bool()
        keep = settled


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that survive, best score first, as compiled mmcv gives them."""
    if not len(boxes):
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    if offset == 0 and vision.has('nms', boxes):
        return vision.nms(boxes, scores, iou_threshold)
    boxes = boxes.to(working_dtype(boxes.dtype))
    left = torch.sort(scores, descending=True, stable=True)[1]
    kept = []
    while len(left):
        block, left = left[:BLOCK], left[BLOCK:]
        here = boxes[block]
        block = block[greedy(overlaps(here, here, offset) > iou_threshold)]
        kept.append(block)
        if len(left):
            struck = boxes.new_zeros(len(left), dtype=torch.bool)
            for part in torch.arange(len(left), device=left.device).split(8 * BLOCK):
                ious = overlaps(boxes[block], boxes[left[part]], offset)
                struck[part] = (ious > iou_threshold).any(0)
            left = left[~struck]
    return torch.cat(kept)
