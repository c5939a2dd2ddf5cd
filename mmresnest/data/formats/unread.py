"""Name what a folder holds that is known and not read, and the way from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ..base import IMAGE_SUFFIXES
from ..json_files import read_json
from .base import find_shallow, find_split_folders
from .mask_layouts import MASK_FOLDERS

_LARGEST = 2**28
"""Bytes of a json file that is read to say what it is."""


class Unread(NamedTuple):
    """Something that is not read.

    Attributes:
        find: returns what of it is there, empty if nothing is.
        what: what it is; empty where ``find`` says all.
        remedy: what to do.
    """

    find: Callable[[Path], str]
    what: str
    remedy: str


def describe_unread(root: Path) -> str:
    """Return what a folder holds that is known and not read, and what to do; empty without it."""
    for row in UNREAD:
        found = row.find(root)
        if found:
            return f'{found} {row.what}: {row.remedy.format(root=root)}' if row.what else found
    return ''


def find_broken_json(root: Path) -> str:
    """Return why a json file cannot be read, empty if all can."""
    for path in find_shallow(root, '*.json', 1):
        try:
            read_json(path)
        except UserError as error:
            if not isinstance(_load_json(path), list):
                return str(error)
    return ''


def _load_json(path: Path) -> Any:
    """Return what a json file holds, None if it cannot be read."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _find_json(test: Callable[[Any], bool]) -> Callable[[Path], str]:
    """Return what finds a json file with something in it."""

    def find(root: Path) -> str:
        for path in find_shallow(root, '*.json'):
            if test(_load_json(path)):
                return str(path.relative_to(root))
        return ''

    return find


def _find_names(*patterns: str) -> Callable[[Path], str]:
    """Return what finds a file of such a name."""

    def find(root: Path) -> str:
        paths = (path for pattern in patterns for path in find_shallow(root, pattern, 1))
        return next((path.name for path in paths), '')

    return find


def _holds(table: Any, *keys: str) -> bool:
    return isinstance(table, dict) and all(key in table for key in keys)


def _is_label_studio(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'data')


def _is_coco_list(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'images', 'annotations')


def _is_via(table: Any) -> bool:
    rows = list(table.values()) if isinstance(table, dict) else []
    return _holds(table, '_via_img_metadata') or bool(rows) and _holds(rows[0], 'regions')


def _is_supervisely(table: Any) -> bool:
    return _holds(table, 'objects', 'size')


def _find_class_folders(root: Path) -> str:
    """Return a folder of pictures in folders of their classes, empty if that is not what it is."""
    for folder in [*find_split_folders(root).values(), root]:
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        if len(inner) > 1 and all(map(_has_images, inner)):
            return f'{folder.name}/ with {inner[0].name}/, {inner[1].name}/'
    return ''


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _find_jpeg_masks(root: Path) -> str:
    """Return a JPEG in a folder of masks, empty without one."""
    for folder in [*find_split_folders(root).values(), root]:
        for name in (*MASK_FOLDERS, 'ann_dir', 'SegmentationClass'):
            for pattern in ('*.jpg', '*.jpeg', '*.JPG', '*.JPEG'):
                for path in find_shallow(folder / name, pattern):
                    return str(path.relative_to(root))
    return ''


def _find_images(root: Path) -> str:
    folders = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    return next((f'{path.name}/' for path in folders if _has_images(path)), '')


_AS_COCO = 'export the project as COCO or YOLO'

# fmt: off
UNREAD = (
    Unread(_find_names('*.zip', '*.tar', '*.tar.gz', '*.tgz', '*.7z', '*.rar'),
           'is an archive', 'unpack it, as with unzip -d {root}/unpacked {root}/*.zip, and name '
           'that folder'),
    Unread(_find_json(_is_label_studio), "is Label Studio's own json, which is not read", _AS_COCO),
    Unread(_find_json(_is_via), "is VGG Image Annotator's own json, which is not read",
           'Annotation > Export Annotations (COCO format)'),
    Unread(_find_json(_is_supervisely), "is Supervisely's own json, which is not read", _AS_COCO),
    Unread(_find_json(_is_coco_list), 'is a list, and a COCO file is an object',
           'write what is in its brackets as the file'),
    Unread(find_broken_json, '', ''),
    Unread(_find_names('*.tfrecord*', '*.record'), 'is a file of TensorFlow, which is not read',
           'export the data as COCO, YOLO or VOC'),
    Unread(_find_jpeg_masks, 'is a mask that was saved as JPEG, which changes the values of pixels',
           'write the masks as PNG, from the tool that drew them'),
    Unread(_find_class_folders, 'looks like pictures in folders of their classes, for '
           'classification', 'draw boxes or polygons on them, as with labelme {root}'),
    Unread(_find_images, 'has pictures, and there are no annotations', 'draw boxes or polygons on '
           'them, as with labelme {root}'),
)
# fmt: on
"""What is known and not read, the surest first."""
