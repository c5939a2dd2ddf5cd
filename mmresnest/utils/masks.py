"""Masks as COCO stores them: polygons and run lengths, through pycocotools.

pycocotools reads run lengths in C and believes them: those of a file that nobody has checked go
through :mod:`mmresnest.data.checks.masks` first, which unpacks them in Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask H W in COCO's compressed run lengths, as json can hold them."""
    from pycocotools import mask as coco

    return rle_to_json(coco.encode(np.asfortranarray(mask, np.uint8)))


def rle_to_json(rle: Any) -> Any:
    """Return run lengths as json can hold them: pycocotools leaves bytes, other masks pass."""
    if isinstance(rle, dict) and isinstance(rle['counts'], bytes):
        return dict(size=[int(side) for side in rle['size']], counts=rle['counts'].decode('ascii'))
    return rle


def measure_rle(rle: Any) -> int:
    """Return the number of pixels of compressed run lengths."""
    from pycocotools import mask as coco

    return int(coco.area(rle))


def count_runs(mask: np.ndarray) -> list[int]:
    """Return COCO's uncompressed run lengths: columns first, starting with a run of zeros."""
    flat = mask.ravel(order='F')
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0] + runs if flat[0] else runs


def turn_box(box: Sequence[float], degrees: float) -> list[float]:
    """Return the corners x0 y0 x1 y1 ... of a box x, y, width, height, turned about its center.

    Args:
        box: in pixels.
        degrees: clockwise in the image, as CVAT writes them.
    """
    x, y, width, height = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [
        value
        for right, down in ((i * width / 2, j * height / 2) for i, j in corners)
        for value in (
            x + width / 2 + right * cos - down * sin,
            y + height / 2 + right * sin + down * cos,
        )
    ]


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return a mask H W, bool, from COCO's polygons or run lengths."""
    from pycocotools import mask as coco

    if isinstance(segmentation, list):
        rle = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        rle = coco.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return coco.decode(rle).astype(bool)
