"""Labelme: a json file for each image, beside it or in a folder of its own.

Shapes are rectangles (two corners in any order), polygons, the turned rectangles of X-AnyLabeling
(``rotation``, four corners) and masks (an image in base64 for the rectangle of two points, both of
them in it); those of the same ``group_id`` and label are one object. Circles, lines and points are
refused: none of them is a box or a polygon without a guess. The copy of the image that a file may
hold (``imageData``) is not read.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ..base import list_files
from ..checks.findings import shorten
from ..checks.images import track_rows
from ..checks.rows import is_list_of_numbers, parse_size, to_float
from ..json_files import read_json
from .base import (
    WHOLE,
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    check_sizes,
    collect_names,
    enclose,
    find_label_folders,
    find_shallow,
    join_things,
    make_data,
    make_mask_thing,
    note_left_out,
    round_pixels,
)
from .names import NO_CLASSES, find_class_list

_LOOKED_AT = 8
_KINDS = ('rectangle', 'polygon', 'rotation', 'mask')
_WRITE_IMAGES = (
    "python -c \"import base64,json,pathlib as p; [f.with_suffix('.jpg').write_bytes("
    "base64.b64decode(json.loads(f.read_text())['imageData'])) for f in p.Path('{root}')"
    ".rglob('*.json')]\""
)


def compare_labelme(root: Path) -> Likeness:
    """Say how far a folder looks like labelme."""
    for number, path in enumerate(find_shallow(root, '*.json')):
        if number == _LOOKED_AT:
            break
        if is_labelme_file(path):
            return Likeness(f'{path.relative_to(root)}, a json file with shapes')
    return Likeness()


def is_labelme_file(path: Path) -> bool:
    """Return whether a file holds the shapes of an image."""
    with path.open('rb') as file:
        if b'"shapes"' not in file.read(2**16) and path.stat().st_size < 2**16:
            return False
    try:
        table = read_json(path)
    except UserError:
        return False
    return isinstance(table.get('shapes'), list) and 'images' not in table


def read_labelme(root: Path) -> ObjectData:
    """Read a folder of json files and images.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    places = find_label_folders(root, '.json') or {WHOLE: root}
    index = ImageIndex(root)
    splits = {}
    for split, folder in places.items():
        labels = _list_labels(folder)
        rows = track_rows(labels, len(labels), f'reading {len(labels)} json files')
        splits[split] = list(check_sizes([_read_picture(path, root, index) for path in rows]))
    listed = [name for name in find_class_list(root) if name not in NO_CLASSES]
    classes = listed or [name for name in collect_names(splits) if name not in NO_CLASSES]
    return make_data(root, classes, splits, [note_left_out(index.paths, splits, 'no json file')])


def _list_labels(folder: Path) -> list[Path]:
    return [folder / name for name in list_files(folder, ('.json',))]


def _read_picture(path: Path, root: Path, index: ImageIndex) -> Picture:
    table = read_json(path)
    if not isinstance(table.get('shapes'), list):
        raise UserError(
            f'{path}: has no list "shapes", as the files of labelme beside it have; move it out of '
            'the folder',
            code='data.label-line',
        )
    name = table.get('imagePath')
    image = index.find_near(path, name if isinstance(name, str) else '')
    if image is None:
        held = table.get('imageData')
        raise UserError(
            f'{path}: there is no image for it, neither {shorten(name)} nor one called {path.stem} '
            f'below {root}; put it there, or take the file away'
            + (
                f'. The files hold copies of the images, which this writes beside them: '
                f'{_WRITE_IMAGES.format(root=root)}'
                if isinstance(held, str) and held
                else ''
            ),
            code='data.image-missing',
        )
    size = parse_size(dict(width=table.get('imageWidth'), height=table.get('imageHeight')))
    groups: dict[Any, list[Thing]] = {}
    for at, shape in enumerate(table['shapes']):
        line = _find_line(path, at)
        thing = _read_thing(shape, f'{path}:{line}', f'{path.relative_to(root)}:{line}', size)
        group = shape.get('group_id')
        key = (thing.name, group) if type(group) in (int, str) else at
        groups.setdefault(key, []).append(thing)
    return Picture(image, tuple(map(join_things, groups.values())), size, str(path))


def _find_line(path: Path, at: int) -> int:
    """Return the line in which the points or the kind of a shape stand first."""
    text = path.read_text(encoding='utf-8-sig')
    found = [match.start() for match in re.finditer(r'"label"\s*:', text)]
    return text.count('\n', 0, found[at]) + 1 if at < len(found) else 1


def _read_thing(shape: Any, place: str, source: str, size: tuple[int, int] | None) -> Thing:
    label = shape.get('label') if isinstance(shape, Mapping) else None
    if not isinstance(label, str) or not label.strip():
        raise UserError(
            f'{place}: a shape without "label"; name its class, or take it away',
            code='data.label-line',
        )
    kind = shape.get('shape_type') or 'polygon'  # which labelme's first versions left out
    if kind not in _KINDS:
        raise UserError(
            f'{place}: {shorten(label)} is a {shorten(kind)}, and boxes and masks are made of '
            'rectangles, polygons and masks; draw it as one of them, or take it away',
            code='data.shape',
        )
    points = list(_read_points(shape.get('points'), place, label))
    if kind == 'mask':
        mask = _read_mask(shape.get('mask'), points, size)
        if isinstance(mask, str):
            raise UserError(
                f'{place}: the mask of {shorten(label)} {mask}; draw it again, or take it away',
                code='data.mask-form',
            )
        return make_mask_thing(label, mask, source)
    fewest = 2 if kind == 'rectangle' else 3
    if len({*points}) < fewest or kind == 'rectangle' and len(points) not in (2, 4):
        raise UserError(
            f'{place}: the {kind} of {shorten(label)} has {len(points)} points'
            + (f', {len({*points})} of them different' if len({*points}) < len(points) else '')
            + f', and needs {fewest}'
            + (' or more' if kind == 'polygon' else '')
            + '; draw it again, or take it away',
            code='data.mask-points',
        )
    flat = round_pixels(value for point in points for value in point)
    if kind == 'rectangle':
        return Thing(label, enclose([flat]), source=source)
    return Thing(label, enclose([flat]), (flat,), source)


def _read_mask(
    text: Any, points: Sequence[tuple[float, float]], size: tuple[int, int] | None
) -> np.ndarray | str:
    """Return the mask of a shape in its image, H W, or what is wrong with it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            part = np.asarray(image) > 0
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError):
        return 'is no image in base64'
    if part.ndim != 2 or not part.any():
        return 'is empty' if part.ndim == 2 else 'has colors, and one channel is meant'
    if len(points) != 2 or size is None:
        return 'has no two corners in an image of known size'
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    mask = np.zeros(size[::-1], bool)
    place = mask[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    if place.shape != part.shape:
        shown = f'{left},{top} to {right},{bottom} of an image of {size[0]} x {size[1]}'
        return f'is {part.shape[1]} x {part.shape[0]}, and its corners are {shown}'
    place[:] = part
    return mask


def _read_points(points: Any, place: str, label: str) -> Iterator[tuple[float, float]]:
    if not isinstance(points, list) or not all(is_list_of_numbers(one, 2) for one in points):
        raise UserError(
            f'{place}: the points of {shorten(label)} are no list of pairs [x, y]; draw it again, '
            'or take it away',
            code='data.label-line',
        )
    for x, y in points:
        if abs(to_float(x)) > 1e9 or abs(to_float(y)) > 1e9 or x != x or y != y:
            raise UserError(
                f'{place}: {shorten(label)} has the point [{x}, {y}], which is in no image; draw '
                'it again, or take it away',
                code='data.label-line',
            )
        yield to_float(x), to_float(y)
