"""Scale an image into an exported file's input, and the file's outputs back to the image.

As mmcv, mmdet and mmseg do it: the formats of the files round interpolated pixels to 8 bits
otherwise than OpenCV, with which the network was trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def scaled_size(original: tuple[int, int], metadata: Mapping) -> tuple[int, int]:
    """Return the height and width that an image is scaled to.

    First by mmcv's ``Resize``, then down to the file's input if that is fixed and smaller.
    """
    rule, form = metadata['resize'], metadata['input']
    height, width = original
    if rule is not None and not rule['keep_ratio']:
        width, height = rule['scale']
    elif rule is not None:
        long, short = max(rule['scale']), min(rule['scale'])
        scale = min(long / max(original), short / min(original))
        height, width = int(original[0] * scale + 0.5), int(original[1] * scale + 0.5)
    if (
        form['height'] is None
        or metadata['window'] is not None
        or (height <= form['height'] and width <= form['width'])
    ):
        return height, width
    scale = min(form['height'] / original[0], form['width'] / original[1])
    return (
        min(form['height'], int(original[0] * scale + 0.5)),
        min(form['width'], int(original[1] * scale + 0.5)),
    )


def padded_size(size: tuple[int, ...], form: Mapping) -> tuple[int, int]:
    """Return the height and width of the file's input for an image of a size."""
    if form['height'] is not None:
        return form['height'], form['width']
    height, width = (-(-side // form['divisor']) * form['divisor'] for side in size)
    return max(height, form['least']), max(width, form['least'])


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image H W 3 as mmcv does."""
    import cv2

    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def window_starts(length: int, side: int, stride: int) -> list[int]:
    """Return where windows begin along an axis; the last ends where the axis does."""
    number = max(length - side + stride - 1, 0) // stride + 1
    return [min(place * stride, length - side) for place in range(number)]


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Paste masks N M M into their boxes N 4 by bilinear interpolation: N H W, bool."""
    result = np.zeros((len(masks), *size), bool)
    for out, mask, box in zip(result, masks, boxes):
        first = np.clip(np.floor(box[:2]).astype(int) - 1, 0, None)
        last = np.clip(np.ceil(box[2:]).astype(int) + 1, 0, size[::-1])
        x, y = (
            _cell_weights(first[axis], last[axis], box[axis], box[axis + 2], mask.shape[1 - axis])
            for axis in (0, 1)
        )
        out[first[1] : last[1], first[0] : last[0]] = y @ mask @ x.T >= threshold
    return result


def _cell_weights(first: int, last: int, low: float, high: float, cells: int) -> np.ndarray:
    """Return the weight of each cell of a mask in each pixel along one axis: pixels x cells.

    Args:
        first: the first pixel.
        last: the one behind the last.
        low: where the box begins.
        high: where the box ends.
        cells: of the mask.
    """
    pixel = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        place = (pixel - low) / (high - low) * cells - np.float32(0.5)
    # In a box of width 0 all pixels lie in the middle, as mmdet has it.
    place = np.where(np.isinf(place), (cells - 1) / 2, place)
    return np.maximum(0, 1 - abs(place[:, None] - np.arange(cells, dtype=np.float32)))


def best_classes(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Return the class of each pixel of an image of another size, from logits C H W.

    One class at a time, so that the logits at full size are never held.
    """
    best = np.full(size, -np.inf, np.float32)
    labels = np.zeros(size, np.int64)
    y, x = (_sample_positions(of, to, align_corners) for of, to in zip(logits.shape[1:], size))
    for label, plane in enumerate(logits):
        value = _interpolate_plane(plane, y, x)
        higher = value > best
        labels[higher], best[higher] = label, value[higher]
    return labels


def resize_logits(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Scale logits C H W to an image of another size, as torch does."""
    if logits.shape[1:] == size:
        return logits
    y, x = (_sample_positions(of, to, align_corners) for of, to in zip(logits.shape[1:], size))
    return np.stack([_interpolate_plane(plane, y, x) for plane in logits])


def _sample_positions(cells: int, pixels: int, align_corners: bool) -> tuple[np.ndarray, ...]:
    """Return the two cells around each pixel, and the weight of the second."""
    pixel = np.arange(pixels, dtype=np.float32)
    if align_corners:
        place = pixel * np.float32((cells - 1) / max(pixels - 1, 1))
    else:
        place = (pixel + np.float32(0.5)) * np.float32(cells / pixels) - np.float32(0.5)
    place = np.maximum(place, 0)
    lower = np.minimum(place.astype(np.int64), cells - 1)
    return lower, np.minimum(lower + 1, cells - 1), (place - lower).astype(np.float32)


def _interpolate_plane(
    plane: np.ndarray, y: tuple[np.ndarray, ...], x: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Interpolate H W to H' W' as torch does."""
    along = plane[:, x[0]] * (1 - x[2]) + plane[:, x[1]] * x[2]
    return along[y[0]] * (1 - y[2])[:, None] + along[y[1]] * y[2][:, None]
