"""COCO's panoptic annotations: segments, their order, and the masks beside the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .coco import check_fields
from .findings import Finding, make_finding, make_rows_finding, shorten
from .rows import ABSENT, get_rows, has_fields, read_column

SEGMENT_FIELDS = ('id', 'category_id', 'bbox', 'area', 'iscrowd')


def list_segments(rows: Sequence[Any]) -> list[Any]:
    """Return all segments of all images, each with the id of its image."""
    return [
        {'image_id': row.get('image_id'), **one} if isinstance(one, dict) else one
        for row in rows
        if has_fields(row, 'segments_info') and isinstance(row['segments_info'], list)
        for one in row['segments_info']
    ]


def check_segments(path: Path, table: Mapping[str, Any], known: Iterable[Any]) -> Iterator[Finding]:
    """Yield annotations that do not list segments of known categories.

    Args:
        path: the file, for the message.
        table: what it holds.
        known: ids of the categories that are read.
    """
    rows, names = get_rows(table, 'annotations'), list(known)
    yield from check_fields(path, 'annotations', rows, ('image_id', 'segments_info'))
    lists = enumerate(read_column(rows, 'segments_info'))
    odd = [at for at, value in lists if value is not ABSENT and not isinstance(value, list)]
    if odd:
        yield make_rows_finding('segments-type', path, 'annotations', odd, len(rows), rows[odd[0]])
    segments = list_segments(rows)
    yield from check_fields(path, 'segments', segments, SEGMENT_FIELDS)
    bad = [
        one
        for one in segments
        if has_fields(one, 'category_id') and one['category_id'] not in names
    ]
    if bad:
        yield make_finding(
            'segment-category',
            path=path,
            id=shorten(bad[0].get('id')),
            image=shorten(bad[0]['image_id']),
            category=shorten(bad[0]['category_id']),
            known=sorted(names, key=str)[:20],
            count=len(bad),
            example=shorten(bad[0].get('id')),
        )


def name_mask(image_name: str) -> str:
    """Return the name that mmdet gives a mask, whatever the annotation's file_name says."""
    return image_name.replace('.jpg', '.png')


def check_masks(path: Path, table: Mapping[str, Any], masks: Path, most: int) -> Iterator[Finding]:
    """Yield images without their panoptic masks, by a sample of them.

    Args:
        path: the file, for the message.
        table: what it holds.
        masks: the folder of the masks.
        most: about how many to look for.
    """
    rows = [row for row in get_rows(table, 'images') if has_fields(row, 'file_name')]
    names = [name_mask(str(row['file_name'])) for row in rows[:: max(1, len(rows) // most)]]
    lost = [name for name in names if not (masks / name).is_file()]
    if lost:
        yield make_finding(
            'label-missing',
            f'{path}: {len(lost)} of {len(names)} masks looked for do '
            f'not exist, such as {masks / lost[0]}',
            'a mask is a png named like its image',
            count=len(lost),
            example=masks / lost[0],
        )


def check_things_first(path: Path, categories: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield stuff before a thing: labels are positions, and mmdet's things come first."""
    thing = [bool(row['isthing']) for row in categories]
    if thing != sorted(thing, reverse=True):
        stuff = categories[thing.index(False)]['name']
        late = categories[len(thing) - 1 - thing[::-1].index(True)]['name']
        yield make_finding(
            'thing-order',
            path=path,
            stuff=shorten(repr(stuff)),
            thing=shorten(repr(late)),
            example=shorten(stuff),
        )


def count_things(categories: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of the categories are things."""
    return sum(bool(row.get('isthing')) for row in categories)
