"""The one matcher: greedy, as COCO pairs detections with objects.

An optimal assignment (``scipy.optimize.linear_sum_assignment``) is another rule: there a detection
of a low score may take an object from one of a high score where that raises the sum of overlaps.
"""

from __future__ import annotations

import numpy as np

from .boxes import box_ious


def greedy_pairs(gains: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pair rows with columns, row by row: each takes the free column of its largest gain.

    Args:
        gains: N M; of equal ones the first column is taken, and what is not a number never is.
        least: the gain from which on a pair is one.

    Returns:
        row and column of each pair, in the order of the rows.
    """
    gains = np.where(gains >= least, gains, -np.inf)
    pairs = []
    for row in np.flatnonzero((gains >= least).any(axis=1)):
        column = int(gains[row].argmax())
        if gains[row, column] >= least:
            pairs.append((int(row), column))
            gains[:, column] = -np.inf
    return pairs


def match_boxes(
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    iou: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the detections of an image with its objects: best score first, each object once.

    Args:
        boxes: of the detections, M 4: x0 y0 x1 y1.
        labels: of the detections, M.
        scores: of the detections, M.
        true_boxes: of the objects, N 4.
        true_labels: of the objects, N.
        iou: the overlap from which on a detection of the right class is right.

    Returns:
        for each detection the position of its object, -1 for none, and the overlap with it.
    """
    partner, overlap = np.full(len(boxes), -1), np.zeros(len(boxes))
    order = np.argsort(-scores, kind='stable')
    overlaps = box_ious(boxes[order], true_boxes)
    same = labels[order][:, None] == true_labels
    for row, column in greedy_pairs(np.where(same, overlaps, -np.inf), iou):
        partner[order[row]], overlap[order[row]] = column, overlaps[row, column]
    return partner, overlap
