"""COCO's panoptic annotations, looked over: segments, their order, and masks beside the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .coco import column, have, missing_fields, rows_of
from .findings import Finding, brief, finding, of_rows

SEGMENT_FIELDS = ('id', 'category_id', 'bbox', 'area', 'iscrowd')


def segments_of(rows: Sequence[Any]) -> list[Any]:
    """All segments of all images, each with the id of its image."""
    return [
        {'image_id': row.get('image_id'), **one} if isinstance(one, dict) else one
        for row in rows
        if have(row, 'segments_info') and isinstance(row['segments_info'], list)
        for one in row['segments_info']
    ]


def look_over_segments(
    path: Path, table: Mapping[str, Any], known: Iterable[Any]
) -> Iterator[Finding]:
    """Annotations that do not list segments of known categories.

    Args:
        path: the file, for the message.
        table: what it holds.
        known: ids of the categories that are read.
    """
    rows, names = rows_of(table, 'annotations'), list(known)
    yield from missing_fields(path, 'annotations', rows, ('image_id', 'segments_info'))
    listed, values = column(rows, 'segments_info')
    strange = [at for at, value in zip(listed, values) if not isinstance(value, list)]
    if strange:
        yield of_rows('segments-type', path, 'annotations', strange, len(rows), rows[strange[0]])
    segments = segments_of(rows)
    yield from missing_fields(path, 'segments', segments, SEGMENT_FIELDS)
    bad = [one for one in segments if have(one, 'category_id') and one['category_id'] not in names]
    if bad:
        yield finding(
            'segment-category',
            f'{path}: the segment {brief(bad[0].get("id"))} of image '
            f'{brief(bad[0]["image_id"])} has category_id {brief(bad[0]["category_id"])}'
            f', which is not among the categories {sorted(names, key=str)[:20]}',
            'add it there',
            count=len(bad),
            example=brief(bad[0].get('id')),
        )


def mask_name(image_name: str) -> str:
    """Under which name mmdet looks for a mask, whatever the annotation's file_name says."""
    return image_name.replace('.jpg', '.png')


def look_for_masks(
    path: Path, table: Mapping[str, Any], masks: Path, most: int
) -> Iterator[Finding]:
    """Images without their panoptic masks, by a sample of them.

    Args:
        path: the file, for the message.
        table: what it holds.
        masks: the folder of the masks.
        most: about how many to look for.
    """
    rows = [row for row in rows_of(table, 'images') if have(row, 'file_name')]
    names = [mask_name(str(row['file_name'])) for row in rows[:: max(1, len(rows) // most)]]
    lost = [name for name in names if not (masks / name).is_file()]
    if lost:
        yield finding(
            'label-missing',
            f'{path}: {len(lost)} of {len(names)} masks looked for do '
            f'not exist, such as {masks / lost[0]}',
            'a mask is a png named like its image',
            count=len(lost),
            example=str(masks / lost[0]),
        )


def look_over_things(path: Path, categories: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Stuff before a thing: labels are positions, and mmdet's things come first."""
    thing = [bool(row['isthing']) for row in categories]
    if thing != sorted(thing, reverse=True):
        stuff = categories[thing.index(False)]['name']
        late = categories[len(thing) - 1 - thing[::-1].index(True)]['name']
        yield finding(
            'thing-order',
            f'{path}: the categories must list all things (isthing 1) before all stuff '
            f'(isthing 0), and {brief(repr(stuff))} stands before '
            f'{brief(repr(late))}',
            'reorder the list',
            example=brief(stuff),
        )


def count_things(categories: Sequence[Mapping[str, Any]]) -> int:
    """How many of the categories are things."""
    return sum(bool(row['isthing']) for row in categories)
