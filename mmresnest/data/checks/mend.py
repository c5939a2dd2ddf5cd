"""Mend values of a COCO file that have one meaning, when it is read.

Files in the wild hold numbers as text, flags as null, areas of 0, polygons without their outer
list. What such a value means is not in doubt, so it is read as that, for training, evaluation and
checks alike, and said once. Whatever is in doubt stays as it is, and is found by the checks.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.masks import turn_box
from .findings import Finding, make_finding, shorten
from .rows import ABSENT, get_rows, has_fields, is_id, is_list_of_numbers, read_column

FLAGS = {None: 0, '': 0, '0': 0, 'false': 0, '0.0': 0, '1': 1, 'true': 1, '1.0': 1}
"""What an ``iscrowd`` means that is no number."""
_WHOLE = re.compile(r'-?(0|[1-9]\d*)\.0+')
_NUMBER = re.compile(r'\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*')


def mend_table(path: Path, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """Return a file's table with the values mended, and what was mended.

    Args:
        path: the file, for the messages.
        table: what it holds; left alone.
    """
    table, findings = dict(table), []
    for place, key, mend in _list_mends(table):
        rows = get_rows(table, place)
        new = {}
        for at, value in enumerate(read_column(rows, key)):
            if isinstance(rows[at], dict):
                mended = mend(value, rows[at])
                if mended is not value and mended is not ABSENT:
                    new[at] = mended
        if new:
            first = next(iter(new))
            was = rows[first].get(key, 'missing')
            table[place] = [
                {**row, key: new[at]} if at in new else row for at, row in enumerate(rows)
            ]
            findings.append(
                make_finding(
                    'value-mended',
                    path=path,
                    total=len(rows),
                    name=place,
                    key=key,
                    was=was if was == 'missing' else shorten(repr(was), 60),
                    read=shorten(repr(new[first]), 60),
                    count=len(new),
                    example=shorten(rows[first].get('id')),
                )
            )
    return table, findings


def _list_mends(
    table: Mapping[str, Any],
) -> Iterator[tuple[str, str, Callable[[Any, Mapping[str, Any]], Any]]]:
    """Yield the list, the field, and the function that mends it, in this order."""
    yield 'images', 'width', mend_size
    yield 'images', 'height', mend_size
    yield 'images', 'file_name', mend_file_name
    yield 'categories', 'name', mend_name
    yield 'annotations', 'image_id', _LinkMender(get_rows(table, 'images'))
    yield 'annotations', 'category_id', _LinkMender(get_rows(table, 'categories'))
    if any(has_fields(row, 'segments_info') for row in get_rows(table, 'annotations')[:1]):
        return  # the objects of panoptic annotations stand deeper
    yield 'annotations', 'segmentation', mend_mask
    yield 'annotations', 'bbox', mend_box  # which may follow from the mask
    yield 'annotations', 'area', mend_area
    yield 'annotations', 'iscrowd', mend_flag


def parse_number(value: Any) -> float | None:
    """Return the number that a text spells, None if it spells none."""
    if isinstance(value, str) and len(value) < 40 and _NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None


def mend_size(value: Any, row: Mapping[str, Any]) -> Any:
    """Return a width or height that stands as text or as a whole float as a number."""
    number = parse_number(value)
    return value if number is None else number


def mend_name(value: Any, row: Mapping[str, Any]) -> Any:
    """Return a class that is named by a number as text."""
    return str(value) if type(value) is int else value


class _LinkMender:
    """Gives links the type of the ids they mean: 3, 3.0 and "3" are one id."""

    def __init__(self, rows: list[Any]) -> None:
        ids = [row['id'] for row in rows if has_fields(row, 'id') and is_id(row['id'])]
        self.known = set(ids)
        self.spelled: dict[str, Any] = {}
        for one in ids:
            text = spell_id(one)
            self.spelled[text] = ABSENT if text in self.spelled else one

    def __call__(self, value: Any, row: Mapping[str, Any]) -> Any:
        if not is_id(value) or value in self.known:
            return value
        meant = self.spelled.get(spell_id(value), ABSENT)
        return value if meant is ABSENT else meant


def spell_id(value: Any) -> str:
    """Return an id as text: the same for 3, 3.0 and "3"."""
    whole = isinstance(value, float) and value.is_integer()
    text = str(int(value) if whole else value).strip()
    return text.partition('.')[0] if _WHOLE.fullmatch(text) else text


def mend_file_name(value: Any, row: Mapping[str, Any]) -> Any:
    """Return the file of an image that has an address alone, as LVIS: ``train2017/1.jpg``."""
    address = row.get('coco_url')
    if value is ABSENT and isinstance(address, str) and address.count('/') > 1:
        return '/'.join(address.split('/')[-2:])
    return value


def mend_box(value: Any, row: Mapping[str, Any]) -> Any:
    """Return a box in numbers: from text, from the polygons of a mask, or as CVAT turns it.

    CVAT writes the box as it was before it was turned, and ``attributes.rotation`` beside it.
    """
    if value is ABSENT or not value or 'attributes' in row and _read_turn(row):
        found = _enclose(row.get('segmentation'))
        return value if found is None or found == value else found
    if not isinstance(value, list) or len(value) != 4 or not any(type(one) is str for one in value):
        return value
    numbers = [parse_number(one) if isinstance(one, str) else one for one in value]
    return numbers if is_list_of_numbers(numbers, 4) else value


def mend_area(value: Any, row: Mapping[str, Any]) -> Any:
    """Return the area of the box for one that is missing, null or 0; as a number if it is text.

    An object with a box has an area, and mmdet passes over one whose area is 0.
    """
    number = parse_number(value)
    value = value if number is None else number
    if value is ABSENT or value is None or (type(value) in (int, float) and value == 0):
        box: Any = row.get('bbox')
        if is_list_of_numbers(box, 4) and box[2] > 0 and box[3] > 0:
            return box[2] * box[3]
    return value


def _read_turn(row: Mapping[str, Any]) -> float:
    """Return by how many degrees CVAT's box of an object is turned."""
    attributes = row.get('attributes')
    turn = attributes.get('rotation', 0) if isinstance(attributes, dict) else 0
    return turn if isinstance(turn, (int, float)) and math.isfinite(turn) else 0


def _enclose(polygons: Any) -> list[Any] | None:
    """Return the box around polygons, None if they are none."""
    if not isinstance(polygons, list) or not polygons:
        return None
    for one in polygons:
        count = len(one) if isinstance(one, list) else 0
        if count < 6 or count % 2 or not is_list_of_numbers(one, count):
            return None
    sides = [[value for one in polygons for value in one[at::2]] for at in (0, 1)]
    low, high = [min(side) for side in sides], [max(side) for side in sides]
    return [*low, *(round(two - one, 6) for one, two in zip(low, high))]


def mend_flag(value: Any, row: Mapping[str, Any]) -> Any:
    """Return an ``iscrowd`` that is missing, empty, a text or a truth value as 0 or 1.

    An object with ``ignore`` is a crowd: mmdet passes over it, and pycocotools counts it as missed.
    """
    flag = _read_flag(value)
    return 1 if flag == 0 and 'ignore' in row and _read_flag(row['ignore']) == 1 else flag


def _read_flag(value: Any) -> Any:
    if value is ABSENT:
        return 0
    if type(value) in (bool, float) and value in (0, 1):
        return int(value)
    text = value.strip().lower() if isinstance(value, str) else value
    return FLAGS[text] if text is None or isinstance(text, str) and text in FLAGS else value


def mend_mask(value: Any, row: Mapping[str, Any]) -> Any:
    """Return polygons in a list of their own, without empty ones; run lengths as their text.

    A turned box of CVAT is the polygon of its corners.
    """
    turn = _read_turn(row) if value is ABSENT or not value else 0
    box: Any = row.get('bbox')
    if turn and is_list_of_numbers(box, 4):
        return [[round(one, 6) for one in turn_box(box, turn)]]
    if is_list_of_numbers(value, len(value) if isinstance(value, list) else 0) and len(value) >= 6:
        return [value]
    if isinstance(value, list) and [] in value:
        return [polygon for polygon in value if polygon != []]
    counts = value.get('counts') if isinstance(value, dict) else None
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        try:
            return {**value, 'counts': ast.literal_eval(counts).decode('ascii')}
        except (ValueError, SyntaxError, UnicodeDecodeError, AttributeError):
            return value
    return value
