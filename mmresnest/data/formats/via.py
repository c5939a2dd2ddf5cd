"""VGG Image Annotator, version 2: ``via_region_data.json``, a saved project, or the table.

::

    {"a.jpg1234": {"filename": "a.jpg", "regions": [{
        "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
        "region_attributes": {"class": "cat"}}]}}

One attribute of the regions is their class: the only one, or else ``class``, ``label``, ``name``,
``type`` or ``category``; without any there is one class, ``object``. Rectangles and polygons are
read, other shapes refused. A region's number in a message counts from 0, as in the file. A file is
of the split that its name or its folder says; version 1 had regions in an object, by number.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ..checks.findings import shorten
from ..checks.rows import is_list_of_numbers
from ..json_files import read_json
from .base import (
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    assign_splits,
    check_sizes,
    choose_image,
    collect_names,
    enclose,
    find_shallow,
    make_data,
    note_left_out,
    round_pixels,
)
from .names import find_class_list

_CLASS_KEYS = ('class', 'label', 'name', 'type', 'category')
_COLUMN = 'region_shape_attributes'
_SMALL = 2**28
_LOOKED_AT = 20


class Region(NamedTuple):
    """A region: where it stands, its shape and its attributes."""

    place: str
    shape: Any
    attributes: Any


Rows = dict[str, list[Region]]
"""Name of an image -> its regions."""


def compare_via(root: Path) -> Likeness:
    """Say how far a folder looks like VGG Image Annotator's."""
    for path in find_via_files(root):
        return Likeness(f'{path.relative_to(root)}, the regions of images')
    return Likeness()


def find_via_files(root: Path) -> list[Path]:
    """Return the files in a folder or right below it that hold regions of images."""
    found = []
    for pattern in ('*.json', '*.csv'):
        for path in islice(find_shallow(root, pattern, 1), _LOOKED_AT):
            with path.open('rb') as file:
                begin = file.read(2**16)
            key = b'"regions"' if pattern == '*.json' else _COLUMN.encode()
            if key in begin and path.stat().st_size < _SMALL:
                if pattern == '*.csv' or _find_images(path):
                    found.append(path)
    return found


def _find_images(path: Path) -> Mapping[str, Any]:
    """Return the entries of the images in a file, empty if it is another's."""
    try:
        table = read_json(path)
    except UserError:
        return {}
    table = table.get('_via_img_metadata', table)
    rows = list(table.values()) if isinstance(table, dict) else []
    whole = all(isinstance(row, dict) and {'filename', 'regions'} <= row.keys() for row in rows)
    return table if rows and whole else {}


def read_via(root: Path) -> ObjectData:
    """Read the regions of images.

    Raises:
        UserError: with file, image and remedy, for what cannot be read.
    """
    files = assign_splits(find_via_files(root), root)
    tables = {
        path: _read_csv(path) if path.suffix.lower() == '.csv' else _read_json(path)
        for path in files.values()
    }
    key = _find_class_key(
        [one for rows in tables.values() for regions in rows.values() for one in regions], root
    )
    index = ImageIndex(root)
    splits = {}
    for split, path in files.items():
        pictures = [
            Picture(
                _find_image(name, path, split, index),
                tuple(_read_thing(one, key, root) for one in regions),
                source=f'{path}: {name}',
            )
            for name, regions in tables[path].items()
        ]
        splits[split] = list(check_sizes(pictures))
    notes = [note_left_out(index.paths, splits, 'no entry in the file')]
    if not key:
        notes.append('the regions have no attribute, and are of one class, object')
    return make_data(root, find_class_list(root) or collect_names(splits), splits, notes)


def _read_json(path: Path) -> Rows:
    found: Rows = {}
    for row in _find_images(path).values():
        regions = row['regions']
        if isinstance(regions, dict):  # of version 1
            regions = list(regions.values())
        name = str(row['filename'])
        if not isinstance(regions, list):
            raise UserError(
                f'{path}: {name}: its regions are {shorten(regions)}, and a list is meant; export '
                'the file again',
                code='data.label-line',
            )
        for at, region in enumerate(regions):
            region = region if isinstance(region, dict) else {}
            place = f'{path}: {name}: region {at}'
            both = region.get('shape_attributes'), region.get('region_attributes')
            found.setdefault(name, []).append(Region(place, *both))
        found.setdefault(name, [])
    return found


def _read_csv(path: Path) -> Rows:
    found: Rows = {}
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            for row in rows:
                row = {(key or '').lstrip('#'): value for key, value in row.items()}
                shape, attributes = (
                    json.loads(row[key] or '{}') for key in (_COLUMN, 'region_attributes')
                )
                regions = found.setdefault(row['filename'], [])
                if shape:
                    regions.append(Region(f'{path}:{rows.line_num}', shape, attributes))
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{path}: cannot be read as a table of regions: {error}; export it again',
            code='data.label-line',
        ) from None
    return found


def _find_class_key(regions: list[Region], root: Path) -> str:
    """Return the attribute that says the class, empty if no region has one.

    Raises:
        UserError: there are several.
    """
    keys = {
        key: None
        for one in regions
        for key, value in (one.attributes.items() if isinstance(one.attributes, dict) else ())
        if value not in ('', None, {})
    }
    known = [key for key in keys if key.lower() in _CLASS_KEYS]
    if len(keys) > 1 and len(known) != 1:
        raise UserError(
            f'{root}: the regions have the attributes {", ".join(keys)}; rename the one that is '
            'their class to class',
            code='data.ambiguous',
        )
    return next(iter(known or keys), '')


def _find_image(name: str, path: Path, split: str, index: ImageIndex) -> Path:
    beside = path.parent / name
    found = [beside] if beside.is_file() else index.find_named(name)
    remedies = 'put the file beside its images', 'take its entry away'
    return choose_image(index.prefer_split(found, split), name, str(path), remedies)


def _read_thing(region: Region, key: str, root: Path) -> Thing:
    shape = region.shape if isinstance(region.shape, dict) else {}
    name = _read_class(region, key)
    kind = shape.get('name')
    source = region.place.removeprefix(f'{root}/')
    if kind == 'rect':
        box = [shape.get(side) for side in ('x', 'y', 'width', 'height')]
        if not _is_near(box):
            raise UserError(
                f'{region.place}: {shorten(name)} has the rectangle {shorten(box)}, and four '
                'numbers are meant; draw it again, or take it away',
                code='data.label-line',
            )
        x, y, width, height = round_pixels(float(side) for side in box if side is not None)
        return Thing(name, (x, y, width, height), source=source)
    if kind not in ('polygon', 'polyline') or kind == 'polyline' and not _is_closed(shape):
        raise UserError(
            f'{region.place}: {shorten(name)} is a {shorten(kind)}, and boxes and masks are made '
            'of rectangles and polygons; draw it as one of them, or take it away',
            code='data.shape',
        )
    sides = [list(_iterate_points(shape, side)) for side in ('x', 'y')]
    points = round_pixels(value for pair in zip(*sides) for value in pair)
    if len(sides[0]) != len(sides[1]) or len({*zip(points[::2], points[1::2])}) < 3:
        raise UserError(
            f'{region.place}: the polygon of {shorten(name)} has {len(sides[0])} points, and '
            'needs 3 different ones or more; draw it again, or take it away',
            code='data.mask-points',
        )
    return Thing(name, enclose([points]), (points,), source)


def _is_near(values: list[Any]) -> bool:
    """Return whether values are numbers that can lie in an image."""
    return is_list_of_numbers(values, len(values)) and all(abs(one) < 1e9 for one in values)


def _is_closed(shape: Mapping[str, Any]) -> bool:
    """Return whether a line of points ends where it began, which makes it a polygon."""
    points = list(zip(_iterate_points(shape, 'x'), _iterate_points(shape, 'y')))
    return len(points) > 3 and points[0] == points[-1]


def _iterate_points(shape: Mapping[str, Any], side: str) -> Iterator[float]:
    values = shape.get(f'all_points_{side}')
    if isinstance(values, list) and _is_near(values):
        yield from map(float, values)


def _read_class(region: Region, key: str) -> str:
    if not key:
        return 'object'
    value = region.attributes.get(key) if isinstance(region.attributes, dict) else None
    if isinstance(value, dict):  # of check boxes
        chosen = [name for name, is_set in value.items() if is_set]
        value = chosen[0] if len(chosen) == 1 else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f'{region.place}: its attribute {key} is {shorten(value)}, and the name of one class '
            'is meant; write it, or take the region away',
            code='data.label-line',
        )
    return value.strip()
