"""Read a data folder of another format than this package's, which is recognized."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from .base import Reading, describe_contents
from .coco_folder import read_coco
from .formats.derive import read_objects
from .formats.recognize import NOUNS, recognize_format
from .request import DataRequest


def read_format(root: Path, kind: str, asked: DataRequest) -> Reading:
    """Read a folder of any format of :data:`.formats.table.FORMATS`.

    Args:
        root: the folder.
        kind: ``coco`` or ``ade20k``, as the task wants it.
        asked: the format, if it was named, and how a validation part is made.

    Raises:
        UserError: the folder is of no format, or of several, or cannot be used.
    """
    row = recognize_format(root, kind, asked.format)
    if row.kind != kind:
        raise UserError(
            f'no annotations for {NOUNS[kind]} in {root}: neither images/train with '
            f'annotations/train nor another layout of its kind; it holds {row.title}, which serves '
            f'{NOUNS[row.kind]}: choose such a config. {describe_contents(root)}',
            code='data.no-annotations',
        )
    derived = yield from read_objects(root, row, asked.division)
    folder = yield from read_coco(root, derived)
    return replace(folder, format=row.title, cache=derived.folder)
