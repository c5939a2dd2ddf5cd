"""Lists of a COCO annotation file: fields, ids, images and categories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .findings import Finding, make_finding, make_rows_finding, shorten
from .rows import ABSENT, find_repeated, has_fields, is_id, label_row, parse_size, read_column

_REMEDIES = {
    'area': 'add "area": width * height of the box, as --fix does',
    'iscrowd': 'add "iscrowd": 0, as --fix does',
    'segments_info': 'that is plain COCO, for a config of boxes or masks such as '
    'mask_rcnn_resnest50_fpn; panoptic annotations list the segments of an image, '
    'with the colours of a mask',
    'isthing': 'add "isthing": 1 for what can be counted, 0 for the rest',
}
_REPEATED = {
    'images': 'image-twice',
    'annotations': 'annotation-twice',
    'categories': 'category-twice',
}
"""Kinds of ids that stand twice; segments are numbered anew in each image."""


def check_fields(
    where: Any, place: str, rows: Sequence[Any], keys: Iterable[str]
) -> Iterator[Finding]:
    """Yield rows that lack a field that will be asked of them.

    Args:
        where: the file, for the message.
        place: what the rows are called there.
        rows: what should be dictionaries.
        keys: their fields.
    """
    for key in keys:
        bad = [at for at, value in enumerate(read_column(rows, key)) if value is ABSENT]
        if bad:
            kind = f'{key}-missing' if key in ('area', 'iscrowd') else 'field-missing'
            first = rows[bad[0]]
            first = shorten(str(first) if isinstance(first, str) else first, 80)
            yield make_finding(
                kind,
                f'{where}: {len(bad)} of {len(rows)} {place} lack the field '
                f'{key!r}, the first is {first}',
                _REMEDIES.get(key, 'export the file again'),
                count=len(bad),
                example=first,
                place=place,
                rows=bad,
            )


def check_ids(path: Path, place: str, rows: Sequence[Any]) -> Iterator[Finding]:
    """Yield rows whose id is none, or stands more than once."""

    def report(kind: str, bad: Sequence[int]) -> Iterator[Finding]:
        if bad:
            yield make_rows_finding(kind, path, place, bad, len(rows), label_row(rows[bad[0]]))

    ids = {at: value for at, value in enumerate(read_column(rows, 'id')) if value is not ABSENT}
    odd = [at for at, value in ids.items() if not is_id(value)]
    yield from report('id-type', odd)
    for at in odd:
        del ids[at]
    if place == 'annotations':
        yield from report('id-zero', [at for at, value in ids.items() if value == 0])
    repeated = find_repeated(list(ids.values()), list(ids)) if place in _REPEATED else []
    if place == 'images' and repeated:
        first: dict[Any, Any] = {}
        for at, value in ids.items():
            first.setdefault(value, rows[at].get('file_name'))
        # Nothing says whose the annotations of such an id are.
        shared = [at for at in repeated if rows[at].get('file_name') != first[rows[at]['id']]]
        yield from report('image-id-shared', shared)
        repeated = sorted(set(repeated) - set(shared))
    yield from report(_REPEATED.get(place, ''), repeated)


def check_images(path: Path, rows: Sequence[Any]) -> Iterator[Finding]:
    """Yield images whose listed name or size cannot be used."""

    def report(kind: str, bad: list[int]) -> Iterator[Finding]:
        if bad:
            yield make_rows_finding(kind, path, 'images', bad, len(rows), rows[bad[0]])

    names = dict(enumerate(read_column(rows, 'file_name')))
    names = {at: name for at, name in names.items() if name is not ABSENT}
    texts = {at: name for at, name in names.items() if isinstance(name, str)}
    sized = [at for at, row in enumerate(rows) if has_fields(row, 'width', 'height')]
    yield from report('name-type', [at for at in names if at not in texts])
    yield from report('size-type', [at for at in sized if parse_size(rows[at]) is None])
    yield from report('file-twice', find_repeated(list(texts.values()), list(texts)))
    yield from report('name-outside', [at for at, name in texts.items() if leads_out(name)])


def leads_out(name: str) -> bool:
    """Return whether a file name is absolute or leads out of its folder."""
    name = name.replace('\\', '/')
    return name.startswith('/') or name[1:3] == ':/' or '..' in name.split('/')


def check_categories(path: Path, rows: Sequence[Any]) -> Iterator[Finding]:
    """Yield categories whose names cannot be used, and gaps between their ids."""
    at = [number for number, row in enumerate(rows) if has_fields(row, 'name')]
    odd = [number for number in at if not isinstance(rows[number]['name'], str)]
    repeated = find_repeated([str(rows[number]['name']) for number in at], at)
    for kind, bad in (('name-type', odd), ('category-name-twice', repeated)):
        if bad:
            yield make_rows_finding(kind, path, 'categories', bad, len(rows), rows[bad[0]])
    there = {row['id'] for row in rows if has_fields(row, 'id') and type(row['id']) is int}
    left = max(there) - min(there) + 1 - len(there) if there else 0
    if left:
        free = next(number for number in range(min(there), max(there)) if number not in there)
        yield make_finding(
            'category-gap',
            path=path,
            left=left,
            free=free,
            count=left,
            example=str(free),
            place='categories',
        )
