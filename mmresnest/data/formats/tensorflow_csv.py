"""TensorFlow's tables: ``filename,width,height,class,xmin,ymin,xmax,ymax``, a line for each object.

One file for each split (``train_labels.csv``, ``train/_annotations.csv``) or one for all. The
corners are edges: ``w = xmax - xmin``. An image that no line names has no objects and is left out:
nothing says which split it belongs to.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ...errors import UserError
from ..text_files import refuse_encoding
from .base import (
    WHOLE,
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    check_sizes,
    collect_names,
    find_shallow,
    make_data,
    name_split,
    order_splits,
    parse_number,
    round_pixels,
)
from .names import find_class_list

COLUMNS = ('filename', 'width', 'height', 'class', 'xmin', 'ymin', 'xmax', 'ymax')


def compare_csv(root: Path) -> Likeness:
    """Say how far a folder looks like TensorFlow's tables."""
    best = Likeness()
    for path in find_shallow(root, '*.csv'):
        columns = _read_columns(path)
        missing = [name for name in COLUMNS if name not in columns]
        if not missing:
            return Likeness(f'{path.relative_to(root)}, a table with the columns of TensorFlow')
        if len(missing) < len(COLUMNS) - 1:
            best = Likeness(
                f'{path.relative_to(root)}, a table',
                f'its columns {", ".join(missing)}',
                f"sed -i '1i {','.join(COLUMNS)}' {path}",
            )
    return best


def _read_columns(path: Path) -> list[str]:
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            return [name.strip() for name in file.readline(4096).split(',')]
    except (OSError, UnicodeDecodeError):
        return []


def read_csv(root: Path) -> ObjectData:
    """Read tables of boxes and their images.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    files: dict[str, Path] = {}
    for path in find_shallow(root, '*.csv'):
        if set(COLUMNS) <= set(_read_columns(path)):
            split = name_split(path.stem) or name_split(
                path.parent.name if path.parent != root else ''
            )
            if split in files:
                raise UserError(
                    f'{files[split]} and {path} are both tables of {split or "all images"}; move '
                    'the one that is not to be used away',
                    code='data.ambiguous',
                )
            files[split] = path
    index = ImageIndex(root)
    splits = {split: _read_table(path, root, index) for split, path in files.items()}
    if len(splits) > 1:
        splits.pop(WHOLE, None)  # of all images, beside the parts of it
    return make_data(find_class_list(root) or collect_names(splits), order_splits(splits))


def _read_table(path: Path, root: Path, index: ImageIndex) -> list[Picture]:
    found: dict[Path, tuple[tuple[int, int], int, list[Thing]]] = {}
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            rows = csv.DictReader(file, skipinitialspace=True, restkey='', strict=True)
            for row in rows:
                line = rows.line_num
                image = _find_image(row, path, line, index)
                size, thing = _read_row(row, path, line, f'{path.relative_to(root)}:{line}')
                known = found.setdefault(image, (size, line, []))
                if known[0] != size:
                    raise UserError(
                        f'{path}:{line}: {image.name} is {size[0]} x {size[1]} here and '
                        f'{known[0][0]} x {known[0][1]} in line {known[1]}; correct the one that '
                        'is wrong',
                        code='data.image-size',
                    )
                known[2].append(thing)
    except UnicodeDecodeError as error:
        raise refuse_encoding(path, error) from None
    except csv.Error as error:
        raise UserError(
            f'{path}: cannot be read as a table: {error}; export it again', code='data.label-line'
        ) from None
    pictures = [
        Picture(image, tuple(things), size, f'{path}:{line}')
        for image, (size, line, things) in found.items()
    ]
    return list(check_sizes(pictures))


def _find_image(row: Mapping[str, str], path: Path, line: int, index: ImageIndex) -> Path:
    name = (row['filename'] or '').strip()
    beside = path.parent / name
    if name and beside.is_file():
        return beside
    base = name.replace('\\', '/').rpartition('/')[2]
    found = index.names.get(base, [])
    split = name_split(path.stem) or name_split(path.parent.name)
    same = [one for one in found if split and split in map(name_split, one.parts[:-1])] or found
    if len(same) != 1:
        raise UserError(
            f'{path}:{line}: '
            + (
                f'the image {name!r} may be {same[0]} or {same[1]}; write its path from '
                f'{path.parent} into the table'
                if same
                else f'there is no image {name!r} below the folder; put it there, or take its '
                'lines away'
            ),
            code='data.image-missing',
        )
    return same[0]


def _read_row(
    row: Mapping[str, str], path: Path, line: int, source: str
) -> tuple[tuple[int, int], Thing]:
    numbers = [parse_number(row[key]) for key in COLUMNS if key not in ('filename', 'class')]
    name = (row['class'] or '').strip()
    if None in numbers or not name or '' in row:
        raise UserError(
            f'{path}:{line}: a line is {",".join(COLUMNS)}, a name and six numbers; correct it',
            code='data.label-line',
        )
    width, height, x0, y0, x1, y1 = (number or 0 for number in numbers)
    if x1 < x0 or y1 < y0 or width < 1 or height < 1:
        raise UserError(
            f'{path}:{line}: {name!r} has the corners {x0:g},{y0:g},{x1:g},{y1:g} in an image of '
            f'{width:g} x {height:g}, and the smaller ones come first; correct it',
            code='data.label-line',
        )
    x, y, w, h = round_pixels((x0, y0, x1 - x0, y1 - y0))
    return (int(width), int(height)), Thing(name, (x, y, w, h), source=source)
