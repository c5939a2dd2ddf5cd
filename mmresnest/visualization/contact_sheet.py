"""Contact sheets of annotated images, in the colors and letters of the pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..utils.boxes import IGNORED
from .canvas import (
    class_entries,
    color_entry,
    draw_objects,
    draw_sheet,
    mistake_entry,
    show_image,
    shrink_map,
    shrink_objects,
    tint_labels,
    to_rgb_image,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4


def draw_contact_sheet(
    out: str | os.PathLike,
    images: Sequence[np.ndarray],
    objects: Sequence[Mapping[str, np.ndarray]],
    labels: Sequence[np.ndarray | None],
    classes: Sequence[str],
    heads: Sequence[str],
    title: str,
) -> Path:
    """Draw annotated images side by side.

    Args:
        out: the PNG to write.
        images: H W 3 in RGB, or H W.
        objects: for every image ``boxes`` N 4, ``labels`` N, ``ignored`` N and, if there are any,
            ``masks`` N H W.
        labels: for every image class indices H W, which are laid over it, or None.
        classes: names, in the order of the labels; one named ``background`` is left untinted.
        heads: what stands above each image.
        title: the line above all.

    Returns:
        ``out`` as a path.
    """
    images = [to_rgb_image(image) for image in images]
    used = {int(label) for one in objects for label in one['labels']}
    used |= {int(label) for one in labels if one is not None for label in np.unique(one)}

    def draw_image(number: int, axes: Axes) -> None:
        image, one = shrink_objects(images[number], objects[number])
        label = labels[number]
        if label is not None:
            image = tint_labels(image, shrink_map(label), classes, IGNORED)
        if len(one['labels']):
            draw_objects(axes, image, one, ~one['ignored'], classes, 'ignored', False)
        else:
            show_image(axes, image)
        write_title(axes, heads[number])

    entries = class_entries(sorted(used - {IGNORED}), classes)
    if IGNORED in used:
        entries.append(color_entry('white', 'left out'))
    if any(one['ignored'].any() for one in objects):
        entries.append(mistake_entry('ignored'))
    groups = min(COLUMNS, len(images))
    return draw_sheet(out, images, ('annotations',), entries, title, draw_image, groups)
