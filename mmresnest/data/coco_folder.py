"""Read a folder of images with annotations in the format of COCO."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .base import _CHECKED_IMAGES, DataFolder, Split, _first, _relative, _what_is_there
from .checks.coco import FIELDS, have, missing_fields, rows_of
from .checks.findings import raise_first
from .checks.masks import is_coded
from .checks.panoptic import count_things, look_for_masks, look_over_segments, look_over_things
from .json_files import read_json

JSON_NAMES = (
    '{split}.json',
    'annotations/{split}.json',
    'annotations/instances_{split}.json',
    'annotations/instances_{split}2017.json',
)
PANOPTIC_NAMES = (
    'panoptic_{split}.json',
    'annotations/panoptic_{split}.json',
    'annotations/panoptic_{split}2017.json',
)
IMAGE_FOLDERS = ('{split}', '{split}2017', 'images/{split}', 'images', '')


def _read_coco(root: Path, lenient: bool) -> DataFolder:
    tables = {}
    for split in ('train', 'val', 'test'):
        path = _first(root, JSON_NAMES, split)
        if path is not None:
            tables[split] = (path, read_json(path))
        elif split != 'test':
            _no_json(root, split, 'train' in tables)
    if lenient:
        splits = {
            split: _lenient_split(root, split, path, table)
            for split, (path, table) in tables.items()
        }
        return DataFolder(
            'coco',
            root,
            _lenient_classes(*tables['train']),
            splits,
            has_masks=any(
                isinstance(row, dict) and row.get('segmentation')
                for row in rows_of(tables['train'][1], 'annotations')
            ),
            coded_masks=_coded(tables),
        )
    for path, table in tables.values():
        _check_fields(path, table)
    classes = _categories(*tables['train'])
    splits, maskless = {}, ''
    for split, (path, table) in tables.items():
        if split == 'test' and not table['annotations']:
            continue  # images to be submitted elsewhere: nothing to score here
        if not table['annotations']:
            raise UserError(f'{path} has no annotations, so there is nothing to {_PURPOSE[split]}')
        _same_categories(tables['train'], (path, table))
        maskless = maskless or _maskless(path, table)
        splits[split] = Split(
            split,
            _relative(path, root),
            _image_folder(root, split, path, table),
            len(table['images']),
            len(table['annotations']),
        )
    return DataFolder(
        'coco',
        root,
        classes,
        splits,
        has_masks=not maskless,
        maskless=maskless,
        coded_masks=_coded(tables),
    )


def _coded(tables: Mapping[str, tuple[Path, dict[str, Any]]]) -> bool:
    return any(
        is_coded(row) for _, table in tables.values() for row in rows_of(table, 'annotations')
    )


def _lenient_split(
    root: Path, split: str, path: Path, table: dict[str, Any], masks: str = ''
) -> Split:
    images, objects = rows_of(table, 'images'), rows_of(table, 'annotations')
    names = [str(row['file_name']) for row in images if have(row, 'file_name')][:_CHECKED_IMAGES]
    folder, _ = _best_folder(root, split, names)
    return Split(split, _relative(path, root), folder, len(images), len(objects), masks)


def _lenient_classes(path: Path, table: dict[str, Any]) -> tuple[str, ...]:
    names = tuple(
        dict.fromkeys(str(row['name']) for row in rows_of(table, 'categories') if have(row, 'name'))
    )
    if not names:
        raise UserError(_NO_CATEGORIES.format(path))
    return names


_NO_CATEGORIES = '{} names no categories; list them as {{"id": 1, "name": "cat"}}'
_PURPOSE = {'train': 'learn from', 'val': 'score against', 'test': 'score against'}


def _no_json(root: Path, split: str, has_train: bool) -> None:
    if has_train:
        raise UserError(
            f'{root} has no {split}.json; put a part of the images aside for '
            f'validation and list them there (copying train.json to {split}.json works '
            'too, but scores what was learnt by heart)'
        )
    hint = ''
    if (root / 'annotations' / 'train').is_dir():
        hint = (
            '; it holds masks for semantic segmentation, which a detector cannot use: choose a '
            'config of a segmentor, such as deeplabv3_resnest50_ade20k'
        )
    raise UserError(
        f'no annotations for a detector in {root}: neither train.json nor '
        f'annotations/instances_train.json{hint}. {_what_is_there(root)}'
    )


def _check_fields(path: Path, table: dict[str, Any]) -> None:
    for name, keys in FIELDS.items():
        rows = table.get(name)
        if rows is None and name == 'annotations' and table.get('images'):
            rows = table[name] = []
        if not isinstance(rows, list):
            raise UserError(
                f'{path} has no list {name!r}; a COCO file has images, annotations and '
                'categories, and this one has '
                f'{", ".join(map(str, table)) or "nothing"}'
            )
        raise_first(missing_fields(path, name, rows, keys))
    if not table['images']:
        raise UserError(f'{path} lists no images; export it again')
    if not table['categories']:
        raise UserError(_NO_CATEGORIES.format(path))
    _check_links(path, table)


def _check_links(path: Path, table: dict[str, Any]) -> None:
    """Ids are unique, and every object belongs to an image and a category that exist."""
    known = {}
    for name in FIELDS:
        counts = Counter(row['id'] for row in table[name])
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise UserError(
                f'{path}: {len(twice)} ids of {name} stand more than once, such as '
                f'{twice[0]}; give each its own'
            )
        known[name] = counts
    for key, name in (('image_id', 'images'), ('category_id', 'categories')):
        bad = [row for row in table['annotations'] if row[key] not in known[name]]
        if bad:
            raise UserError(
                f'{path}: {len(bad)} annotations have a {key} that is not among the '
                f'{name}, such as annotation {bad[0]["id"]} with {key} {bad[0][key]}'
            )


def _categories(path: Path, table: dict[str, Any]) -> tuple[str, ...]:
    names = [str(row['name']) for row in table['categories']]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f'{path}: two categories are called {twice[0]!r}; give each its own name')
    return tuple(names)


def _same_categories(train: tuple[Path, dict], other: tuple[Path, dict]) -> None:
    """Labels are positions in the list, so a shifted list would score the wrong names."""
    ours, theirs = (
        [(row['id'], str(row['name'])) for row in table['categories']]
        for _, table in (train, other)
    )
    if ours == theirs:
        return
    pairs = [
        (ours[i] if i < len(ours) else None, theirs[i] if i < len(theirs) else None)
        for i in range(max(len(ours), len(theirs)))
    ]
    position, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])

    def said(row: tuple | None) -> str:
        return 'nothing' if row is None else f'id {row[0]} {row[1]!r}'

    raise UserError(
        f'the categories of {train[0]} and {other[0].name} differ: entry '
        f'{position + 1} is {said(a)} in the one and {said(b)} in the other; copy the '
        f'categories list of {train[0].name} into {other[0].name}, and correct the '
        'category_id of its annotations if they change'
    )


def _maskless(path: Path, table: dict[str, Any]) -> str:
    for row in table['annotations']:
        if not row.get('segmentation'):
            return f'annotation {row["id"]} of {path} has no "segmentation"'
    return ''


def _image_folder(root: Path, split: str, path: Path, table: dict[str, Any]) -> str:
    """Where the images are; all of a sample of them must be there."""
    names = [str(row['file_name']) for row in table['images']]
    step = max(1, len(names) // _CHECKED_IMAGES)
    sample = names[::step]
    best, lost = _best_folder(root, split, sample)
    if not lost:
        return best
    among = '' if step == 1 else f' (of {len(sample)} looked at)'
    raise UserError(
        f'{path} lists {len(names)} images, and {len(lost)}{among} do not exist, such '
        f'as {root / best / lost[0]}; put them there, or correct "file_name", which is '
        f'relative to {root / IMAGE_FOLDERS[0].format(split=split)}'
    )


def _best_folder(root: Path, split: str, sample: Sequence[str]) -> tuple[str, list[str]]:
    """Which of the usual places holds most of the images named, and those that it lacks."""
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


def _read_panoptic(root: Path, lenient: bool) -> DataFolder:
    splits: dict[str, Split] = {}
    tables: dict[str, tuple[Path, dict]] = {}
    for split in ('train', 'val', 'test'):
        path = _first(root, PANOPTIC_NAMES, split)
        if path is None:
            if split == 'test':
                continue
            hint = ''
            if _first(root, JSON_NAMES, split):
                hint = (
                    '; it holds plain COCO annotations, which serve a config for boxes or '
                    'masks, such as mask_rcnn_resnest50_fpn'
                )
            raise UserError(
                f'no panoptic annotations in {root}: this config needs '
                f'panoptic_{split}.json and the folder panoptic_{split}/ of its masks, '
                f'as COCO has them{hint}. {_what_is_there(root)}'
            )
        table = read_json(path)
        masks = path.with_suffix('')
        if lenient:
            tables[split] = (path, table)
            splits[split] = _lenient_split(root, split, path, table, _relative(masks, root))
            continue
        for name in ('images', 'annotations', 'categories'):
            if not isinstance(table.get(name), list) or not table[name]:
                raise UserError(
                    f'{path}: the list {name!r} is missing or empty; export the file again'
                )
        raise_first(missing_fields(path, 'images', table['images'], FIELDS['images']))
        raise_first(
            missing_fields(path, 'categories', table['categories'], ('id', 'name', 'isthing'))
        )
        raise_first(look_over_segments(path, table, [row['id'] for row in table['categories']]))
        if not masks.is_dir():
            raise UserError(f'{path} stands without the folder of its masks, {masks}')
        raise_first(look_for_masks(path, table, masks, _CHECKED_IMAGES))
        tables[split] = (path, table)
        _same_categories(tables['train'], (path, table))
        images = _image_folder(root, split, path, table)
        splits[split] = Split(
            split,
            _relative(path, root),
            images,
            len(table['images']),
            len(table['annotations']),
            _relative(masks, root),
        )
    path, table = tables['train']
    if lenient:
        classes = _lenient_classes(path, table)
        rows = [row for row in rows_of(table, 'categories') if have(row, 'name')]
        things = len({str(row['name']) for row in rows if row.get('isthing')})
        return DataFolder('panoptic', root, classes, splits, has_masks=True, things=things)
    classes = _categories(path, table)
    raise_first(look_over_things(path, table['categories']))
    return DataFolder(
        'panoptic', root, classes, splits, has_masks=True, things=count_things(table['categories'])
    )
