"""Cut the objects of an image out of it: ``predict --save-crops``."""

from __future__ import annotations

import re

import numpy as np

MAX_NAME = 80  # characters of a folder's name


def cut_object(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Return the pixels of an image H W 3 that a box x0 y0 x1 y1 touches; None if there are none.

    A box may reach out of the image: what lies outside is left out.
    """
    if not np.isfinite(box).all() or (box[:2] >= box[2:]).any():
        return None
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(box[2:]), 0, (width, height)).astype(int)
    return image[y0:y1, x0:x1] if x0 < x1 and y0 < y1 else None


def name_folder(class_name: str) -> str:
    """Return a folder's name for a class, whose name may be anything: ``a/b`` or ``..``."""
    name = re.sub(r'[^\w .()+-]', '_', class_name).strip(' .')[:MAX_NAME].rstrip(' .')
    return name or '_'
