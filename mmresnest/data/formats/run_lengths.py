"""Kaggle's tables of run lengths: ``ImageId,EncodedPixels``, a line for each mask.

``1 3 10 5`` are the pixels 1 to 3 and 10 to 14, counted from 1 down the columns of the image. An
image whose line has no runs has no objects. The class stands in a column of its own (``ClassId``)
or behind the name (``ImageId_ClassId``, ``Image_Label``); without it there is one, ``object``.

A line is an object, unless there is a column of classes and no image has a class twice: then it is
all pixels of the class, which serves a segmentor alone.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..checks.images import read_image_header
from ..text_files import refuse_encoding
from .base import (
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    assign_splits,
    check_sizes,
    choose_image,
    collect_names,
    find_shallow,
    make_data,
    make_mask_thing,
    note_left_out,
)

_RUNS = ('encodedpixels', 'encoded_pixels', 'rle_mask')
_IMAGES = ('imageid', 'image_id', 'image', 'id', 'filename', 'img')
_CLASSES = ('classid', 'class_id', 'class', 'label')
_JOINED = ('imageid_classid', 'image_label')
_NOTHING = ('', '-1', 'nan')


def compare_run_lengths(root: Path) -> Likeness:
    """Say how far a folder looks like Kaggle's tables of run lengths."""
    for path in find_run_length_files(root):
        return Likeness(f'{path.relative_to(root)}, a table with run lengths')
    return Likeness()


def find_run_length_files(root: Path) -> list[Path]:
    """Return the tables in a folder or right below it that have a column of run lengths.

    The ``sample_submission.csv`` beside them has made-up ones.
    """
    found = []
    for path in find_shallow(root, '*.csv', 1):
        try:
            with path.open(encoding='utf-8-sig', newline='') as file:
                columns = {name.strip().lower() for name in file.readline(4096).split(',')}
        except (OSError, UnicodeDecodeError):
            continue
        named = columns & {*_IMAGES, *_JOINED}
        if columns & {*_RUNS} and named and not path.name.startswith('sample_submission'):
            found.append(path)
    return found


def read_run_lengths(root: Path) -> ObjectData:
    """Read tables of run lengths and their images.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    index = ImageIndex(root)
    files = assign_splits(find_run_length_files(root), root, stems=False)
    splits, counts, classed = {}, Counter[tuple[Path, str]](), False
    for split, path in files.items():
        things, has_classes = _read_table(path, root, index)
        classed = classed or has_classes
        pictures = [Picture(image, tuple(some), source=str(path)) for image, some in things.items()]
        splits[split] = list(check_sizes(pictures))
        counts.update((one.path, thing.name) for one in pictures for thing in one.things)
    images = [path for path in index.paths if path.parent.name not in ('masks', 'mask')]
    note = note_left_out(images, splits, 'no line in the table')
    data = make_data(root, collect_names(splits), splits, [note])
    merged = classed and max(counts.values(), default=0) == 1
    return ObjectData(data.parts, notes=data.notes, of_classes=merged)


def _read_table(path: Path, root: Path, index: ImageIndex) -> tuple[dict[Path, list[Thing]], bool]:
    found: dict[Path, list[Thing]] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    has_classes = False
    most = csv.field_size_limit(2**31 - 1)  # the runs of a large mask are megabytes
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            columns = [name.strip().lower() for name in next(csv.reader(file))]
            rows = csv.DictReader(file, columns, restkey='', skipinitialspace=True)
            for row in rows:
                place = f'{path}:{rows.line_num + 1}'
                name, kind = _read_names(row, place)
                has_classes = has_classes or bool(kind)
                image = _find_image(name, place, index)
                things = found.setdefault(image, [])
                runs = (next(row[key] for key in _RUNS if key in row) or '').strip()
                if runs.lower() in _NOTHING:
                    continue
                if image not in sizes:
                    seen = read_image_header(image)
                    sizes[image] = seen.size[::-1] if seen.turned else seen.size
                mask = _decode_runs(runs, sizes[image], place)
                source = f'{path.relative_to(root)}:{rows.line_num + 1}'
                things.append(make_mask_thing(kind or 'object', mask, source))
    except UnicodeDecodeError as error:
        raise refuse_encoding(path, error) from None
    except csv.Error as error:
        raise UserError(
            f'{path}: cannot be read as a table: {error}; export it again', code='data.label-line'
        ) from None
    finally:
        csv.field_size_limit(most)
    return found, has_classes


def _read_names(row: Mapping[str, str], place: str) -> tuple[str, str]:
    """Return the name of an image and the class, empty without one."""
    joined = next((row[key] for key in _JOINED if key in row), None)
    if joined is not None:
        name, _, kind = joined.rpartition('_')
    else:
        name = next(row[key] for key in _IMAGES if key in row) or ''
        kind = next((row[key] for key in _CLASSES if key in row), '') or ''
    if not name.strip() or joined is not None and not kind.strip():
        raise UserError(
            f'{place}: no name of an image'
            + (' and class' if joined is not None else '')
            + '; correct the line, or take it away',
            code='data.label-line',
        )
    return name.strip(), kind.strip()


def _find_image(name: str, place: str, index: ImageIndex) -> Path:
    found = index.find_named(name) or index.stems.get(name, [])
    same = [path for path in found if path.parent.name not in ('masks', 'mask')]
    return choose_image(same, name, place, ('take one of them away', 'take its lines away'))


def _decode_runs(text: str, size: tuple[int, int], place: str) -> np.ndarray:
    """Return the mask H W of runs ``START LENGTH START LENGTH ...``."""
    width, height = size
    words = text.split()
    if len(words) % 2 or not all(word.isdecimal() and len(word) < 16 for word in words):
        raise UserError(
            f'{place}: the runs are no pairs of whole numbers, START LENGTH; correct the line',
            code='data.mask-rle',
        )
    runs = np.array(words, np.int64).reshape(-1, 2)
    starts, ends = runs[:, 0] - 1, runs.sum(1) - 1
    ordered = (starts[1:] >= ends[:-1]).all() and (runs > 0).all()
    if not ordered or ends[-1] > width * height:
        raise UserError(
            f'{place}: the runs '
            + ('leave' if ordered else 'do not follow each other in')
            + f' the {width * height} pixels of an image of {width} x {height}, counted from 1 '
            'down its columns; correct the line, or take it away',
            code='data.mask-rle',
        )
    change = np.zeros(width * height + 1, np.int8)
    np.add.at(change, starts, 1)
    np.subtract.at(change, ends, 1)
    return change.cumsum()[:-1].astype(bool).reshape(width, height).T
