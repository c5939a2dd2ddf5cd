"""Check the arrays that an exported file gives, before anything is computed from them.

A file may be damaged, or come from a stranger: arrays of other shapes would end in an error of
numpy or, worse, in results that are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .images import BadImage

MAX_OBJECTS = 10_000
MAX_MASK_SIDE = 1024
MAX_BYTES = 2**34
"""Of all masks, or all logits, of an image: those of a hundred objects on 160 megapixels."""
MAX_WINDOWS = 4096
"""Of an image: those of mmseg's configs are 1,200 on 134 megapixels."""
MAX_LABEL = 2**16 - 1
"""The largest class of a file that does not name its classes: a label image has 16 bits."""


def check_objects(
    found: Sequence[np.ndarray], batch: Sequence[int], classes: int, task: str
) -> str:
    """Return what is wrong with the outputs of a detector; empty if nothing is.

    Args:
        found: boxes B K 4, scores B K, labels B K, and of masks B K M M.
        batch: B 3 H W of the input.
        classes: how many the file names; 0 if it does not.
        task: ``detection`` or ``instance``.
    """
    expected = 4 if task == 'instance' else 3
    if len(found) != expected:
        return f'has {len(found)} outputs, and one for {task} has {expected}'
    boxes, scores, labels = found[:3]
    number = scores.shape[1] if scores.ndim == 2 else -1
    shapes = [(batch[0], number, 4), (batch[0], number), (batch[0], number)]
    if [array.shape for array in found[:3]] != shapes or number > MAX_OBJECTS:
        return f'gives boxes, scores and labels {_format_shapes(found[:3])}'
    if boxes.dtype.kind != 'f' or scores.dtype.kind != 'f' or labels.dtype.kind not in 'iu':
        return f'gives boxes, scores and labels of {_format_dtypes(found[:3])}'
    kept = labels >= 0
    if not (np.isfinite(boxes[kept]).all() and np.isfinite(scores[kept]).all()):
        return 'gives boxes or scores that are not finite numbers'
    if (labels > _largest_label(classes)).any():
        return f'gives class {labels.max()}, and names {classes} classes'
    if task == 'instance':
        masks = found[3]
        side = masks.shape[-1]
        if masks.shape != (batch[0], number, side, side) or not 0 < side <= MAX_MASK_SIDE:
            return f'gives masks {_format_shapes([masks])}'
        if masks.dtype.kind != 'f':
            return f'gives masks of {masks.dtype}'
    return ''


def check_segmentation(
    found: Sequence[np.ndarray], batch: Sequence[int], classes: int, task: str
) -> str:
    """Return what is wrong with the outputs of a segmentor; empty if nothing is.

    Args:
        found: logits B C H W, labels B H W.
        batch: B 3 H W of the input.
        classes: how many the file names; 0 if it does not.
        task: ``semantic``.
    """
    if len(found) != 2:
        return f'has {len(found)} outputs, and one for {task} has 2'
    logits, labels = found
    channels = logits.shape[1] if logits.ndim == 4 else 0
    size = tuple(batch[2:])
    if logits.shape != (batch[0], channels, *size) or labels.shape != (batch[0], *size):
        return f'gives logits and labels {_format_shapes(found)} for an image of {size}'
    if not channels or (classes and channels != classes):
        return f'gives logits of {channels} classes, and names {classes}'
    if logits.dtype.kind != 'f' or labels.dtype.kind not in 'iu':
        return f'gives logits and labels of {_format_dtypes(found)}'
    if labels.min() < 0 or labels.max() > _largest_label(channels):
        return f'gives classes {labels.min()} to {labels.max()}, and has {channels} classes'
    return ''


def check_memory(what: str, number: int, size: Sequence[int], item: int = 1) -> None:
    """Refuse to hold arrays of the size of an image that no memory has room for.

    Args:
        what: how messages call the arrays.
        number: of the arrays.
        size: of the image.
        item: bytes of a pixel.

    Raises:
        BadImage: they are too large.
    """
    needed = number * size[0] * size[1] * item
    if needed > MAX_BYTES:
        raise BadImage(
            'the image',
            f'it is {size[1]} x {size[0]} pixels, and its {number} {what} take '
            f'{needed / 2**30:.0f} GiB; scale it down, or cut it into tiles',
            code='image.too-large',
        )


def _largest_label(classes: int) -> int:
    return classes - 1 if classes else MAX_LABEL


def _format_shapes(arrays: Sequence[np.ndarray]) -> str:
    return 'of ' + ', '.join('x'.join(map(str, array.shape)) or 'no shape' for array in arrays)


def _format_dtypes(arrays: Sequence[np.ndarray]) -> str:
    return ', '.join(str(array.dtype) for array in arrays)
