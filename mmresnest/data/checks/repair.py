"""Repair annotation files: what is wrong with rows is undone, over and over until nothing is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...utils.files import write_whole
from .findings import KINDS, Finding
from .masks import find_polygon_fault
from .rows import collect_ids, get_rows, has_fields, is_id, is_list_of_numbers, parse_size, to_float

_ROUNDS = 10
"""What one repair leaves, such as annotations of a dropped image, the next round repairs."""

Row = dict[str, Any]


@dataclass
class Context:
    """What the repair of a row has to know of its file.

    Attributes:
        sizes: width and height of images by their id.
        next_id: an id that no row has.
        needs_masks: whether an object without a mask is of no use.
    """

    sizes: Mapping[Any, tuple[int, int] | None]
    next_id: int
    needs_masks: bool


def drop_row(row: Row, context: Context) -> None:
    """Drop a row."""


def clip_box(row: Row, context: Context) -> Row:
    """Return a row whose box ends where its image does; an area that was the box's stays so."""
    size = context.sizes[row['image_id']]
    assert size is not None  # or the box could not be found to leave it
    x, y, width, height = row['bbox']
    left, top = max(x, 0), max(y, 0)
    box = [left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top]
    new = {**row, 'bbox': box}
    if type(row.get('area')) in (int, float) and row['area'] > box[2] * box[3]:
        new['area'] = box[2] * box[3]
    return new


def set_area(row: Row, context: Context) -> Row:
    """Return a row with the area of its box; 0 where it has none, and then it is dropped."""
    box: Any = row.get('bbox')
    area = to_float(box[2]) * to_float(box[3]) if is_list_of_numbers(box, 4) else 0.0
    return {**row, 'area': area}


def set_iscrowd(row: Row, context: Context) -> Row:
    """Return a row whose ``iscrowd`` is 0 or 1."""
    return {**row, 'iscrowd': int(bool(row.get('iscrowd')) and row['iscrowd'] != '0')}


def renumber_row(row: Row, context: Context) -> Row:
    """Return a row with an id of its own."""
    context.next_id += 1
    return {**row, 'id': context.next_id - 1}


def drop_mask(row: Row, context: Context) -> Row | None:
    """Return a row without mask, or drop it where masks are needed."""
    if context.needs_masks:
        return None
    return {key: value for key, value in row.items() if key != 'segmentation'}


def drop_polygons(row: Row, context: Context) -> Row:
    """Return a row without the polygons that cannot be used."""
    sound = [polygon for polygon in row.get('segmentation', ()) if not find_polygon_fault(polygon)]
    return {**row, 'segmentation': sound}


REPAIRS: dict[str, tuple[Callable[[Row, Context], Row | None], str]] = {
    'drop': (drop_row, 'dropped'),
    'clip': (clip_box, 'clipped'),
    'area': (set_area, 'given an area'),
    'iscrowd': (set_iscrowd, 'given an iscrowd'),
    'renumber': (renumber_row, 'given another id'),
    'mask': (drop_mask, 'rid of masks'),
    'polygons': (drop_polygons, 'rid of polygons'),
}
"""The repairs that the table of kinds names: what makes a new row, and what is said of it."""


def is_repairable(one: Finding) -> bool:
    """Return whether rows of an annotation file can be repaired."""
    # An image without a name or size may have annotations worth repairing by hand.
    by_hand = one.place == 'images' and one.kind in ('field-missing', 'id-type')
    known = one.place in ('images', 'annotations') and not by_hand
    return bool(KINDS[one.kind].repair) and bool(one.rows) and known


def repair_table(
    table: dict[str, Any],
    files: Iterable[Finding],
    check: Callable[[dict[str, Any]], Iterable[Finding]],
    needs_masks: bool,
) -> tuple[dict[str, Any], Counter[str]]:
    """Repair an annotation file as far as that can be done.

    Args:
        table: what it holds; left alone.
        files: what is wrong with the images it lists.
        check: finds what is wrong with a table.
        needs_masks: whether an object without a mask is of no use.

    Returns:
        the new table, and what was done -> to how many rows.
    """
    done: Counter[str] = Counter()
    table, first = dict(table), list(files)
    for _ in range(_ROUNDS):
        found = [one for one in (*first, *check(table)) if is_repairable(one)]
        if not found:
            break
        first = []
        for place in ('images', 'annotations'):
            rows: list[Any] = list(get_rows(table, place))
            context = _read_context(table, rows, needs_masks)
            for one in found:
                if one.place == place:
                    _repair_rows(one, rows, context, done)
            if place in table:
                table[place] = [row for row in rows if row is not None]
    return table, done


def _read_context(table: Mapping[str, Any], rows: Sequence[Any], needs_masks: bool) -> Context:
    images = [row for row in get_rows(table, 'images') if has_fields(row, 'id')]
    sizes = {row['id']: parse_size(row) for row in images if is_id(row['id'])}
    numbers = [one for one in collect_ids(rows) if type(one) is int]
    return Context(sizes, max(numbers, default=0) + 1, needs_masks)


def _repair_rows(one: Finding, rows: list[Any], context: Context, done: Counter[str]) -> None:
    """Put repaired rows, or None for those to be dropped, in the place of a finding's rows."""
    repair, said = REPAIRS[KINDS[one.kind].repair]
    for at in one.rows:
        if rows[at] is not None:
            rows[at] = repair(rows[at], context)
            what = 'dropped' if rows[at] is None else said
            done[f'{one.place} {what} ({one.kind})'] += 1


def check_target(target: Path, source: Path, force: bool) -> None:
    """Make sure that nothing of value is written over.

    Raises:
        UserError: the target is the source, by whatever name, or exists.
    """
    if os.path.exists(target) and os.path.samefile(target, source):
        raise UserError(
            f'--fix {target} is the annotation file itself, {source}, which is never '
            'written; name another file',
            code='option.overwrites-input',
        )
    if os.path.lexists(target) and not force:
        raise UserError(
            f'--fix {target} exists; name another file, or give --force to replace it',
            code='option.exists',
        )


def write_table(table: dict[str, Any], target: Path) -> None:
    """Write an annotation file.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        text = json.dumps(table).encode()
        write_whole(target, lambda out: out.write(text))
    except (OSError, RecursionError) as error:
        raise UserError(
            f'{target} cannot be written: {error}; name another place', code='file.unwritable'
        ) from error
