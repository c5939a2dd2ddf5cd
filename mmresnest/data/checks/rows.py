"""Rows of annotation files, whatever they turn out to be: fields, ids, sizes and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .findings import shorten

FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    'categories': ('id', 'name'),
}
"""What is asked of every row of a list."""

BACKSLASH = r', and write / for \: the latter separates folders on Windows only'
"""What a message adds about names out of Windows."""

ABSENT = object()
"""Stands in a column where a row lacks the field."""


def get_rows(table: Mapping[str, Any], place: str) -> list[Any]:
    """Return a list of an annotation file, empty where it has none."""
    rows = table.get(place)
    return rows if isinstance(rows, list) else []


def describe_list(value: Any) -> str:
    """Return what is wrong with a list of an annotation file."""
    if value is None or value == []:
        return 'is missing or empty'
    return f'is {"an object" if isinstance(value, dict) else f"a {type(value).__name__}"}, no list'


def has_fields(row: Any, *keys: str) -> bool:
    """Return whether a row is a dictionary with these fields."""
    return isinstance(row, dict) and all(key in row for key in keys)


def read_column(rows: Sequence[Any], key: str) -> list[Any]:
    """Return what a field holds in every row, ``ABSENT`` where a row lacks it."""
    return [row[key] if isinstance(row, dict) and key in row else ABSENT for row in rows]


def is_id(value: Any) -> bool:
    """Return whether a value can tell rows apart."""
    return type(value) in (int, str) or (type(value) is float and math.isfinite(value))


def collect_ids(rows: Sequence[Any]) -> list[Any]:
    """Return the ids of the rows that have one."""
    return [row['id'] for row in rows if has_fields(row, 'id') and is_id(row['id'])]


def parse_size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height that a row states, None if they are no size."""
    size: tuple[Any, Any] = row.get('width'), row.get('height')
    if all(type(side) in (int, float) and 0 < side < 1e9 and side == int(side) for side in size):
        return int(size[0]), int(size[1])
    return None


def find_repeated(values: Sequence[Any], at: Sequence[int]) -> list[int]:
    """Return the positions whose value an earlier one has."""
    if len(set(values)) == len(values):
        return []
    seen: set[Any] = set()
    found = []
    for position, value in zip(at, values):
        if value in seen:
            found.append(position)
        seen.add(value)
    return found


def to_array(values: Sequence[Any], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of ``width`` numbers as an array N width, and which of them are such: N.

    What is no list of numbers is NaN in the array.
    """
    whole = all(type(value) is list and len(value) == width for value in values)
    if whole and set(map(type, chain.from_iterable(values))) <= {int, float}:
        try:
            flat = np.fromiter(chain.from_iterable(values), float, width * len(values))
            return flat.reshape(-1, width), np.ones(len(values), bool)
        except OverflowError:  # a whole number beyond all floats
            pass
    found, sound = np.full((len(values), width), np.nan), np.zeros(len(values), bool)
    for at, value in enumerate(values):
        if is_list_of_numbers(value, width):
            found[at] = [to_float(one) for one in value]
            sound[at] = True
    return found, sound


def is_list_of_numbers(value: Any, width: int) -> bool:
    """Return whether a value is a list of so many numbers."""
    return (
        type(value) is list
        and len(value) == width
        and all(type(one) in (int, float) for one in value)
    )


def to_float(value: float) -> float:
    """Return a number of json as a float; a whole number beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def label_row(row: Any) -> str:
    """Return how a message calls a row: an annotation by its id, its box, its image and its line.

    The line is that of the label file of another format that it was read from.
    """
    if not has_fields(row, 'bbox'):
        return shorten(row)
    box, image = shorten(row['bbox'], 60), shorten(row.get('image_id'))
    line = f', {shorten(row["source"])}' if isinstance(row.get('source'), str) else ''
    return f'{shorten(row.get("id"))} (bbox {box}, image {image}{line})'
