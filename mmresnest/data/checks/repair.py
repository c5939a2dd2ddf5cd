"""Annotation files mended: what is wrong with rows is undone, over and over until nothing is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...utils.files import write_whole
from .coco import as_float, have, is_id, rows_of, size_of
from .findings import KINDS, Finding
from .masks import polygon_fault

_ROUNDS = 10
"""What one repair leaves, such as annotations of a dropped image, the next round mends."""
_DONE = dict(
    drop='dropped',
    clip='clipped',
    area='given an area',
    iscrowd='given an iscrowd',
    renumber='given another id',
    mask='rid of masks',
    polygons='rid of polygons',
)


def is_mendable(one: Finding) -> bool:
    """Whether rows of an annotation file can be mended."""
    # An image without a name or size may have annotations worth mending by hand.
    return (
        bool(KINDS[one.kind].repair)
        and bool(one.rows)
        and (
            one.place == 'annotations'
            or (one.place == 'images' and one.kind not in ('field-missing', 'id-type'))
        )
    )


def mend(
    table: dict[str, Any],
    files: Iterable[Finding],
    look: Callable[[dict[str, Any]], Iterable[Finding]],
    masks: bool,
) -> tuple[dict[str, Any], Counter[str]]:
    """Mends an annotation file as far as that can be done.

    Args:
        table: what it holds; left alone.
        files: what is wrong with the images it lists.
        look: finds what is wrong with a table.
        masks: whether an object without a mask is of no use.

    Returns:
        the new table, and what was done -> to how many rows.
    """
    done: Counter[str] = Counter()
    table = dict(table)
    for round_ in range(_ROUNDS):
        found = [one for one in (*(files if round_ == 0 else ()), *look(table)) if is_mendable(one)]
        if not found:
            break
        for place in ('images', 'annotations'):
            rows: list[Any] = list(rows_of(table, place))
            for one in found:
                if one.place == place:
                    _apply(one, rows, table, masks, done)
            if place in table:
                table[place] = [row for row in rows if row is not None]
    return table, done


def _apply(
    one: Finding, rows: list[Any], table: dict[str, Any], masks: bool, done: Counter[str]
) -> None:
    """Puts mended rows, or None for those to be dropped, in the place of a finding's rows."""
    how = KINDS[one.kind].repair
    if how == 'mask' and masks:
        how = 'drop'
    sizes: dict[Any, Any] = (
        {
            row['id']: size_of(row)
            for row in rows_of(table, 'images')
            if have(row, 'id') and is_id(row['id'])
        }
        if how == 'clip'
        else {}
    )
    free = (
        max((row['id'] for row in rows if have(row, 'id') and type(row['id']) is int), default=0)
        + 1
    )
    for at in one.rows:
        row = rows[at]
        if row is None:
            continue
        if how == 'drop':
            rows[at] = None
        elif how == 'clip':
            rows[at] = _clipped(row, sizes[row['image_id']])
        elif how == 'area':
            rows[at] = {**row, 'area': _room(row.get('bbox'))}
        elif how == 'iscrowd':
            rows[at] = {**row, 'iscrowd': int(bool(row.get('iscrowd')) and row['iscrowd'] != '0')}
        elif how == 'renumber':
            rows[at] = {**row, 'id': free}
            free += 1
        elif how == 'mask':
            rows[at] = {key: value for key, value in row.items() if key != 'segmentation'}
        else:
            rows[at] = {
                **row,
                'segmentation': [
                    polygon for polygon in row.get('segmentation', ()) if not polygon_fault(polygon)
                ],
            }
        done[f'{one.place} {_DONE[how]} ({one.kind})'] += 1


def _room(box: Any) -> float:
    """The area of a box, 0 where it is none; then the box is dropped."""
    if isinstance(box, list) and len(box) == 4 and all(type(one) in (int, float) for one in box):
        return as_float(box[2]) * as_float(box[3])
    return 0.0


def _clipped(row: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A row whose box ends where its image does; an area that was the box's stays so."""
    x, y, width, height = row['bbox']
    left, top = max(x, 0), max(y, 0)
    box = [left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top]
    new = {**row, 'bbox': box}
    if type(row.get('area')) in (int, float) and row['area'] > box[2] * box[3]:
        new['area'] = box[2] * box[3]
    return new


# ---- writing -------------------------------------------------------------------------------------


def check_target(target: Path, source: Path, force: bool) -> None:
    """Makes sure that nothing of value is written over.

    Raises:
        UserError: the target is the source, by whatever name, or exists.
    """
    if os.path.exists(target) and os.path.samefile(target, source):
        raise UserError(
            f'--fix {target} is the annotation file itself, {source}, which is never '
            'written; name another file'
        )
    if os.path.lexists(target) and not force:
        raise UserError(f'--fix {target} exists; name another file, or give --force to replace it')


def write_table(table: dict[str, Any], target: Path) -> None:
    """Writes an annotation file.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        text = json.dumps(table).encode()
        write_whole(target, lambda out: out.write(text))
    except (OSError, RecursionError) as error:
        raise UserError(f'{target} cannot be written: {error}; name another place') from error
