"""Write the objects of an image as YOLO has them: a line for each, in shares of the image.

::

    class x_center y_center width height [score]    of a detector
    class x0 y0 x1 y1 x2 y2 ... [score]             of a model with masks: the outline of the
                                                    largest part
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .results import Detections

DIGITS = 6  # of a share: a hundredth of a pixel of an image of ten thousand


def format_yolo_lines(found: Detections, with_scores: bool) -> str:
    """Return the lines of an image, best score first; objects outside of it have none.

    Args:
        found: its objects.
        with_scores: end each line with the score.
    """
    lines = []
    for number, label in enumerate(found.labels):
        box = clip_box(found.boxes[number], found.size)
        if box is None:
            continue
        mask = None if found.masks is None else found.masks[number]
        words = [str(int(label))]
        words += _format_shares(_find_shape(box, mask), found.size)
        if with_scores:
            words.append(f'{found.scores[number]:.{DIGITS}g}')
        lines.append(' '.join(words) + '\n')
    return ''.join(lines)


def clip_box(box: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Return the part of a box x0 y0 x1 y1 within an image; None if there is none."""
    height, width = size
    clipped = np.clip(box, 0, (width, height, width, height))
    ok = np.isfinite(box).all() and clipped[0] < clipped[2] and clipped[1] < clipped[3]
    return clipped if ok else None


def _find_shape(box: np.ndarray, mask: np.ndarray | None) -> list[float]:
    """Return center and sides of a box, or the corners of the outline of its mask."""
    x0, y0, x1, y1 = box.tolist()
    if mask is None:
        return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    outline = _find_outline(mask)
    if len(outline) < 3:  # of a line of pixels, or of none
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    return outline.reshape(-1).tolist()


def _find_outline(mask: np.ndarray) -> np.ndarray:
    """Return the outline N 2 of the largest part of a mask, along the edges of its pixels."""
    import cv2

    # OpenCV goes through the middles of pixels. At twice the size pixel p is 2 p and 2 p + 1: of an
    # edge before it the outline has the one, which stands for p, of one behind it the other, p + 1.
    twice = np.repeat(np.repeat(mask.astype(np.uint8), 2, 0), 2, 1)
    outlines, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        return np.zeros((0, 2))
    largest = max(outlines, key=cv2.contourArea)
    return (largest.reshape(-1, 2) + 1) // 2


def _format_shares(pixels: Iterable[float], size: tuple[int, int]) -> list[str]:
    """Return numbers that are x and y in turn as shares of width and height."""
    return [
        f'{min(max(value / size[1 - at % 2], 0), 1):.{DIGITS}f}' for at, value in enumerate(pixels)
    ]
