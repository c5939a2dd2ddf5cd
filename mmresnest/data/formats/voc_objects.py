"""Pascal VOC's instance masks, of ``SegmentationObject`` and ``SegmentationClass``.

A pixel of the former is the number of an object, or a color of its own where CVAT writes it; 0 or
black is no object, and 255 or VOC's cream the void around objects. An object has the class of its
pixels in the latter. Masks are kept to the pixel, as run lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..base import IGNORED
from ..checks.images import map_files
from ..mask_mapping import MaskMapping, pack_colors
from .base import Likeness, ObjectData, Pair, Picture, check_sizes, make_data, make_mask_thing
from .derive_masks import CONTESTED, read_indices
from .mask_layouts import has_masks, name_masks, pair_voc_images, read_voc_classes

_VOID = 224 << 16 | 224 << 8 | 192


def compare_voc_objects(root: Path) -> Likeness:
    """Say how far a folder looks like VOC's instance masks."""
    if not has_masks(root / 'SegmentationObject'):
        return Likeness()
    for name in ('SegmentationClass', 'JPEGImages'):
        if not (root / name).is_dir():
            return Likeness('SegmentationObject/', f'{name}/', f'mv WHERE_IT_IS {root / name}')
    return Likeness('SegmentationObject/ and SegmentationClass/')


def read_voc_objects(root: Path) -> ObjectData:
    """Read VOC's instance masks.

    Raises:
        UserError: a mask that is missing or cannot be read, or an object of no class or of two.
    """
    names, mapping = read_voc_classes(root)
    kinds = name_masks(root / 'SegmentationClass')

    def read_picture(pair: Pair) -> Picture:
        kind = kinds.get(pair.mask.stem)
        if kind is None:
            raise UserError(
                f'{pair.mask}: there is no mask of this name in {root / "SegmentationClass"}; put '
                'it there, or take this one away',
                code='data.label-missing',
            )
        return _read_picture(pair, kind, names, mapping)

    pairs = pair_voc_images(root, root / 'SegmentationObject')
    count = sum(map(len, pairs.values()))
    splits: dict[str, Sequence[Picture]] = {
        split: list(check_sizes(map_files(read_picture, rows, f'reading {count} masks')))
        for split, rows in pairs.items()
    }
    found = {thing.name for rows in splits.values() for row in rows for thing in row.things}
    listed = [name for at, name in enumerate(names) if not _is_background(name, at)]
    return make_data(root, listed or sorted(found, key=_get_number), splits)


def _is_background(name: str, at: int) -> bool:
    return name == 'background' or at == 0


def _get_number(name: str) -> int:
    return int(name.rpartition('_')[2])


def _read_picture(
    pair: Pair, kind: Path, names: Sequence[str], mapping: MaskMapping | None
) -> Picture:
    objects, classes = _read_objects(pair.mask), read_indices(kind, mapping)
    if objects.shape != classes.shape:
        raise UserError(
            f'{pair.mask} is {objects.shape[1]} x {objects.shape[0]}, and {kind} is '
            f'{classes.shape[1]} x {classes.shape[0]}; export both again',
            code='data.image-size',
        )
    things = []
    for value in np.unique(objects[objects > 0]).tolist():
        inside = objects == value
        counts = np.bincount(classes[inside & (classes != IGNORED)], minlength=1)
        best = int(counts.argmax())
        name = names[best] if best < len(names) else f'class_{best}'
        if not counts.sum() or _is_background(name, best):
            raise UserError(
                f'{pair.mask}: the object {value} has no class in {kind}; paint it there, or take '
                'it away',
                code='data.not-exact',
            )
        if counts.sum() - counts[best] > CONTESTED * counts.sum():
            raise UserError(
                f'{pair.mask}: the object {value} has pixels of several classes in {kind}; give '
                'each object one class',
                code='data.not-exact',
            )
        things.append(make_mask_thing(name, inside, f'{pair.mask.name}:{value}'))
    return Picture(pair.image, tuple(things), objects.shape[::-1], str(pair.mask))


def _read_objects(path: Path) -> np.ndarray:
    """Return the objects of a mask: H W, 0 where there is none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in ('P', 'L', 'I', 'I;16'):
                objects, void = np.asarray(image).astype(np.int64), IGNORED
            else:
                objects, void = pack_colors(np.asarray(image.convert('RGB'))), _VOID
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f'the mask {path} cannot be read: {error}', code='data.label-unreadable'
        ) from error
    return np.where(objects == void, 0, objects)
