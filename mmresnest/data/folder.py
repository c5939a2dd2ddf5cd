"""A user's data folder, read once: which layout, which classes, how many images.

Three layouts are understood, and a folder may hold all. Two of them::

    root/                                   root/
      train.json  val.json  [test.json]       images/train  images/val  [images/test]
      train/      val/      [test/]           annotations/train  annotations/val  [.../test]

On the left COCO's (boxes, and masks where every object has one), on the right ADE20K's (one mask
image per picture, a pixel's value is its class and 255 is left out).  The third is COCO's for
panoptic segmentation: ``panoptic_train.json`` and the folder ``panoptic_train/`` of its masks.
COCO's own names, such as ``annotations/instances_train2017.json`` beside ``train2017/``, are found
as well.

Whatever would only show up in the middle of a run is looked for here, and named with file, field
and remedy in a :class:`~mmresnest.errors.UserError`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError
from .ade20k_folder import _read_ade20k
from .base import DataFolder, _first, _what_is_there
from .coco_folder import JSON_NAMES, PANOPTIC_NAMES, _read_coco, _read_panoptic

_LAYOUTS = (
    'expected train.json, val.json and images in train/ and val/ (COCO), '
    'or images/{train,val} with annotations/{train,val} (ADE20K), '
    'or panoptic_{train,val}.json beside their folders of masks'
)


def read_folder(
    path: str | os.PathLike, kind: str | None = None, lenient: bool = False
) -> DataFolder:
    """Reads a data folder.

    Args:
        path: the folder.
        kind: ``coco``, ``panoptic`` or ``ade20k``, as the task wants it; by default the first of
            ``coco``, ``ade20k`` and ``panoptic`` that the folder holds.
        lenient: find out classes and files as far as that can be done, and leave what is wrong with
            them to an audit.

    Returns:
        its classes, files and counts.

    Raises:
        UserError: if the folder or its annotations are missing or cannot be used.
    """
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise UserError(f'the data folder {root} does not exist; {_LAYOUTS}')
    if not root.is_dir():
        raise UserError(f'{root} is a file, and the data must be a folder; {_LAYOUTS}')
    kind = kind or _kind_of(root)
    if kind not in _READERS:
        raise UserError(f'unknown kind of data folder {kind!r}; legal: ' + ', '.join(_READERS))
    return _READERS[kind](root, lenient)


def _kind_of(root: Path) -> str:
    if _first(root, JSON_NAMES, 'train'):
        return 'coco'
    if (root / 'annotations' / 'train').is_dir():
        return 'ade20k'
    if _first(root, PANOPTIC_NAMES, 'train'):
        return 'panoptic'
    raise UserError(f'no annotations in {root}; {_LAYOUTS}. {_what_is_there(root)}')


_READERS = {'coco': _read_coco, 'ade20k': _read_ade20k, 'panoptic': _read_panoptic}
