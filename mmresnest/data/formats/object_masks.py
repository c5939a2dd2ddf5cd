"""A mask image for each object: white where it is, black elsewhere.

::

    ID/images/ID.png    ID/masks/*.png     a folder for each image, as in Data Science Bowl 2018
    images/a.jpg        masks/a/*.png      a folder of masks for each image

both also in folders of splits. There is one class, ``object``; an image has no objects where its
folder of masks is empty, and is left out where there is none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..base import MASK_SUFFIXES, is_hidden, list_files
from ..checks.images import map_files
from .base import (
    WHOLE,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    check_sizes,
    find_split_folders,
    list_images,
    make_data,
    make_mask_thing,
    note_left_out,
)

NAME = 'object'
_LOOKED_AT = 20

Sample = tuple[Path, Sequence[Path]]
"""An image and the masks of its objects."""


def compare_object_masks(root: Path) -> Likeness:
    """Say how far a folder looks like images with a mask for each object."""
    for place in (*find_split_folders(root).values(), root):
        samples = list(islice(_list_samples(place), _LOOKED_AT))
        shown = next((masks[0].parent.relative_to(root) for _, masks in samples if masks), None)
        if shown and ((place / 'masks').is_dir() or _has_single_images(samples)):
            return Likeness(f'{shown}/, the masks of the objects of an image')
    return Likeness()


def _has_single_images(samples: Sequence[Sample]) -> bool:
    """Return whether folders are of one image each, and not all of those have one mask."""
    shared = Counter(image.parent for image, _ in samples)
    return max(shared.values()) == 1 and any(len(masks) > 1 for _, masks in samples)


def _list_samples(place: Path) -> Iterator[Sample]:
    """Yield the images of a folder with the masks of their objects."""
    images, masks = place / 'images', place / 'masks'
    if images.is_dir() and masks.is_dir():
        with os.scandir(masks) as entries:
            has_folders = any(entry.is_dir() for entry in entries)
        for image in list_images(images) if has_folders else ():
            folder = masks / image.relative_to(images).with_suffix('')
            if folder.is_dir():
                yield image, _list_masks(folder)
        return
    for folder in sorted(path for path in place.iterdir() if path.is_dir()):
        inner = folder / 'images', folder / 'masks'
        if all(path.is_dir() for path in inner) and not is_hidden(folder.name):
            for image in list_images(inner[0]):
                yield image, _list_masks(inner[1])


def _list_masks(folder: Path) -> list[Path]:
    return [folder / name for name in list_files(folder, MASK_SUFFIXES)]


def read_object_masks(root: Path) -> ObjectData:
    """Read images with a mask for each object.

    Raises:
        UserError: a mask that cannot be read, is empty, holds more than two values, or has another
            size than its image; two images for the same masks.
    """
    places = {
        split: folder
        for split, folder in find_split_folders(root).items()
        if any(masks for _, masks in _list_samples(folder))
    } or {WHOLE: root}
    splits = {}
    for split, place in places.items():
        samples = list(_list_samples(place))
        _refuse_shared_masks(samples)
        count = sum(len(masks) for _, masks in samples)
        rows = map_files(_read_picture, samples, f'reading {count} masks')
        splits[split] = list(check_sizes(rows))
    images = [
        image
        for place in places.values()
        for image in list_images(place)
        if 'images' in image.relative_to(place).parts
    ]
    return make_data(root, [NAME], splits, [note_left_out(images, splits, 'no folder of masks')])


def _refuse_shared_masks(samples: Sequence[Sample]) -> None:
    known: dict[Path, Path] = {}
    for image, masks in samples:
        other = known.setdefault(masks[0], image) if masks else image
        if other != image:
            raise UserError(
                f'{masks[0].parent} may hold the masks of {other} or of {image}; take one of the '
                'images away',
                code='data.ambiguous',
            )


def _read_picture(sample: Sample) -> Picture:
    image, masks = sample
    things: list[Thing] = []
    size = None
    for path in masks:
        mask = _read_mask(path)
        if size is not None and size != mask.shape[::-1]:
            raise UserError(
                f'{path} is {mask.shape[1]} x {mask.shape[0]}, and {masks[0]} is {size[0]} x '
                f'{size[1]}; make each from its image again',
                code='data.image-size',
            )
        size = mask.shape[1], mask.shape[0]
        things.append(make_mask_thing(NAME, mask, path.name))
    return Picture(image, tuple(things), size, str(masks[0]) if masks else '')


def _read_mask(path: Path) -> np.ndarray:
    """Return where an object is: H W."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert('L') if image.mode not in ('I', 'I;16') else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f'the mask {path} cannot be read: {error}', code='data.label-unreadable'
        ) from error
    values = np.unique(pixels)
    if len(values) != 2 or values[0] != 0:
        shown = ', '.join(map(str, values[:4].tolist())) + (' ...' if len(values) > 4 else '')
        raise UserError(
            f'the mask {path} holds the values {shown}, and that of an object holds 0 and one '
            'more; draw it again, or take it away',
            code='data.label-values',
        )
    return pixels > 0
