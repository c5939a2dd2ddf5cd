"""Read a folder of images with annotations in the format of COCO, for objects or panoptic."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import UserError
from .base import (
    IMAGE_FOLDERS,
    JSON_NAMES,
    PANOPTIC_NAMES,
    SPLITS,
    DataFolder,
    Reading,
    Split,
    describe_contents,
    find_first,
    make_relative,
)
from .checks.coco import check_categories, check_fields, check_ids
from .checks.findings import Finding, make_finding
from .checks.masks import has_run_lengths
from .checks.objects import check_objects
from .checks.panoptic import check_masks, check_segments, check_things_first, count_things
from .checks.rows import BACKSLASH, FIELDS, collect_ids, describe_list, get_rows, has_fields
from .formats.derive import Derived
from .json_files import read_coco_file

_CHECKED_IMAGES = 1000
_PURPOSE = {'train': 'learn from', 'val': 'score against', 'test': 'score against'}


def read_coco(root: Path, derived: Derived | None = None) -> Reading:
    """Read a folder with boxes, and with instance masks where it has them.

    Args:
        root: the folder.
        derived: where annotations and images are, if not where this layout has them.
    """
    tables, files = {}, {}
    sources = (derived.more or {}).get('sources', {}) if derived else {}
    for split in SPLITS:
        path = derived.files.get(split) if derived else find_first(root, JSON_NAMES, split)
        if path is not None:
            table, mended = read_coco_file(path)
            yield from mended
            # What is wrong is to be corrected in the file that a part is made of.
            tables[split] = (root / sources[split] if split in sources else path, table)
            files[split] = path
        elif split != 'test':
            _refuse_missing_json(root, split)
    splits, maskless = {}, ''
    for split, (path, table) in tables.items():
        yield from _check_lists(path, table, split, optional=('annotations', 'categories'))
        for place, keys in FIELDS.items():
            yield from check_fields(path, place, get_rows(table, place), keys)
            yield from check_ids(path, place, get_rows(table, place))
        yield from check_objects(path, table, kinds=('image-unknown', 'category-unknown'))
        objects = get_rows(table, 'annotations')
        scored = bool(objects) or split != 'test'
        if scored or get_rows(table, 'categories'):
            yield from _check_categories(tables['train'], (path, table))
        maskless = maskless or _find_maskless(path, objects)
        if derived:
            images = make_relative(derived.images[split], root)
        else:
            images = yield from _find_image_folder(root, split, path, table)
        count = len(get_rows(table, 'images'))
        splits[split] = Split(
            split, make_relative(files[split], root), images, count, len(objects), scored=scored
        )
    return DataFolder(
        'coco',
        root,
        _list_classes(*tables['train']),
        splits,
        has_masks=not maskless,
        maskless=maskless,
        coded_masks=any(
            has_run_lengths(row)
            for _, table in tables.values()
            for row in get_rows(table, 'annotations')
        ),
    )


def read_panoptic(root: Path) -> Reading:
    """Read a folder with panoptic masks."""
    tables, splits = {}, {}
    for split in SPLITS:
        path = find_first(root, PANOPTIC_NAMES, split)
        if path is None and split == 'test':
            continue
        path = path or _refuse_missing_panoptic(root, split)
        table, mended = read_coco_file(path)
        yield from mended
        masks = path.with_suffix('')
        tables[split] = (path, table)
        yield from _check_lists(path, table, split)
        yield from check_fields(path, 'images', get_rows(table, 'images'), FIELDS['images'])
        categories = get_rows(table, 'categories')
        yield from check_fields(path, 'categories', categories, ('id', 'name', 'isthing'))
        yield from check_segments(path, table, collect_ids(categories))
        if masks.is_dir():
            yield from check_masks(path, table, masks, _CHECKED_IMAGES)
        else:
            yield make_finding(
                'labels-none',
                f'{path} stands without the folder of its masks, {masks}',
                'put it there',
                example=masks,
            )
        yield from _check_categories(tables['train'], (path, table))
        images = yield from _find_image_folder(root, split, path, table)
        splits[split] = Split(
            split,
            make_relative(path, root),
            images,
            len(get_rows(table, 'images')),
            len(get_rows(table, 'annotations')),
            make_relative(masks, root),
        )
    path, table = tables['train']
    classes = _list_classes(path, table)
    categories = [row for row in get_rows(table, 'categories') if has_fields(row, 'name')]
    if all('isthing' in row for row in categories):
        yield from check_things_first(path, categories)
    things = count_things(categories)
    return DataFolder('panoptic', root, classes, splits, has_masks=True, things=things)


def _refuse_missing_json(root: Path, split: str) -> None:
    raise UserError(
        f'{root} has no {split}.json; --split 0.2 puts a fifth of the images aside for validation; '
        f'or list some there (copying train.json to {split}.json works too, but scores what was '
        'learnt by heart)',
        code='data.no-split',
    )


def _refuse_missing_panoptic(root: Path, split: str) -> Path:
    hint = ''
    if find_first(root, JSON_NAMES, split):
        hint = (
            '; it holds plain COCO annotations, which serve a config for boxes or '
            'masks, such as mask_rcnn_resnest50_fpn'
        )
    raise UserError(
        f'no panoptic annotations in {root}: this config needs '
        f'panoptic_{split}.json and the folder panoptic_{split}/ of its masks, '
        f'as COCO has them{hint}. {describe_contents(root)}',
        code='data.no-annotations',
    )


def _check_lists(
    path: Path, table: Mapping[str, Any], split: str, optional: Sequence[str] = ()
) -> Iterator[Finding]:
    """Yield the lists that a file lacks; one for submission has no annotations."""
    for name in FIELDS:
        if not get_rows(table, name):
            if name in optional and split == 'test' and table.get(name) in (None, []):
                continue
            yield make_finding(
                'list-missing',
                path=path,
                name=name,
                what=describe_list(table.get(name)),
                purpose=_PURPOSE[split],
                or_name='; a COCO file has images, annotations and categories, and this one has '
                + (', '.join(map(str, table)) or 'nothing'),
                example=name,
            )


def _list_classes(path: Path, table: Mapping[str, Any]) -> tuple[str, ...]:
    rows = [row for row in get_rows(table, 'categories') if has_fields(row, 'name')]
    names = tuple(dict.fromkeys(str(row['name']) for row in rows))
    if not names:
        raise UserError(
            f'{path} names no categories; list them as {{"id": 1, "name": "cat"}}',
            code='data.no-categories',
        )
    return names


def _check_categories(
    train: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield names that stand twice, and lists that differ.

    Labels are positions in the list, so a shifted list would score the wrong names.
    """
    yield from check_categories(other[0], get_rows(other[1], 'categories'))
    ours, theirs = (
        [
            f'id {row["id"]} {row["name"]!r}'
            for row in get_rows(table, 'categories')
            if has_fields(row, 'id', 'name')
        ]
        for _, table in (train, other)
    )
    pairs = enumerate(zip_longest(ours, theirs, fillvalue='nothing'), start=1)
    for entry, (one, two) in pairs:
        if one != two:
            yield make_finding(
                'categories-differ',
                first=train[0],
                second=other[0].name,
                entry=entry,
                ours=one,
                theirs=two,
                example=f'{one}, {two}',
            )
            return


def _find_maskless(path: Path, objects: Sequence[Any]) -> str:
    for row in objects:
        if isinstance(row, dict) and not row.get('segmentation'):
            return f'annotation {row.get("id")} of {path} has no "segmentation"'
    return ''


def _find_image_folder(
    root: Path, split: str, path: Path, table: Mapping[str, Any]
) -> Generator[Finding, None, str]:
    """Yield images of a sample that are not there; return where the others are."""
    rows = [row for row in get_rows(table, 'images') if has_fields(row, 'file_name')]
    names = [str(row['file_name']) for row in rows]
    step = max(1, len(names) // _CHECKED_IMAGES)
    sample = names[::step]
    best, lost = _choose_folder(root, split, sample)
    if lost:
        among = '' if step == 1 else f' (of {len(sample)} looked at)'
        yield make_finding(
            'image-missing',
            f'{path} lists {len(names)} images, and {len(lost)}{among} do not exist, such '
            f'as {root / best / lost[0]}',
            'put them there, or correct "file_name", which is relative to '
            f'{root / IMAGE_FOLDERS[0].format(split=split)}'
            + (BACKSLASH if '\\' in lost[0] else ''),
            count=len(lost),
            example=root / best / lost[0],
        )
    return best


def _choose_folder(root: Path, split: str, sample: Sequence[str]) -> tuple[str, list[str]]:
    """Return which of the usual places holds most of the images named, and those it lacks."""
    folders = [pattern.format(split=split) for pattern in IMAGE_FOLDERS]
    missing: dict[str, list[str]] = {}
    for folder in folders:
        if (root / folder).is_dir():
            missing[folder] = [name for name in sample if not os.path.isfile(root / folder / name)]
            if not missing[folder]:
                return folder, []
    best = min(missing, key=lambda folder: len(missing[folder]))
    # Where nothing fits, speak of the place the layout names.
    return folders[0] if len(missing[best]) == len(sample) else best, missing[best]
