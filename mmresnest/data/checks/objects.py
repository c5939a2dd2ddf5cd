"""Annotated objects as columns, and the table of what can be wrong with them.

A file of COCO's size has 860 000 annotations: the rows are read once into columns, and a check is a
function of the columns that says which rows are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from .findings import WARNING, Finding, make_finding, make_rows_finding
from .masks import MASK_KINDS, find_mask_faults
from .rows import (
    ABSENT,
    collect_ids,
    get_rows,
    has_fields,
    is_id,
    label_row,
    parse_size,
    read_column,
    to_array,
)

BEYOND = 1.0
"""Pixels by which a box may leave its image: COCO's own do, by rounding."""
HUGE = 4
"""Times the image's side from which a box is taken for one of another scale."""


@dataclass(frozen=True)
class ObjectTable:
    """The objects of an annotation file as columns of N entries, read when a check asks for them.

    Attributes:
        table: what the file holds.
        rows: the objects: its annotations, or the segments in them.
    """

    table: Mapping[str, Any]
    rows: Sequence[Any]

    @cached_property
    def image(self) -> list[Any]:
        """N ids of their images, ``ABSENT`` where there is none."""
        return read_column(self.rows, 'image_id')

    @cached_property
    def mask(self) -> list[Any]:
        """N instance masks, ``ABSENT`` where there is none."""
        return read_column(self.rows, 'segmentation')

    @cached_property
    def known_images(self) -> dict[Any, tuple[int, int] | None]:
        """The width and height of the listed images, by their id."""
        images = [row for row in get_rows(self.table, 'images') if has_fields(row, 'id')]
        return {row['id']: parse_size(row) for row in images if is_id(row['id'])}

    @cached_property
    def size(self) -> np.ndarray:
        """N 2: width and height of the images, NaN where they are not known."""
        unknown = (np.nan, np.nan)
        known = self.known_images
        sizes = [(known.get(key) if is_id(key) else None) or unknown for key in self.image]
        return np.array(sizes, float).reshape(-1, 2)

    @cached_property
    def boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """N 4: x y width height, NaN where a box is not four numbers; N which are; N are there."""
        values = read_column(self.rows, 'bbox')
        return *to_array(values, 4), mark_values(values, lambda value: True)

    @property
    def box(self) -> np.ndarray:
        """N 4: x y width height, NaN where that is not what there is."""
        return self.boxes[0]

    @cached_property
    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """N: areas, NaN where one is no number; N which are there."""
        values = read_column(self.rows, 'area')
        area, _ = to_array([[value] for value in values], 1)
        return area[:, 0], mark_values(values, lambda value: True)

    @cached_property
    def finite(self) -> np.ndarray:
        """N: boxes of finite numbers."""
        return np.isfinite(self.box).all(1)

    @cached_property
    def empty(self) -> np.ndarray:
        """N: finite boxes without area."""
        return self.finite & (self.box[:, 2:] <= 0).any(1)

    @cached_property
    def placed(self) -> np.ndarray:
        """N: boxes with an area in an image of known size."""
        return self.finite & ~self.empty & np.isfinite(self.size).all(1)

    @cached_property
    def ends(self) -> np.ndarray:
        """N 2: the lower right corners."""
        return self.box[:, :2] + self.box[:, 2:]

    @cached_property
    def beyond(self) -> np.ndarray:
        """N: boxes that leave their image."""
        outside = (self.box[:, :2] < -BEYOND) | (self.ends > self.size + BEYOND)
        return self.placed & outside.any(1)

    @cached_property
    def form(self) -> str:
        """What the boxes look like: ``shares`` of the image, ``corners``, or ``pixels``."""
        box, size = self.box[self.placed], self.size[self.placed]
        if len(box) and (box >= 0).all() and (box <= 1).all() and (size > 2).all():
            return 'shares'
        ordered = (box[:, 2:] > box[:, :2]) & (box[:, 2:] <= size + BEYOND)
        if 4 * self.beyond.sum() > len(box) > 3 and ordered.all():
            return 'corners'
        return 'pixels'

    @cached_property
    def mask_faults(self) -> dict[str, np.ndarray]:
        """N for each kind of fault of an instance mask."""
        at = np.flatnonzero(mark_values(self.mask, bool))
        found = find_mask_faults([self.mask[one] for one in at], self.size[at], self.box[at])
        return {kind: _spread(at[which], len(self.rows)) for kind, which in found.items()}


def mark_values(values: Sequence[Any], test: Callable[[Any], bool]) -> np.ndarray:
    """Return which values are there and pass a test: N."""
    return np.fromiter((one is not ABSENT and test(one) for one in values), bool, len(values))


def _spread(at: Any, count: int) -> np.ndarray:
    which = np.zeros(count, bool)
    which[at] = True
    return which


def has_odd_link(table: ObjectTable) -> np.ndarray:
    """Return objects whose image or category is no id."""
    return mark_values(table.image, _is_odd) | mark_values(
        read_column(table.rows, 'category_id'), _is_odd
    )


def _is_odd(value: Any) -> bool:
    return type(value) is not int and not is_id(value)


def has_unknown_image(table: ObjectTable) -> np.ndarray:
    """Return objects of images that are not listed."""
    return mark_values(table.image, lambda key: is_id(key) and key not in table.known_images)


def has_unknown_category(table: ObjectTable) -> np.ndarray:
    """Return objects of categories that are not listed."""
    known = set(collect_ids(get_rows(table.table, 'categories')))
    values = read_column(table.rows, 'category_id')
    return mark_values(values, lambda key: is_id(key) and key not in known)


def has_odd_crowd(table: ObjectTable) -> np.ndarray:
    """Return objects whose ``iscrowd`` is neither 0 nor 1."""
    return mark_values(read_column(table.rows, 'iscrowd'), lambda value: value not in (0, 1))


def has_odd_box(table: ObjectTable) -> np.ndarray:
    """Return objects whose box is not four numbers."""
    _, typed, there = table.boxes
    return there & ~typed


def has_infinite_box(table: ObjectTable) -> np.ndarray:
    """Return objects whose box has a number that is not finite."""
    return table.boxes[1] & ~table.finite


def has_empty_box(table: ObjectTable) -> np.ndarray:
    """Return objects whose box has no area."""
    return table.empty


def has_shares(table: ObjectTable) -> np.ndarray:
    """Return the boxes of a file whose boxes are shares of the image."""
    return table.placed & (table.form == 'shares')


def has_corners(table: ObjectTable) -> np.ndarray:
    """Return the boxes of a file whose boxes are two corners."""
    return table.placed & (table.form == 'corners')


def is_outside(table: ObjectTable) -> np.ndarray:
    """Return boxes that have no pixel of their image."""
    outside = ((table.ends <= 0) | (table.box[:, :2] >= table.size)).any(1)
    return table.placed & outside & (table.form == 'pixels')


def is_huge(table: ObjectTable) -> np.ndarray:
    """Return boxes several times as large as their image."""
    huge = (table.box[:, 2:] > HUGE * table.size).any(1) & (table.form == 'pixels')
    return table.placed & huge & ~is_outside(table)


def is_partly_outside(table: ObjectTable) -> np.ndarray:
    """Return boxes that leave their image, and that clipping would save."""
    return table.beyond & (table.form == 'pixels') & ~is_outside(table) & ~is_huge(table)


def is_small(table: ObjectTable) -> np.ndarray:
    """Return boxes narrower or lower than a pixel, which mmdet passes over."""
    small = (table.box[:, 2:] < 1).any(1) & (table.form == 'pixels')
    return table.finite & ~table.empty & small


def is_repeated(table: ObjectTable) -> np.ndarray:
    """Return objects that are another one of their image once more: class, box and mask."""
    rows, known = np.zeros(len(table.rows), bool), dict[Any, list[Any]]()
    categories = read_column(table.rows, 'category_id')
    crowds = mark_values(read_column(table.rows, 'iscrowd'), bool)
    boxes = table.box.tolist()  # a file may have a million, and rows of an array are slow to take
    for at in np.flatnonzero(table.finite & ~crowds).tolist():
        if is_id(table.image[at]) and is_id(categories[at]):
            same = known.setdefault((table.image[at], categories[at], *boxes[at]), [])
            rows[at] = table.mask[at] in same
            same.append(table.mask[at])
    return rows


def has_odd_area(table: ObjectTable) -> np.ndarray:
    """Return objects whose area is no finite number."""
    area, there = table.areas
    return there & ~np.isfinite(area)


def has_no_area(table: ObjectTable) -> np.ndarray:
    """Return objects whose area is 0 or less, which mmdet passes over."""
    area, _ = table.areas
    return np.isfinite(area) & (area <= 0)


def has_large_area(table: ObjectTable) -> np.ndarray:
    """Return objects whose area is more than that of their box."""
    room = table.box[:, 2] * table.box[:, 3]
    area, _ = table.areas
    return np.isfinite(area) & (room > 0) & (area > 1.05 * room + 1)


def has_mask_fault(table: ObjectTable, kind: str) -> np.ndarray:
    """Return objects whose mask has a fault of one kind."""
    return table.mask_faults.get(kind, np.zeros(len(table.rows), bool))


OBJECT_CHECKS: dict[str, Callable[[ObjectTable], np.ndarray]] = {
    'link-type': has_odd_link,
    'image-unknown': has_unknown_image,
    'category-unknown': has_unknown_category,
    'iscrowd-value': has_odd_crowd,
    'box-type': has_odd_box,
    'box-nonfinite': has_infinite_box,
    'box-empty': has_empty_box,
    'box-normalised': has_shares,
    'box-corners': has_corners,
    'box-outside': is_outside,
    'box-huge': is_huge,
    'box-partly': is_partly_outside,
    'box-small': is_small,
    'box-repeated': is_repeated,
    'area-type': has_odd_area,
    'area-negative': has_no_area,
    'area-large': has_large_area,
}
"""Kind of finding -> which rows have it."""

MASK_CHECKS = {kind: partial(has_mask_fault, kind=kind) for kind in MASK_KINDS}


LEARNED = {
    'an "iscrowd" that is not 0': lambda table: mark_values(
        read_column(table.rows, 'iscrowd'), bool
    ),
    'an "area" that is not above 0': lambda table: ~(table.areas[0] > 0),
    'a "bbox" narrower or lower than a pixel': lambda table: ~(table.box[:, 2:] >= 1).all(1),
    'a "bbox" outside of the image': lambda table: table.placed & ~_overlaps(table),
    'an "image_id" that no image has': has_unknown_image,
    'a "category_id" that no category has': has_unknown_category,
}
"""What mmdet passes over in training -> which rows."""
SCORED = [key for key in LEARNED if 'area' not in key and 'bbox' not in key]
"""What no score counts."""
OWN = [key for key in LEARNED if '_id' not in key and 'outside' not in key]
"""What a row says by itself."""


def _overlaps(table: ObjectTable) -> np.ndarray:
    return np.all((table.ends > 0) & (table.box[:, :2] < table.size), axis=1)


def check_usable(
    path: Path, table: Mapping[str, Any], split: str, whole: bool
) -> Iterator[Finding]:
    """Yield that no object is left to learn from, or to score against.

    Args:
        path: the file, for the message.
        table: what it holds.
        split: ``train``, ``val`` or ``test``.
        whole: whether that is all of it.
    """
    objects = ObjectTable(table, get_rows(table, 'annotations'))
    keys = [key for key in (LEARNED if split == 'train' else SCORED) if whole or key in OWN]
    with np.errstate(invalid='ignore'):
        passed = {key: LEARNED[key](objects) for key in keys}
    if not objects.rows or not np.any(list(passed.values()), axis=0).all():
        return
    counts = {key: int(which.sum()) for key, which in passed.items() if which.any()}
    worst = max(counts, key=lambda key: counts[key])
    yield make_finding(
        'objects-none',
        path=path,
        total=len(objects.rows),
        purpose='learned from' if split == 'train' else 'scored against',
        reasons=', '.join(f'{count} have {key}' for key, count in counts.items()),
        advice='write "iscrowd": 0 for single objects: 1 stands for a crowd, which is ignored'
        if 'iscrowd' in worst
        else f'correct {worst.split()[1]} of the annotations',
        count=counts[worst],
        example=worst,
    )


def check_objects(
    path: Path,
    table: Mapping[str, Any],
    *,
    masks: str = '',
    place: str = 'annotations',
    rows: Sequence[Any] | None = None,
    kinds: Sequence[str] = tuple(OBJECT_CHECKS),
) -> Iterator[Finding]:
    """Yield all that is wrong with annotated objects: links, boxes, areas and masks.

    Args:
        path: the file, for the messages.
        table: what it holds.
        masks: ``needed`` where masks are learnt or scored, ``there`` where they are not used, empty
            for data without.
        place: what the rows are called.
        rows: the objects; by default the list ``annotations``.
        kinds: what to look for beside the masks.
    """
    rows = get_rows(table, 'annotations') if rows is None else rows
    objects, checks = ObjectTable(table, rows), OBJECT_CHECKS | MASK_CHECKS
    for kind in (*kinds, *(MASK_CHECKS if masks else ())):
        with np.errstate(invalid='ignore', over='ignore'):
            bad = np.flatnonzero(checks[kind](objects)).tolist()
        if bad:
            severity = WARNING if masks == 'there' and kind in MASK_CHECKS else ''
            example = label_row(rows[bad[0]])
            yield make_rows_finding(kind, path, place, bad, len(rows), example, severity=severity)
