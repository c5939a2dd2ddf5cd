"""Write what is derived from a data folder into the cache, once for each state of the folder.

A folder of the cache holds ``train.json``, ``val.json`` and so on, or lists of images and index
masks, and ``reading.json`` that says where the images are. Images stay where they are. Its name is
a hash of the folder's files (names, sizes, times), of the content of its label files, of the
options and of the version of this package, so that nothing in it can be out of date.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...utils.files import move_into_place, no_empty_folders, write_whole
from ...version import __version__
from ..base import SPLITS
from ..checks.findings import Finding
from ..checks.rows import find_repeated, get_rows, has_fields, is_id
from .base import WHOLE, Format, ObjectData, Part
from .split import Division, choose_images

READING = 'reading.json'
_FORM = 2
"""Counts what changed in readers within one version of the package."""
LABELS = ('.json', '.xml', '.txt', '.csv', '.yaml', '.yml', '.pbtxt', '.names')
"""Files whose content counts; of others, size and time."""


@dataclass(frozen=True)
class Derived:
    """Where the splits of a data folder are.

    Attributes:
        files: split -> its annotation file, or its list of images.
        images: split -> the folder that its images start from.
        folder: of the cache; None if nothing had to be derived.
        more: what else the reader wants to know again.
    """

    files: Mapping[str, Path]
    images: Mapping[str, Path]
    folder: Path | None = None
    more: Mapping[str, Any] | None = None


def find_cache() -> Path:
    """Return the folder of everything that is derived from data."""
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return home / 'mmresnest'


def name_cache(root: Path, roots: Iterable[Path], *options: object) -> Path:
    """Return the folder of the cache for a state of a data folder.

    Args:
        root: the data folder.
        roots: further folders that are read.
        *options: whatever else decides what is derived.
    """
    digest = hashlib.sha256(json.dumps([__version__, _FORM, *map(str, options)]).encode())
    for folder in dict.fromkeys([root, *roots]):
        for where, folders, names in os.walk(folder, followlinks=True):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(where, name)
                try:
                    found = os.stat(path)
                except OSError:  # a link to nothing
                    continue
                line = f'{path}\0{found.st_size}\0{found.st_mtime_ns}\n'
                digest.update(line.encode('utf-8', 'surrogateescape'))
                if name.lower().endswith(LABELS):
                    digest.update(Path(path).read_bytes())
    return find_cache() / f'data-{root.name}-{digest.hexdigest()[:16]}'


def write_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder of the cache if it is not there: all of it, or nothing.

    Args:
        folder: which.
        write: is given an empty folder to fill.

    Raises:
        UserError: it cannot be written.
    """
    if (folder / READING).is_file():
        return
    try:
        with no_empty_folders(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
            try:
                write(part)
                try:
                    move_into_place(part, folder)
                except OSError:
                    if not (folder / READING).is_file():  # another process was not faster
                        raise
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f'what is read from the data cannot be written into the cache {folder.parent}: '
            f'{error}; make room there, or name another folder by XDG_CACHE_HOME',
            code='file.unwritable',
        ) from error


def read_cache(folder: Path) -> Derived | None:
    """Return what a folder of the cache holds, None if it is not there."""
    try:
        held = json.loads((folder / READING).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return Derived(
        {split: folder / name for split, name in held['files'].items()},
        {split: Path(name) for split, name in held['images'].items()},
        folder,
        held['more'],
    )


def divide_parts(
    root: Path, parts: Mapping[str, Part], division: Division | None
) -> Mapping[str, Part]:
    """Return the parts with a validation part.

    Raises:
        UserError: there is none and none is to be made, or the other way round.
    """
    source = find_undivided(root, parts, division)
    if source is None or division is None:
        return parts
    part = parts[source]
    objects: dict[Any, Counter] = {}
    for row in get_rows(part.table, 'annotations'):
        image, category = _read_id(row, 'image_id'), _read_id(row, 'category_id')
        objects.setdefault(image, Counter())[category] += 1
    images = get_rows(part.table, 'images')
    ids = [_read_id(row, 'id') for row in images]
    twice = find_repeated(ids, range(len(ids)))
    if twice and ids[twice[0]] is not None:
        raise UserError(
            f'{root / part.source}: two images have the id {ids[twice[0]]!r}, the second is '
            f'{part.paths[twice[0]]}; give each its own, in the annotations too',
            code='data.image-id-shared',
        )
    contents = [objects.get(one, Counter()) for one in ids]
    chosen = set(choose_images(part.paths, contents, division))
    rest = [at for at in range(len(images)) if at not in chosen]
    return dict(
        train=_select_images(part, rest, strays=True),
        val=_select_images(part, sorted(chosen)),
        **{split: other for split, other in parts.items() if split == 'test'},
    )


def find_undivided(root: Path, parts: Mapping[str, Any], division: Division | None) -> str | None:
    """Return the part that is to be divided, None if there is a validation part.

    Raises:
        UserError: there is none and none is to be made, or the other way round.
    """
    if 'val' in parts and 'train' in parts:
        if division is not None:
            raise UserError(
                f'--split {division}: {root} has a validation part of its own, which is used; '
                'leave the option out',
                code='option.conflict',
            )
        return None
    source = 'train' if 'train' in parts else WHOLE
    if source not in parts:
        raise UserError(
            f'{root} has images for {" and ".join(parts)}, and none to train on; add a part called '
            'train',
            code='data.no-split',
        )
    if division is None:
        only = 'divides its images into no parts' if source == WHOLE else 'has no validation part'
        raise UserError(
            f'{root} {only}; --split 0.2 puts a fifth of the images aside for validation, with all '
            'classes in both parts and duplicates together',
            code='data.no-split',
        )
    return source


def _read_id(row: Any, key: str) -> Any:
    """Return an id of a row, None if it has none."""
    return row[key] if has_fields(row, key) and is_id(row[key]) else None


def _select_images(part: Part, positions: Sequence[int], strays: bool = False) -> Part:
    """Return some of the images of a part with their objects.

    Args:
        part: all.
        positions: which.
        strays: also with the objects of no image, which the checks will name.
    """
    images = get_rows(part.table, 'images')
    kept = [images[at] for at in positions]
    known, ids = ({_read_id(row, 'id') for row in some} - {None} for some in (images, kept))
    rows = [
        row
        for row in get_rows(part.table, 'annotations')
        if (image := _read_id(row, 'image_id')) in ids or strays and image not in known
    ]
    table = {**part.table, 'images': kept, 'annotations': rows}
    return Part(table, [part.paths[at] for at in positions], source=part.source)


def write_parts(folder: Path, parts: Mapping[str, Part], more: Mapping[str, Any]) -> None:
    """Write the tables of all splits, with names of images relative to their common folder."""
    images = {}
    for split, part in parts.items():
        common = find_common_folder(part.paths)
        images[split] = common
        rows = [
            {**row, 'file_name': path.relative_to(common).as_posix()}
            for row, path in zip(get_rows(part.table, 'images'), part.paths)
        ]
        table = {**part.table, 'images': rows}
        if part.source:  # what is wrong is to be corrected there
            objects = get_rows(table, 'annotations')
            table['annotations'] = [
                {'source': part.source, **row} if isinstance(row, dict) else row for row in objects
            ]
        text = json.dumps(table).encode()
        write_whole(folder / f'{split}.json', methodcaller('write', text))
    files = {split: f'{split}.json' for split in parts}
    sources = {split: part.source for split, part in parts.items() if part.source}
    write_reading(folder, files, images, {**more, 'sources': sources})


def write_reading(
    folder: Path,
    files: Mapping[str, str],
    images: Mapping[str, Path],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write what :func:`read_cache` reads, the last file of a folder of the cache."""
    held = dict(files=files, images={split: str(path) for split, path in images.items()}, more=more)
    text = json.dumps(held).encode()
    write_whole(folder / READING, lambda out: out.write(text))


def find_common_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all files."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def order_files(files: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of the splits that a data folder can have, train first."""
    return {split: files[split] for split in SPLITS if split in files}


def read_objects(
    root: Path, row: Format, division: Division | None
) -> Generator[Finding, None, Derived]:
    """Return where the COCO files of a folder with boxes or instance masks are.

    Args:
        root: the folder.
        row: its format.
        division: how a validation part is made.

    Yields:
        values that were mended.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    folder = name_cache(root, row.find_roots(root), row.name, division)
    held = read_cache(folder)
    if held is not None:
        return held
    data = row.read(root)
    assert isinstance(data, ObjectData)
    parts = divide_parts(root, data.parts, division)
    more = dict(notes=list(data.notes), of_classes=data.of_classes)
    if all(part.original for part in parts.values()):
        files = {split: part.original for split, part in parts.items() if part.original}
        images = {split: part.folder for split, part in parts.items() if part.folder}
        return Derived(order_files(files), images, more=more)
    yield from data.findings
    write_once(folder, lambda part: write_parts(part, parts, more))
    found = read_cache(folder)
    assert found is not None  # it was written just now
    return found
