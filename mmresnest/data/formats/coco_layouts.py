"""COCO's json in the file layouts of the tools that write it.

::

    train/_annotations.coco.json  valid/...         Roboflow, images beside it
    annotations/instances_default.json  images/     CVAT, and instances_Train.json for subsets
    result.json  images/                            Label Studio
    annotations/instances_train2017.json            COCO's own, also without val
    one.json beside or above its images             a single file

Roboflow puts a root category before the classes: id 0, no parent, parent of all others, and no
annotation has it. It is no class and is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...errors import UserError
from ..checks.rows import BACKSLASH, get_rows, has_fields
from ..json_files import peek_json, read_coco_file, read_json
from .base import (
    WHOLE,
    ImageIndex,
    Likeness,
    ObjectData,
    Part,
    find_shallow,
    name_split,
    order_splits,
)

_OTHERS = ('captions', 'panoptic', 'stuff', 'image_info', 'pixelmaps')
"""Files of COCO that hold something else than objects."""
_POINTS = 'person_keypoints'
"""Files whose objects have key points; what they say beyond them stands in ``instances``, too."""
_SMALL = 2**24


def has_root_category(path: Path) -> bool:
    """Return whether a COCO file seems to have Roboflow's root category; its beginning tells."""
    try:
        return bool(_find_parents(get_rows(peek_json(path, 1), 'categories')))
    except (OSError, ValueError):
        return False


def compare_coco(root: Path) -> Likeness:
    """Say how far a folder looks like COCO."""
    files = find_json_files(root)
    if files:
        return Likeness(f'{files[0].relative_to(root)}, a json file with images and annotations')
    return Likeness()


def find_json_files(root: Path) -> list[Path]:
    """Return the json files of a folder that list images, annotations and categories."""
    files = [path for path in find_shallow(root, '*.json') if is_coco_file(path)]
    objects = [path for path in files if path.stem.startswith('instances')]
    beside = {path.parent for path in objects}
    found = [path for path in files if path in objects or path.parent not in beside]
    return [path for path in found if not path.stem.startswith(_POINTS)] or found


def is_coco_file(path: Path) -> bool:
    """Return whether a json file lists images and annotations; its beginning tells."""
    if path.name.startswith(_OTHERS):
        return False
    try:
        if path.stat().st_size > _SMALL:
            return 'images' in peek_json(path, 1)
        table = read_json(path)
    except (UserError, ValueError, OSError):
        return False
    return isinstance(table.get('images'), list) and (
        isinstance(table.get('annotations'), list) or isinstance(table.get('categories'), list)
    )


def has_split(root: Path, split: str) -> bool:
    """Return whether a json file of a folder is that of a split."""
    return split in (_name_file(path, root) for path in find_json_files(root))


def _name_file(path: Path, root: Path) -> str:
    return name_split(path.stem) or name_split(path.parent.name if path.parent != root else '')


def read_coco_layout(root: Path) -> ObjectData:
    """Read a folder of COCO files, wherever they are.

    Raises:
        UserError: two files for one split, or images that are not there.
    """
    files: dict[str, Path] = {}
    for path in find_json_files(root):
        split = _name_file(path, root)
        if split in files:
            raise UserError(
                f'{files[split]} and {path} both list the images of '
                + (f'the split {split}' if split else 'the folder')
                + '; move the one that is not to be used away',
                code='data.ambiguous',
            )
        files[split] = path
    if len(files) > 1 and WHOLE in files:
        raise UserError(
            f'{files[WHOLE]} names no split, and other files do ({files[max(files)]}); rename it '
            'after its split, or move it away',
            code='data.ambiguous',
        )
    read = {split: read_coco_file(path) for split, path in files.items()}
    tables = {split: table for split, (table, _) in read.items()}
    roots = find_root_categories(tables.values())
    parts = {}
    for split, table in tables.items():
        if not get_rows(table, 'images'):
            raise UserError(
                f'{files[split]} lists no images; export it again, or take it away',
                code='data.no-images',
            )
        if not get_rows(table, 'annotations') and split != 'test':
            raise UserError(
                f'{files[split]}: the list "annotations" is missing or empty; export it again with '
                'the annotations',
                code='data.list-missing',
            )
        folder, paths = _find_images(root, files[split], table)
        original = None if roots or folder is None else files[split]
        kept, source = _drop_categories(table, roots), files[split].relative_to(root).as_posix()
        parts[split] = Part(kept, paths, original, folder, source)
    findings = [one for _, found in read.values() for one in found]
    points = any(path.stem.startswith(_POINTS) for path in files.values())
    notes = ['the key points of the objects are left out'] if points else []
    return ObjectData(order_splits(parts), findings, notes)


def find_root_categories(tables: Iterable[Mapping[str, Any]]) -> set[Any]:
    """Return the ids of categories that are the parent of all others and that no object has."""
    found: set[Any] = set()
    for number, table in enumerate(tables):
        rows = [row for row in get_rows(table, 'categories') if has_fields(row, 'id', 'name')]
        used = {
            row['category_id']
            for row in get_rows(table, 'annotations')
            if has_fields(row, 'category_id') and isinstance(row['category_id'], (int, str, float))
        }
        parents = _find_parents(rows) - used
        found = parents if number == 0 else found & parents
    return found


def _find_parents(rows: Sequence[Any]) -> set[Any]:
    """Return the ids of categories that are the parent of all others."""
    rows = [row for row in rows if has_fields(row, 'id', 'name')]
    return {
        row['id']
        for row in rows
        if row.get('supercategory') == 'none'
        and len(rows) > 1
        and all(other.get('supercategory') == row['name'] for other in rows if other is not row)
    }


def _drop_categories(table: Mapping[str, Any], ids: set[Any]) -> dict[str, Any]:
    if not ids:
        return dict(table)
    rows = [
        row
        for row in get_rows(table, 'categories')
        if not (has_fields(row, 'id') and row['id'] in ids)
    ]
    return {**table, 'categories': rows}


def _find_images(
    root: Path, path: Path, table: Mapping[str, Any]
) -> tuple[Path | None, list[Path]]:
    """Return the folder that the names of the images start from, if all do, and their paths."""
    names = []
    for at, row in enumerate(get_rows(table, 'images')):
        if not has_fields(row, 'file_name') or not isinstance(row['file_name'], str):
            raise UserError(
                f'{path}: entry {at + 1} of the images has no "file_name"; export the file again',
                code='data.field-missing',
            )
        names.append(row['file_name'])
    for folder in _list_candidates(root, path):
        if all(os.path.isfile(folder / name) for name in names):
            return folder, [folder / name for name in names]
    index = ImageIndex(root)
    paths = [_find_image(name, index, path, root) for name in names]
    return None, paths


def _find_folder_split(image: Path, root: Path) -> str:
    """Return the split that the folders of an image say, ``WHOLE`` if none or several."""
    found = {name_split(part) for part in image.parent.relative_to(root).parts} - {WHOLE}
    return found.pop() if len(found) == 1 else WHOLE


def _list_candidates(root: Path, path: Path) -> list[Path]:
    stem = path.stem.removeprefix('instances_')
    places = [path.parent, path.parent / 'images', root / stem, root / 'images' / stem]
    split = name_split(path.stem)
    if split:
        folders = [
            folder
            for place in (root, root / 'images')
            if place.is_dir()
            for folder in sorted(place.iterdir())
            if folder.is_dir()
        ]
        places += [folder for folder in folders if name_split(folder.name) == split]
    places += [root / 'images', root]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _find_image(name: str, index: ImageIndex, path: Path, root: Path) -> Path:
    """Return the one image whose path ends as a name does, in the most of its parts.

    A bare name means none of the images in a folder of another split, and a name with a folder that
    holds images none of another folder.
    Label Studio writes names as addresses: ``a%20b.jpg``, ``/data/local-files/?d=folder%2Fa.jpg``.
    """
    if not index.has(name):
        name = next(filter(index.has, (unquote(name), unquote(name.partition('?d=')[2]))), name)
    parts = tuple(name.replace('\\', '/').split('/'))
    split, found = _name_file(path, root), index.find_named(name)
    foreign = [
        one
        for one in found
        if split and (len(parts) < 2 or one.parts[-2:] != parts[-2:])
        if _find_folder_split(one, root) not in (split, WHOLE)
    ]
    same = [one for one in found if one not in foreign]
    if len(same) == 1:
        return same[0]
    if same:
        raise UserError(
            f'{path}: the image {name!r} may be {same[0]} or {same[1]}; write the path from '
            f'{path.parent} into "file_name"',
            code='data.ambiguous',
        )
    raise UserError(
        f'{path}: the image {name!r} is nowhere below the folder'
        + (f', but for another split, {foreign[0]}' if foreign else '')
        + '; put it beside the file, or correct "file_name"'
        + (BACKSLASH if '\\' in name else ''),
        code='data.image-missing',
    )
