"""A user's data folder, read once: which layout, which classes, how many images.

Three layouts are this package's own and are read in place; a folder may hold all. Two of them::

    root/                                   root/
      train.json  val.json  [test.json]       images/train  images/val  [images/test]
      train/      val/      [test/]           annotations/train  annotations/val  [.../test]

On the left COCO's (boxes, and masks where every object has one), on the right ADE20K's (one mask
image per picture, a pixel's value is its class and 255 is left out).  The third is COCO's for
panoptic segmentation: ``panoptic_train.json`` and the folder ``panoptic_train/`` of its masks.
COCO's own names, such as ``annotations/instances_train2017.json`` beside ``train2017/``, are found
as well. Folders of other tools are recognized and read by :mod:`.formats`.

Whatever would only show up in the middle of a run is looked for here, and named with file, field
and remedy in a :class:`~mmresnest.errors.UserError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from .ade20k_folder import read_ade20k
from .base import JSON_NAMES, PANOPTIC_NAMES, DataFolder, Reading, find_first
from .checks.findings import Finding, finish_reading
from .coco_folder import read_coco, read_panoptic
from .formats.coco_layouts import has_root_category, has_split
from .formats.recognize import find_rival, recognize_format, refuse_readings
from .formats.table import FORMATS
from .formats.write import write_folder
from .mask_mapping import MaskMapping
from .other_folder import read_format
from .request import DataRequest
from .shapes.dataset import STAMP

_LAYOUTS = (
    'expected train.json, val.json and images in train/ and val/ (COCO), '
    'or images/{train,val} with annotations/{train,val} (ADE20K), '
    'or panoptic_{train,val}.json beside their folders of masks'
)


def read_folder(
    path: str | os.PathLike | DataRequest,
    kind: str | None = None,
    mapping: MaskMapping | None = None,
) -> DataFolder:
    """Read a data folder that a run will use.

    Args:
        path: the folder, or how it is to be read.
        kind: ``coco``, ``panoptic`` or ``ade20k``, as the task wants it; by default the first of
            ``coco``, ``ade20k`` and ``panoptic`` that the folder holds.
        mapping: what the values of masks stand for, where they are no class indices.

    Returns:
        its classes, files and counts.

    Raises:
        UserError: if the folder or its annotations are missing or cannot be used.
    """
    return finish_reading(_start_reading(path, kind, mapping))


def scan_folder(
    path: str | os.PathLike | DataRequest,
    kind: str | None = None,
    mapping: MaskMapping | None = None,
) -> tuple[DataFolder, list[Finding]]:
    """Read a data folder as far as that can be done, and collect what is wrong with it.

    Args:
        path: the folder, or how it is to be read.
        kind: see :func:`read_folder`.
        mapping: likewise.

    Returns:
        its classes, files and counts, and the findings.

    Raises:
        UserError: if there are no annotations to read.
    """
    reading, findings = _start_reading(path, kind, mapping), []
    while True:
        try:
            findings.append(next(reading))
        except StopIteration as end:
            return end.value, findings


def convert_folder(request: DataRequest, out: Path, format: str) -> tuple[DataFolder, DataFolder]:
    """Write a data folder in another format, and read that again.

    Args:
        request: the folder, and how it is read.
        out: where; it must not exist, or be empty.
        format: ``coco``, ``yolo`` or ``voc`` for objects, ``ade20k`` for masks of classes.

    Returns:
        what was read, and what is read of what was written: the same images, objects and classes.

    Raises:
        UserError: the data cannot be read, or the format cannot hold them.
    """
    kind = 'ade20k' if format == 'ade20k' else 'coco'
    folder = read_folder(request, kind)
    write_folder(folder, out, format)
    written = read_folder(DataRequest(out), kind)
    for name, split in folder.splits.items():
        other = written.splits[name]
        same = (split.image_count, split.object_count) == (other.image_count, other.object_count)
        if not same or folder.classes != written.classes:
            raise RuntimeError(f'{out} does not hold what {folder.root} does: {split}, {other}')
    return folder, written


def _start_reading(
    path: str | os.PathLike | DataRequest, kind: str | None, mapping: MaskMapping | None
) -> Reading:
    asked = path if isinstance(path, DataRequest) else DataRequest(path, mapping)
    root = Path(asked.path).expanduser().absolute()
    if not root.exists():
        raise UserError(f'the data folder {root} does not exist; {_LAYOUTS}', code='data.missing')
    if not root.is_dir():
        raise UserError(
            f'{root} is a file, and the data are named by their folder: --data {root.parent}; '
            f'{_LAYOUTS}',
            code='data.not-a-folder',
        )
    kind = kind or _find_kind(root)
    if kind not in READERS:
        raise UserError(
            f'unknown kind of data folder {kind!r}; legal: ' + ', '.join(READERS),
            code='option.unknown',
        )
    if kind == 'panoptic' and (asked.format or asked.division):
        option = '--format' if asked.format else '--split'
        raise UserError(
            f'{option} is for boxes and masks, and {root} is read as panoptic data, whose parts '
            'are panoptic_train.json and panoptic_val.json; leave it out',
            code='option.conflict',
        )
    if asked.mapping is not None and kind != 'ade20k':
        raise UserError(
            f'--mask-values are for masks of classes, and {root} is read as {kind}; leave them out',
            code='option.conflict',
        )
    if kind != 'panoptic' and (
        asked.format not in (None, kind) or asked.division or not _has_own_layout(root, kind)
    ):
        return read_format(root, kind, asked)
    if asked.format is None:
        _refuse_rivals(root, kind)
    return read_ade20k(root, asked.mapping) if kind == 'ade20k' else READERS[kind](root)


def _find_kind(root: Path) -> str:
    for kind in ('coco', 'ade20k'):
        if _has_own_layout(root, kind):
            return kind
    if find_first(root, PANOPTIC_NAMES, 'train'):
        return 'panoptic'
    return recognize_format(root, 'coco').kind


def _has_own_layout(root: Path, kind: str) -> bool:
    """Return whether a folder has one of the layouts above, which are read in place."""
    if kind == 'coco':
        train = find_first(root, JSON_NAMES, 'train')
        if train is None or has_root_category(train):
            return False
        # A validation part of another name is found by the reader of all layouts.
        return find_first(root, JSON_NAMES, 'val') is not None or not has_split(root, 'val')
    return (root / 'annotations' / 'train').is_dir()


def _refuse_rivals(root: Path, kind: str) -> None:
    """Refuse a folder that holds annotations of another format beside those of its layout.

    The drawn data set holds several layouts of the same.
    """
    if (root / STAMP).is_file():
        return
    places = _RIVALS.get(kind, {})
    rival = find_rival(root, [name for name, place in places.items() if any(root.glob(place))])
    if rival is not None:
        row, like = rival
        own = find_first(root, JSON_NAMES, 'train') if kind == 'coco' else 'annotations/train'
        readings = f'{FORMATS[kind].title} ({own}) and as {row.title} ({like.found})'
        raise refuse_readings(root, readings, [kind, row.name])


_RIVALS = {
    'coco': {'voc': 'Annotations/*.xml', 'yolo': '*.y*ml'},
    'ade20k': {'mmseg': 'ann_dir/*', 'voc-masks': 'SegmentationClass/*', 'cityscapes': 'gtFine/*'},
}
"""Formats that may stand beside this package's layouts, and a cheap sign of each."""

READERS: dict[str, Callable[[Path], Reading]] = {
    'coco': read_coco,
    'ade20k': read_ade20k,
    'panoptic': read_panoptic,
}
