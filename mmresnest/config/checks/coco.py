"""Check a COCO annotation file against the config that reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...data.checks.coco import check_categories, check_fields, check_ids, check_images
from ...data.checks.findings import WARNING, Finding, make_finding, make_rows_finding
from ...data.checks.images import ImageFile, find_mismatch, read_headers
from ...data.checks.masks import has_run_lengths
from ...data.checks.objects import check_objects, check_usable
from ...data.checks.panoptic import check_segments, list_segments
from ...data.checks.rows import BACKSLASH, FIELDS, describe_list, get_rows, has_fields, parse_size
from ..inspect import task_of
from .classes import check_classes, select_categories
from .part import SAMPLED, Part


def check_table(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    """Yield what is wrong with an annotation file, and between it and the config.

    Args:
        part: the data set.
        table: what the file holds.
        whole: whether that is all of it.
    """
    path, panoptic = part.path, part.kind == 'panoptic'
    # Images that are scored elsewhere come without annotations, and need no categories.
    alone = part.split == 'test' and not get_rows(table, 'annotations')
    for name in ('images', *(() if alone else ('categories', 'annotations'))):
        if not get_rows(table, name):
            yield make_finding(
                'list-missing',
                path=path,
                name=name,
                what=describe_list(table.get(name)),
                purpose='learn from' if part.split == 'train' else 'score against',
                or_name=f', or name another in ann_file of {part.where}',
                example=name,
            )
    images, categories = get_rows(table, 'images'), get_rows(table, 'categories')
    keys = (*FIELDS['categories'], *(('isthing',) if panoptic else ()))
    yield from check_fields(path, 'images', images, FIELDS['images'])
    yield from check_fields(path, 'categories', categories, keys)
    yield from check_ids(path, 'images', images)
    yield from check_ids(path, 'categories', categories)
    yield from check_images(path, images)
    yield from check_categories(path, categories)
    sound = [row for row in categories if has_fields(row, *keys)]
    if sound:
        yield from check_classes(part, sound)
    if get_rows(table, 'annotations'):
        check = _check_segments if panoptic else _check_objects
        yield from check(part, table, whole)


def _check_objects(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    rows, path = get_rows(table, 'annotations'), part.path
    if has_fields(rows[0], 'segments_info'):
        yield make_finding('annotation-kind', path=path, where=part.where)
        return
    # What mmdet and pycocotools ask of every row; the flag only matters to the score.
    fields = FIELDS['annotations'][: -1 if part.split == 'train' else None]
    yield from check_fields(path, 'annotations', rows, fields)
    yield from check_usable(path, table, part.split, whole)
    masks = task_of(part.cfg) == 'instance'
    if masks:
        yield from _check_masks(part, rows)
    if whole:
        yield from check_ids(path, 'annotations', rows)
        yield from check_objects(path, table, masks='needed' if masks else 'there')


def _check_masks(part: Part, rows: list[Any]) -> Iterator[Finding]:
    """Yield objects without a mask, or with one of a form that the pipeline does not read."""
    bare, coded = (
        [at for at, row in enumerate(rows) if isinstance(row, dict) and test(row)]
        for test in (lambda row: not row.get('segmentation'), has_run_lengths)
    )
    if bare:
        yield make_rows_finding(
            'mask-missing',
            part.path,
            'annotations',
            bare,
            len(rows),
            str(rows[bare[0]].get('id'))[:80],
            config=part.cfg.filename or 'the config',
        )
    steps = enumerate(part.leaf.get('pipeline') or ())
    plain = [at for at, step in steps if step.get('with_mask') and step.get('poly2mask') is False]
    # mmdet passes over such objects in silence.
    if part.split == 'train' and coded and plain:
        yield make_rows_finding(
            'mask-form',
            part.path,
            'annotations',
            coded,
            len(rows),
            str(rows[coded[0]].get('id'))[:80],
            step=plain[0],
            dataset=part.where,
        )


def _check_segments(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    categories = [row for row in get_rows(table, 'categories') if has_fields(row, 'id', 'name')]
    known = [row['id'] for row in select_categories(part, categories)]
    yield from check_segments(part.path, table, known)
    if whole:
        rows = list_segments(get_rows(table, 'annotations'))
        yield from check_ids(part.path, 'segments', rows)
        yield from check_objects(part.path, table, place='segments', rows=rows)


def check_listed_images(part: Part, table: dict[str, Any]) -> Iterator[Finding]:
    """Yield listed images that are not there or not as annotated, by the headers of a sample."""
    rows = [at for at, row in enumerate(get_rows(table, 'images')) if names_file(row)]
    sample = rows[:: max(1, len(rows) // SAMPLED)]
    for one in check_image_files(part, table, sample, read_headers):
        # A training passes over single files that cannot be used, and says so.
        if one.kind in ('image-missing', *HEADERS):
            few = one.kind in ('image-size', 'image-turned') and 10 * one.count < len(sample)
            yield replace(one, severity=WARNING) if few else one


HEADERS = ('image-size', 'image-turned', 'image-oriented', 'image-dark')
"""What the header of an image tells."""


def names_file(row: Any) -> bool:
    """Return whether a row of an image names a file."""
    return has_fields(row, 'file_name') and isinstance(row['file_name'], str)


def check_image_files(
    part: Part,
    table: Mapping[str, Any],
    at: Sequence[int],
    read: Callable[[Sequence[Path]], Iterator[ImageFile]],
) -> Iterator[Finding]:
    """Yield what is wrong with image files that an annotation file lists.

    Args:
        part: the data set.
        table: what the file holds.
        at: where the images stand in its list.
        read: reads them.
    """
    rows = get_rows(table, 'images')
    paths = [part.folder('img') / rows[one]['file_name'] for one in at]
    faults: dict[str, list[int]] = defaultdict(list)
    words: dict[str, str] = {}
    for row, path, seen in zip(at, paths, read(paths)):
        kind, why = find_mismatch(seen, parse_size(rows[row]), part.follows_exif)
        if kind:
            faults[kind].append(row)
            words.setdefault(kind, f'{path} ({why})')
    missing = faults.pop('image-missing', [])
    lost = [part.folder('img') / rows[row]['file_name'] for row in missing]
    yield from report_lost_images(part, lost, len(at), rows=missing)
    for kind, bad in faults.items():
        yield make_rows_finding(kind, part.path, 'images', bad, len(at), words[kind])


def report_lost_images(
    part: Part, lost: Sequence[Path], total: int, rows: Sequence[int] = ()
) -> Iterator[Finding]:
    """Yield that images which an annotation file lists are not there.

    Args:
        part: the data set.
        lost: the images.
        total: how many were looked for.
        rows: where they stand in the list.
    """
    if lost:
        yield make_finding(
            'image-missing',
            path=part.path,
            total=total,
            setting='"file_name"' if part.in_folder else f'data_prefix of {part.where}',
            hint=BACKSLASH if '\\' in lost[0].name else '',
            count=len(lost),
            example=lost[0],
            place='images' if rows else '',
            rows=rows,
        )
