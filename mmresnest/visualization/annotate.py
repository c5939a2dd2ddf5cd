"""An image with what a model says of it drawn on it, in the colors and letters of ``pictures``.

Lines and letters grow with the image, so that a photo of 12 megapixels is read as easily as one of
a phone's screen; a small image is drawn larger, since letters take room, and a vast one smaller.
Both sides come out even: most video codecs take no others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils.boxes import class_name, is_background, objects_above
from .canvas import (
    BoxStyle,
    box_style,
    draw_objects,
    new_figure,
    region_borders,
    show_image,
    shrink_map,
    shrink_objects,
    tint_labels,
    to_rgb_image,
    write_plate,
)

LEAST, MOST = 640, 4096  # pixels of the longer side
WIDE = 5.5  # inches of the longer side, by which letters of 6.5 points are scaled
ROOM = 0.02  # of the longer side: where no place is as wide, no name is written
VOID = -1  # the label of pixels of which nothing is said


def annotate_objects(
    image: np.ndarray, objects: Mapping[str, Any], classes: Sequence[str]
) -> np.ndarray:
    """Draw boxes, names and scores, and masks where there are any.

    Args:
        image: H W 3 in RGB, or H W.
        objects: ``boxes`` N 4, ``labels`` N, ``scores`` N and perhaps ``masks`` N H W, and ``ids``
            N of objects that are followed, from 1; -1 of the others.
        classes: names, in the order of the labels.

    Returns:
        the picture, H' W' 3 in RGB.
    """
    figure, axes = _image_canvas(image)
    kept = objects_above(objects, -np.inf)
    image, kept = shrink_objects(image, kept, MOST)
    height, width = image.shape[:2]
    # Of a model that learned nothing, boxes may be larger than can be drawn.
    kept['boxes'] = np.nan_to_num(kept['boxes']).clip(0, (width, height, width, height))
    draw_objects(
        axes, to_rgb_image(image), kept, np.ones(len(kept['labels']), bool), classes, '', True
    )
    return _render_pixels(figure)


def annotate_regions(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], regions: np.ndarray | None = None
) -> np.ndarray:
    """Tint an image by class, and write the name of each region into its widest place.

    Args:
        image: H W 3 in RGB, or H W.
        labels: class indices H W; nothing is said where they are -1.
        classes: names, in the order of the indices; one named ``background`` is left untinted.
        regions: numbers H W of regions that are told apart, such as two cats that touch; by default
            each class is one.

    Returns:
        the picture, H' W' 3 in RGB.
    """
    figure, axes = _image_canvas(image)
    regions = labels if regions is None else regions
    image, labels, regions = (shrink_map(array, MOST) for array in (image, labels, regions))
    image = to_rgb_image(image)
    tinted = tint_labels(image, labels, classes, VOID)
    edges = region_borders(labels)
    tinted[(labels == VOID) & ~edges] = image[(labels == VOID) & ~edges]
    tinted[region_borders(regions) & ~edges] //= 3
    show_image(axes, tinted)
    for region in np.unique(regions):
        where = regions == region
        label = int(labels[where][0])
        if label != VOID and not is_background(classes, label):
            _write_region_name(axes, where, class_name(classes, label), box_style(label, False))
    return _render_pixels(figure)


def _write_region_name(axes: Any, where: np.ndarray, name: str, style: BoxStyle) -> None:
    """Write a name into each part of a region, at the point that is farthest from its edge."""
    import cv2

    around = np.pad(where, 1).astype(np.uint8)  # the edge of the image is an edge
    distances = cv2.distanceTransform(around, cv2.DIST_L2, 3)[1:-1, 1:-1]
    _, parts = cv2.connectedComponents(where.astype(np.uint8))
    for part in np.unique(parts[distances >= ROOM * max(where.shape)]):
        y, x = np.unravel_index(int(np.argmax(distances * (parts == part))), where.shape)
        write_plate(axes, x + 0.5, y + 0.5, name, style, ha='center', va='center')


def _image_canvas(image: np.ndarray) -> tuple[Any, Any]:
    """Return a figure of the image's shape with axes over all of it."""
    height, width = image.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, LEAST), MOST) / longer
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    figure = new_figure(1, 1)
    figure.set_dpi(max(height, width) / WIDE)
    # A tenth of a pixel more, since matplotlib cuts the rest off.
    figure.set_size_inches((width + 0.1) / figure.dpi, (height + 0.1) / figure.dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def _render_pixels(figure: Any) -> np.ndarray:
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as empty boxes; that is no reason to stop.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        for axes in figure.axes:  # a pixel may be a thousandth wider than it is high
            axes.set_aspect('auto')
        figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[:, :, :3])
