"""Contact sheets of annotated images, in the colours and letters of the pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.boxes import IGNORED, class_name, is_ground
from .canvas import (
    Grid,
    as_picture,
    class_colour,
    draw_objects,
    draw_seam,
    save_figure,
    show_image,
    tint_labels,
    write_head,
)

COLUMNS = 4


def contact_sheet(
    out: str | os.PathLike,
    images: Sequence[np.ndarray],
    objects: Sequence[Mapping[str, np.ndarray]],
    labels: Sequence[np.ndarray | None],
    classes: Sequence[str],
    heads: Sequence[str],
    title: str,
) -> Path:
    """Draws annotated images side by side.

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
    images = [as_picture(image) for image in images]
    used = {int(label) for one in objects for label in one['labels']}
    used |= {int(label) for one in labels if one is not None for label in np.unique(one)}
    crowds = any(one['ignored'].any() for one in objects)
    entries = _entries(used, classes, crowds)
    grid = Grid(images, ('annotations',), len(entries), title, min(COLUMNS, len(images)))
    for image, one, label, head, (axes,) in zip(images, objects, labels, heads, grid.axes):
        if label is not None:
            image = tint_labels(image, label, classes, IGNORED)
        if len(one['labels']):
            draw_objects(axes, image, one, ~one['ignored'], classes, 'ignored', False)
        else:
            show_image(axes, image)
        write_head(axes, head)
    grid.legend(entries)
    return save_figure(grid.figure, out)


def _entries(used: set[int], classes: Sequence[str], crowds: bool) -> list[tuple[Any, str]]:
    """Artist and text of every line of the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found: list[tuple[Any, str]] = []
    for label in sorted(used - {IGNORED}):
        ground = is_ground(classes, label)
        colour = 'white' if ground else class_colour(label)
        found.append(
            (
                Patch(facecolor=colour, edgecolor='black', linewidth=0.6),
                class_name(classes, label) + (' (untinted)' if ground else ''),
            )
        )
    if IGNORED in used:
        found.append((Patch(facecolor='white', edgecolor='black', linewidth=0.6), 'left out'))
    if crowds:
        line = Line2D([], [], color='black', linestyle=(0, (3, 2)), linewidth=1.7)
        line.set_path_effects(draw_seam())
        found.append((line, 'ignored'))
    return found
