"""Name what a folder holds that is known and not read, and the way from there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ..base import IMAGE_SUFFIXES, list_files
from ..json_files import read_json
from ..text_files import read_lines
from .base import find_shallow, find_split_folders
from .mask_layouts import MASK_FOLDERS
from .tensorflow_csv import describe_table

_LARGEST = 2**28
"""Bytes of a json file that is read to say what it is."""
_HOLDERS = ('.xml', '.json', '.csv', '.txt', '.mat', '.parquet', '.h5', '.npy', '.npz', '.pkl')
"""Suffixes of files that may hold annotations."""
_NOTICE = re.compile(r'readme|licen[cs]e|.*classes\.txt|.*labels\.txt', re.I)
_LOOKED_AT = 50
"""Files of a kind that are looked into."""


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
        found = path.stat()
        return _parse_json(path, found.st_mtime_ns) if found.st_size <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None


@lru_cache(maxsize=1)
def _parse_json(path: Path, changed: int) -> Any:
    """Return what a json file holds; each row of the table below asks for the same one."""
    return json.loads(path.read_bytes())


def _find_json(test: Callable[[Any], bool]) -> Callable[[Path], str]:
    """Return what finds a json file with something in it."""

    def find(root: Path) -> str:
        for path in islice(find_shallow(root, '*.json'), _LOOKED_AT):
            if test(_load_json(path)):
                return str(path.relative_to(root))
        return ''

    return find


def _find_names(*patterns: str) -> Callable[[Path], str]:
    """Return what finds a file of such a name."""

    def find(root: Path) -> str:
        paths = (path for pattern in patterns for path in find_shallow(root, pattern))
        return next((path.name for path in paths), '')

    return find


def _holds(table: Any, *keys: str) -> bool:
    return isinstance(table, dict) and all(key in table for key in keys)


def _is_label_studio(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'data')


def _is_coco_list(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'images', 'annotations')


def _is_supervisely(table: Any) -> bool:
    return _holds(table, 'objects', 'size')


def _is_label_studio_list(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'annotation_id')


def _is_createml(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'image', 'annotations')


def _is_bdd(table: Any) -> bool:
    return isinstance(table, list) and bool(table) and _holds(table[0], 'name', 'labels')


def _is_datumaro(table: Any) -> bool:
    return _holds(table, 'items', 'categories')


def _is_vott(table: Any) -> bool:
    return _holds(table, 'assets')


def _find_tables(root: Path) -> str:
    """Return a csv file that is known and not read, and whose it is, empty without one."""
    for path in find_shallow(root, '*.csv'):
        if title := describe_table(path):
            return f'{path.relative_to(root)} is {title}'
    return ''


def _find_odd_text(root: Path) -> str:
    """Return why a table or a list cannot be read as UTF-8, empty if all can."""
    for pattern in ('*.csv', '*.txt'):
        for path in find_shallow(root, pattern, 1):
            try:
                read_lines(path)
            except UserError as error:
                return str(error)
    return ''


def _find_lines(pattern: str) -> Callable[[Path], str]:
    """Return what finds a text file with a line like a pattern among its first ones."""

    def find(root: Path) -> str:
        for path in islice(find_shallow(root, '*.txt'), _LOOKED_AT):
            with path.open(encoding='utf-8', errors='replace') as file:
                lines = [file.readline(4096) for _ in range(3)]
            if any(re.match(pattern, line) for line in lines):
                return str(path.relative_to(root))
        return ''

    return find


def _find_class_folders(root: Path) -> str:
    """Return a folder of pictures in folders of their classes, empty if that is not what it is."""
    for folder in [*find_split_folders(root).values(), root]:
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        named = any(
            re.search('mask|label|ann|image|gt|manual|truth|input', path.name.lower())
            for path in inner
        )
        if len(inner) > 1 and all(map(_has_images, inner)) and not named:
            return f'{folder.name}/ with {inner[0].name}/, {inner[1].name}/'
    return ''


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _find_lossy_masks(root: Path) -> str:
    """Return a JPEG or GIF in a folder of masks, empty without one."""
    places = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    for folder in (inner for place in places for inner in sorted(place.iterdir())):
        words = re.split('[^a-z0-9]+', folder.name.lower())
        if folder.is_dir() and {*MASK_FOLDERS, 'ann', 'manual', 'segmentationclass'} & {*words}:
            for pattern in ('*.jpg', '*.jpeg', '*.gif'):
                for path in find_shallow(folder, pattern):
                    return str(path.relative_to(root))
    return ''


def _find_other_files(root: Path) -> str:
    """Return a file that may hold annotations, empty without one."""
    if next(list_files(root, IMAGE_SUFFIXES), None) is None:
        return ''
    names = (name for name in list_files(root, _HOLDERS) if not _NOTICE.match(Path(name).name))
    return next(names, '')


def _find_images(root: Path) -> str:
    folders = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    return next((f'{path.name}/' for path in folders if _has_images(path)), '')


_AS_COCO = 'export the project as COCO or YOLO'
_AS_ANY = 'convert it to COCO, YOLO or VOC'
_AS_TABLE = (
    "(echo filename,class,xmin,ymin,xmax,ymax; awk -F'[ ,]' -v OFS=, '{} {{{{n = FILENAME; "
    'sub(/.*\\//, "", n); sub(/txt$/, "{}", n); print {}}}}}\' {})'
)
"""Writes a table of the boxes of many text files."""

# fmt: off
UNREAD = (
    Unread(_find_names('*.zip', '*.tar', '*.tar.gz', '*.tgz', '*.7z', '*.rar'),
           'is an archive', 'unpack it, as with unzip -d {root}/unpacked {root}/*.zip, and name '
           'that folder'),
    Unread(_find_names('panoptic_*.json'), 'is of panoptic segmentation',
           'take a config of it, such as panoptic_fpn_resnest50_fpn'),
    Unread(_find_json(_is_label_studio), "is Label Studio's own json, which is not read", _AS_COCO),
    Unread(_find_json(_is_label_studio_list), "is Label Studio's JSON_MIN, which is not read",
           _AS_COCO),
    Unread(_find_names('task-*-annotation-*.png'), 'is a mask of Label Studio, one for each object '
           'and class, which is not read', 'export the project as COCO with brush labels'),
    Unread(_find_json(_is_createml), "is Apple's CreateML json, which is not read", _AS_COCO),
    Unread(_find_json(_is_bdd), 'is the json of BDD100K or Scale, which is not read', _AS_ANY),
    Unread(_find_json(_is_datumaro), "is Datumaro's own json, which is not read", _AS_COCO),
    Unread(_find_json(_is_vott), "is VoTT's own json, which is not read",
           'export the project as CSV'),
    Unread(_find_json(_is_supervisely), "is Supervisely's own json, which is not read", _AS_COCO),
    Unread(_find_json(_is_coco_list), 'is a list, and a COCO file is an object',
           'write what is in its brackets as the file'),
    Unread(find_broken_json, '', ''),
    Unread(_find_tables, '(not read)', 'write it as COCO, or as a table with the columns '
           'filename,class,xmin,ymin,xmax,ymax in pixels'),
    Unread(_find_names('wider_face*.txt'), "is WIDER FACE's list, which is not read", _AS_ANY),
    Unread(_find_names('gt.txt'), "is a list of MOT Challenge's kind, which is not read", _AS_ANY),
    Unread(_find_names('*.parquet'), 'is a table of Hugging Face or others, which is not read',
           _AS_ANY),
    Unread(_find_lines(r'\S+\.\w+(\s+\d+,\d+,\d+,\d+,\d+)+\s*$'),
           'is a list of YOLO for Keras, which is not read', _AS_COCO),
    Unread(_find_names('*.odgt'), "is a list of CrowdHuman's kind, which is not read", _AS_ANY),
    Unread(_find_names('*.ndjson', '*.jsonl'), 'is a list of json lines, as of Labelbox, which is '
           'not read', _AS_ANY),
    Unread(_find_lines(r'imagesource:|gsd:|(-?[\d.]+\s+){8}[A-Za-z][\w-]*\s+\d\s*$'),
           "is DOTA's, which is not read", 'write its corners as YOLO, in shares of the image, and '
           'its names into classes.txt'),
    Unread(_find_lines(r'[A-Za-z_-]+(\s+-?[\d.]+){14}\s*$'), "is KITTI's, which is not read",
           'this writes a table of the boxes: '
           + _AS_TABLE.format('$1 != "DontCare"', 'png', 'n, $1, $5, $6, $7, $8',
                              '{root}/*/label_2/*.txt')
           + ' > {root}/labels.csv'),
    Unread(_find_lines(r'\d+(,-?\d+){7},?\s*$'), "is VisDrone's, which is not read",
           'this writes tables of the boxes of the classes 1 to 10: for s in train val; do '
           + _AS_TABLE.format('$6 > 0 && $6 < 11', 'jpg', 'n, $6, $1, $2, $1 + $3, $2 + $4',
                              '{root}/*$s/annotations/*.txt')
           + ' > {root}/labels_$s.csv; done'),
    Unread(_find_odd_text, '', ''),
    Unread(_find_names('*.tfrecord*', '*.record'), 'is a file of TensorFlow, which is not read',
           'export the data as COCO, YOLO or VOC'),
    Unread(_find_lossy_masks, 'is a mask as JPEG, which changes the values of pixels, or as GIF, '
           'which is not read', 'write the masks as PNG, from the tool that drew them'),
    Unread(_find_class_folders, 'looks like pictures in folders of their classes, for '
           'classification', 'draw boxes or polygons on them, as with labelme {root}'),
    Unread(_find_other_files, 'is no file of annotations that is known where it is', _AS_ANY),
    Unread(_find_images, 'has pictures, and there are no annotations', 'draw boxes or polygons on '
           'them, as with labelme {root}'),
)
# fmt: on
"""What is known and not read, the surest first."""
