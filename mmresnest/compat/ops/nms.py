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
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from . import torchvision
from .sparse import working_dtype

# Boxes settled at a time, and boxes compared with them at a time. On the CPU the matrices of a step
# stay in the cache of one core; elsewhere few large steps are better.
BLOCK, TILE = 256, 512
ELSEWHERE = 2048, 8192


def compute_ious(one: Tensor, other: Tensor, offset: int) -> Tensor:
    """Return the IoU of all pairs of two lists of boxes, in the order of mmcv's operations.

    Args:
        one: (M, 4) corners.
        other: (N, 4) corners.
        offset: 1 counts pixels, so that a box from 3 to 5 is three wide; 0 measures.

    Returns:
        (M, N); NaN, which exceeds no threshold, where both boxes are empty.
    """

    def area(box: Tensor) -> Tensor:
        return (box[:, 2] - box[:, 0] + offset) * (box[:, 3] - box[:, 1] + offset)

    def overlap(low: int, high: int) -> Tensor:
        end = torch.minimum(one[:, None, high], other[None, :, high])
        return (
            end.sub_(torch.maximum(one[:, None, low], other[None, :, low]))
            .add_(offset)
            .clamp_(min=0)
        )

    both = overlap(0, 2).mul_(overlap(1, 3))
    return both / (area(one)[:, None] + area(other)[None]).sub_(both)


def solve_suppression(suppresses: Tensor) -> Tensor:
    """Solve the recursion of the module's head inside one block.

    Args:
        suppresses: (N, N) whether box j would suppress box i; only j < i counts.

    Returns:
        (N,) which boxes are kept.
    """
    above = suppresses.float().triu_(1)
    keep = above.new_ones(len(above))
    while True:
        settled = (keep @ above == 0).float()
        if torch.equal(settled, keep):
            return keep.bool()
        keep = settled


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes kept, best score first, as compiled mmcv does."""
    if not len(boxes):
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    order = scores.sort(0, descending=True)[1]  # mmcv's own call, since it decides between ties
    boxes = boxes.detach().to(working_dtype(boxes.dtype))[order]
    if offset == 0 and torchvision.can_run('nms', boxes):
        return order[torchvision.nms(boxes, iou_threshold)]
    # Below zero even boxes that share nothing suppress each other.
    if boxes.device.type != 'cpu' or iou_threshold < 0:
        return order[keep_indices(boxes, iou_threshold, offset)]
    keep = torch.zeros(len(order), dtype=torch.bool)
    for group in split_by_gaps(boxes, offset):
        keep[group[keep_indices(boxes[group], iou_threshold, offset)]] = True
    return order[keep]


def split_by_gaps(boxes: Tensor, offset: int) -> Iterator[Tensor]:
    """Cut boxes into groups that share nothing, at gaps along x, and joins small neighbors.

    mmcv keeps classes and levels apart by shifting each by more than the image is wide; found
    again here, five levels cost a fifth of the comparisons.

    Yields:
        positions in ``boxes``, rising.
    """
    start, position = boxes[:, 0].sort()
    reach = boxes[position, 2].cummax(0)[0]
    gap = reach[:-1] - start[1:] + offset <= 0
    ends = [*(gap.nonzero()[:, 0] + 1).tolist(), len(boxes)]
    first = 0
    for end, following in zip(ends, [*ends[1:], math.inf], strict=True):
        if following - first > BLOCK:
            yield position[first:end].sort()[0]
            first = end


def keep_indices(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the positions of the boxes kept, of boxes in falling order of score."""
    settled, compared = (BLOCK, TILE) if boxes.device.type == 'cpu' else ELSEWHERE
    left = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(left):
        block, left = left[:settled], left[settled:]
        here = boxes[block]
        alive = solve_suppression(compute_ious(here, here, offset) > iou_threshold)
        kept.append(block[alive])
        if len(left):
            here, rest = here[alive], boxes[left]
            left = torch.cat(
                [
                    part[~(compute_ious(here, some, offset) > iou_threshold).any(0)]
                    for part, some in zip(left.split(compared), rest.split(compared), strict=True)
                ]
            )
    return torch.cat(kept)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one: soft NMS (Bodla et al., 2017).

    Each choice depends on all before it, so this runs box by box, with the rest as one array; on
    the CPU, where mmcv calls it.  The array is kept in the order in which compiled mmcv keeps it,
    which decides between equal scores.

    Args:
        boxes: (N, 4) corners.
        scores: (N,).
        dets: (N, 5), overwritten from the top by the boxes chosen and their lowered scores.
        iou_threshold: overlap from which methods 0 and 1 act.
        sigma: breadth of method 2.
        min_score: boxes below this are dropped.
        method: 0 drops overlapping boxes, 1 multiplies by 1 - IoU, 2 by exp(-IoU²/σ).
        offset: as in ``nms``.

    Returns:
        the indices of the boxes chosen, in order.
    """
    if not len(boxes):
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    dtype = working_dtype(boxes.dtype)
    x1, y1, x2, y2, score = (
        torch.cat([boxes, scores[:, None]], 1).to(dtype).detach().t().contiguous().cpu().numpy()
    )
    state = np.stack([x1, y1, x2, y2, score, (x2 - x1 + offset) * (y2 - y1 + offset)])  # 6 N
    index = np.arange(len(x1))
    here = 0
    while here < state.shape[1]:
        best = here + int(state[4, here:].argmax())
        here_best, best_here = np.array([here, best]), np.array([best, here])
        state[:, here_best], index[here_best] = state[:, best_here], index[best_here]
        one, rest = state[:, here], state[:, here + 1 :]
        width = np.minimum(one[2], rest[2]) - np.maximum(one[0], rest[0]) + offset
        height = np.minimum(one[3], rest[3]) - np.maximum(one[1], rest[1]) + offset
        both = width.clip(min=0) * height.clip(min=0)
        with np.errstate(invalid='ignore', divide='ignore'):
            iou = both / (one[5] + rest[5] - both)
        if method == 2:
            rest[4] *= np.exp(-(iou * iou) / state.dtype.type(sigma))
        else:
            acts = iou >= state.dtype.type(iou_threshold)
            rest[4, acts] *= 0 if method == 0 else 1 - iou[acts]
        left = _without(rest[4] < state.dtype.type(min_score)) + here + 1
        order = np.concatenate([np.arange(here + 1), left])
        if len(order) < state.shape[1]:
            state, index = state[:, order], index[order]
        here += 1
    dets[: len(index)] = torch.from_numpy(state[:5].T.copy()).to(dets)
    return torch.from_numpy(index).to(boxes.device)


def _without(drop: np.ndarray) -> np.ndarray:
    """Return the positions left when each dropped one is overwritten by the last one left."""
    keep = np.flatnonzero(~drop)
    order = np.arange(len(keep))
    holes = np.flatnonzero(drop[: len(keep)])
    order[holes] = keep[::-1][: len(holes)]
    return order
