"""COCO's annotation files, looked over: lists, fields, ids, boxes and areas.

A file of COCO's size has 860 000 annotations, so that numbers are compared as arrays; whatever does
not fit an array is looked at one by one.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .findings import WARNING, Finding, brief, finding, of_rows
from .masks import look_over_masks

FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    'categories': ('id', 'name'),
}
"""What is asked of every row of a list."""
_REMEDIES = {
    'area': 'add "area": width * height of the box, as --fix does',
    'iscrowd': 'add "iscrowd": 0, as --fix does',
    'segments_info': 'that is plain COCO, for a config of boxes or masks such as '
    'mask_rcnn_resnest50_fpn; panoptic annotations list the segments of an image, '
    'with the colours of a mask',
    'isthing': 'add "isthing": 1 for what can be counted, 0 for the rest',
}
BEYOND = 1.0
"""Pixels by which a box may leave its image: COCO's own do, by rounding."""
HUGE = 4
"""Times the image's side from which a box is taken for one of another scale."""


def missing_fields(
    where: Any, place: str, rows: Sequence[Any], keys: Iterable[str]
) -> Iterator[Finding]:
    """Rows that lack a field that will be asked of them.

    Args:
        where: the file, for the message.
        place: what the rows are called there.
        rows: what should be dictionaries.
        keys: their fields.
    """
    for key in keys:
        bad = [at for at, row in enumerate(rows) if not isinstance(row, dict) or key not in row]
        if bad:
            kind = f'{key}-missing' if key in ('area', 'iscrowd') else 'field-missing'
            first = brief(str(rows[bad[0]]) if isinstance(rows[bad[0]], str) else rows[bad[0]], 80)
            yield finding(
                kind,
                f'{where}: {len(bad)} of {len(rows)} {place} lack the field '
                f'{key!r}, the first is {first}',
                _REMEDIES.get(key, 'export the file again'),
                count=len(bad),
                example=first,
                place=place,
                rows=bad,
            )


def rows_of(table: Mapping[str, Any], place: str) -> list[Any]:
    """A list of an annotation file, empty where it has none."""
    rows = table.get(place)
    return rows if isinstance(rows, list) else []


def have(row: Any, *keys: str) -> bool:
    """Whether a row is one, with these fields."""
    return isinstance(row, dict) and all(key in row for key in keys)


def column(rows: Sequence[Any], key: str) -> tuple[list[int], list[Any]]:
    """Where rows have a field, and what it holds there."""
    at = [number for number, row in enumerate(rows) if isinstance(row, dict) and key in row]
    return at, [rows[number][key] for number in at]


def is_id(value: Any) -> bool:
    """Whether a value can tell rows apart."""
    return type(value) in (int, str) or (type(value) is float and math.isfinite(value))


def _known(values: Sequence[Any], ids: Container[Any]) -> list[bool]:
    """Whether each value is among the ids; what cannot be one is not."""
    if set(map(type, values)) <= {int, str}:
        return [value in ids for value in values]
    return [isinstance(value, Hashable) and is_id(value) and value in ids for value in values]


def look_over_ids(path: Path, place: str, rows: Sequence[Any]) -> Iterator[Finding]:
    """Ids that are none, or stand more than once."""
    at, values = column(rows, 'id')
    bad = [number for number, value in zip(at, values) if not is_id(value)]
    if bad:
        yield of_rows('id-type', path, place, bad, len(rows), _label(rows[bad[0]]))
        at = sorted(set(at) - set(bad))
        values = [rows[number]['id'] for number in at]
    zero = [number for number, value in zip(at, values) if value == 0]
    if zero and place == 'annotations':
        yield of_rows('id-zero', path, place, zero, len(rows), _label(rows[zero[0]]))
    # Segments are numbered anew in each image.
    kind = {
        'images': 'image-twice',
        'annotations': 'annotation-twice',
        'categories': 'category-twice',
    }.get(place, '')
    twice = _later(values, at) if kind else []
    if place == 'images' and twice:
        first: dict[Any, Any] = {}
        for number, value in zip(at, values):
            first.setdefault(value, rows[number].get('file_name'))
        other = [
            number for number in twice if rows[number].get('file_name') != first[rows[number]['id']]
        ]
        if other:  # nothing says whose the annotations of that id are
            yield of_rows('image-id-shared', path, place, other, len(rows), _label(rows[other[0]]))
        twice = sorted(set(twice) - set(other))
    if twice:
        yield of_rows(kind, path, place, twice, len(rows), _label(rows[twice[0]]))


def _later(values: list[Any], at: Sequence[int]) -> list[int]:
    """The positions whose value an earlier one has."""
    if len(set(values)) == len(values):
        return []
    seen: set[Any] = set()
    found = []
    for number, value in zip(at, values):
        if value in seen:
            found.append(number)
        seen.add(value)
    return found


def look_over_images(path: Path, rows: Sequence[Any]) -> Iterator[Finding]:
    """Names and sizes of the images that a file lists."""

    def told(kind: str, bad: list[int]) -> Iterator[Finding]:
        if bad:
            yield of_rows(kind, path, 'images', bad, len(rows), rows[bad[0]])

    named = [at for at, row in enumerate(rows) if have(row, 'file_name')]
    texts = [at for at in named if isinstance(rows[at]['file_name'], str)]
    yield from told('name-type', sorted(set(named) - set(texts)))
    yield from told(
        'size-type',
        [
            at
            for at, row in enumerate(rows)
            if have(row, 'width', 'height') and size_of(row) is None
        ],
    )
    yield from told('file-twice', _later([rows[at]['file_name'] for at in texts], texts))
    yield from told('name-outside', [at for at in texts if _escapes(rows[at]['file_name'])])


def size_of(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height that a row states, if they are a size."""
    size: tuple[Any, Any] = row.get('width'), row.get('height')
    if all(type(side) in (int, float) and 0 < side < 1e9 and side == int(side) for side in size):
        return int(size[0]), int(size[1])
    return None


def _escapes(name: str) -> bool:
    name = name.replace('\\', '/')
    return name.startswith('/') or name[1:3] == ':/' or '..' in name.split('/')


def look_over_categories(path: Path, rows: Sequence[Any]) -> Iterator[Finding]:
    """Names of categories, and gaps between their ids."""
    at = [number for number, row in enumerate(rows) if have(row, 'name')]
    bad = [number for number in at if not isinstance(rows[number]['name'], str)]
    if bad:
        yield of_rows('name-type', path, 'categories', bad, len(rows), rows[bad[0]])
    twice = _later([str(rows[number]['name']) for number in at], at)
    if twice:
        yield of_rows('category-name-twice', path, 'categories', twice, len(rows), rows[twice[0]])
    there = {row['id'] for row in rows if have(row, 'id') and type(row['id']) is int}
    left = max(there) - min(there) + 1 - len(there) if there else 0
    if left:
        free = next(number for number in range(min(there), max(there)) if number not in there)
        yield finding(
            'category-gap',
            f'{path}: {left} ids are left out between the first and the '
            f'last category, such as {free}',
            count=left,
            example=str(free),
            place='categories',
        )


def numbers(values: Sequence[Any], width: int) -> tuple[np.ndarray, list[int]]:
    """Lists of numbers as an array, and the positions of what is none, which are NaN in it."""
    if all(type(value) is list and len(value) == width for value in values) and set(
        map(type, chain.from_iterable(values))
    ) <= {int, float}:
        try:
            return np.fromiter(chain.from_iterable(values), float, width * len(values)).reshape(
                -1, width
            ), []
        except OverflowError:  # a whole number beyond all floats
            pass
    found, bad = np.full((len(values), width), np.nan), []
    for at, value in enumerate(values):
        if (
            type(value) is list
            and len(value) == width
            and all(type(one) in (int, float) for one in value)
        ):
            found[at] = [as_float(one) for one in value]
        else:
            bad.append(at)
    return found, bad


def as_float(value: float) -> float:
    """A number of json as a float; a whole number beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def look_over_objects(
    path: Path,
    table: Mapping[str, Any],
    *,
    masks: str = '',
    place: str = 'annotations',
    rows: Sequence[Any] | None = None,
) -> Iterator[Finding]:
    """Everything about the annotated objects of a file: links, boxes, areas and masks.

    Args:
        path: the file, for the messages.
        table: what it holds.
        masks: ``needed`` where masks are learnt or scored, ``there`` where they are along for the
            ride, empty for data without.
        place: what the rows are called.
        rows: the objects; by default the list ``annotations``.
    """
    rows = rows_of(table, 'annotations') if rows is None else rows
    sizes = {
        row['id']: size_of(row)
        for row in rows_of(table, 'images')
        if have(row, 'id') and is_id(row['id'])
    }

    def told(kind: str, bad: Iterable[int], severity: str = '') -> Iterator[Finding]:
        bad = [int(at) for at in bad]
        if bad:
            yield of_rows(
                kind, path, place, bad, len(rows), _label(rows[bad[0]]), severity=severity
            )

    known: dict[str, Container] = {
        'image_id': sizes,
        'category_id': {
            row['id']
            for row in rows_of(table, 'categories')
            if have(row, 'id') and is_id(row['id'])
        },
    }
    for key, kind in (('image_id', 'image-unknown'), ('category_id', 'category-unknown')):
        listed, values = column(rows, key)
        strange = [
            one for one, value in zip(listed, values) if type(value) is not int and not is_id(value)
        ]
        yield from told('link-type', strange)
        yield from told(
            kind,
            [
                one
                for one, is_known in zip(listed, _known(values, known[key]))
                if not is_known and is_id(rows[one][key])
            ],
        )
    listed, values = column(rows, 'iscrowd')
    yield from told(
        'iscrowd-value', [one for one, value in zip(listed, values) if value not in (0, 1)]
    )
    listed, values = column(rows, 'bbox')
    at = np.array(listed, int)
    boxes, bad = numbers(values, 4)
    yield from told('box-type', at[bad])
    inside = _sizes_for([rows[number].get('image_id') for number in listed], sizes)
    typed = np.ones(len(at), bool)
    typed[bad] = False
    for kind, those in look_over_boxes(boxes, inside, typed).items():
        yield from told(kind, at[those])
    yield from _areas(told, rows, at, boxes)
    if masks:
        severity = WARNING if masks == 'there' else ''
        masked = [one for one, number in enumerate(listed) if rows[number].get('segmentation')]
        held = [listed[one] for one in masked]
        for kind, which in look_over_masks(
            [rows[number]['segmentation'] for number in held], inside[masked], boxes[masked]
        ).items():
            yield from told(kind, [held[one] for one in which], severity)


def _label(row: Any) -> str:
    """How a message calls a row: an annotation by its id, its box and its image."""
    if not have(row, 'bbox'):
        return brief(row)
    return (
        f'{brief(row.get("id"))} (bbox {brief(row["bbox"], 60)}, image '
        f'{brief(row.get("image_id"))})'
    )


def _sizes_for(values: Sequence[Any], sizes: Mapping[Any, Any]) -> np.ndarray:
    """Width and height of the images that ids mean, NaN where they are not known: N 2."""
    unknown = (math.nan, math.nan)
    return np.array(
        [
            (sizes[value] or unknown) if is_known else unknown
            for value, is_known in zip(values, _known(values, sizes))
        ],
        float,
    ).reshape(-1, 2)


def look_over_boxes(
    boxes: np.ndarray, sizes: np.ndarray, typed: np.ndarray
) -> dict[str, np.ndarray]:
    """What is wrong with boxes.

    Args:
        boxes: N 4, x y width height.
        sizes: N 2, width height of the images; NaN where that is not known.
        typed: N, whether a row is four numbers at all.

    Returns:
        kind -> positions.
    """
    finite = np.isfinite(boxes).all(1)
    empty = finite & (boxes[:, 2:] <= 0).any(1)
    found = {'box-nonfinite': typed & ~finite, 'box-empty': empty}
    whole = finite & ~empty & np.isfinite(sizes).all(1)
    with np.errstate(invalid='ignore', over='ignore'):
        ends = boxes[:, :2] + boxes[:, 2:]
        beyond = whole & ((boxes[:, :2] < -BEYOND) | (ends > sizes + BEYOND)).any(1)
        if (
            whole.any()
            and (boxes[whole] >= 0).all()
            and (boxes[whole] <= 1).all()
            and (sizes[whole] > 2).all()
        ):
            found['box-normalised'] = whole
        elif (
            4 * beyond.sum() > whole.sum() > 3
            and (
                (boxes[whole, 2:] > boxes[whole, :2]) & (boxes[whole, 2:] <= sizes[whole] + BEYOND)
            ).all()
        ):
            found['box-corners'] = whole
        else:
            outside = whole & ((ends <= 0) | (boxes[:, :2] >= sizes)).any(1)
            huge = whole & ~outside & (boxes[:, 2:] > HUGE * sizes).any(1)
            found.update(
                {
                    'box-outside': outside,
                    'box-huge': huge,
                    'box-partly': beyond & ~outside & ~huge,
                    'box-small': finite & ~empty & (boxes[:, 2:] < 1).any(1),
                }
            )
    return {kind: np.flatnonzero(which) for kind, which in found.items()}


def _areas(told: Any, rows: Sequence[Any], at: np.ndarray, boxes: np.ndarray) -> Iterator[Finding]:
    order = [one for one, number in enumerate(at) if 'area' in rows[number]]
    at, boxes = at[order], boxes[order]
    areas, bad = numbers([[rows[number]['area']] for number in at], 1)
    areas = areas[:, 0]
    unsound = ~np.isfinite(areas)
    yield from told('area-type', at[unsound])
    with np.errstate(invalid='ignore', over='ignore'):
        yield from told('area-negative', at[~unsound & (areas <= 0)])
        room = boxes[:, 2] * boxes[:, 3]
        yield from told('area-large', at[~unsound & (room > 0) & (areas > 1.05 * room + 1)])
