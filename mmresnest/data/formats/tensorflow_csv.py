"""TensorFlow's tables: ``filename,width,height,class,xmin,ymin,xmax,ymax``, a line for each object.

One file for each split (``train_labels.csv``, ``train/_annotations.csv``) or one for all. The
corners are edges: ``w = xmax - xmin``. Columns may stand in any order, under the other names of
:data:`ALIASES`, in any case of letters, and between semicolons or tabs; width and height may be
missing. An image that no line names is left out: nothing says whether it was looked at; one with
a line that names it alone has no objects.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
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
    assign_splits,
    check_sizes,
    choose_image,
    collect_names,
    find_shallow,
    make_data,
    name_split,
    note_left_out,
    parse_number,
    round_pixels,
)
from .names import find_class_list

COLUMNS = ('filename', 'width', 'height', 'class', 'xmin', 'ymin', 'xmax', 'ymax')
_CORNERS = COLUMNS[4:]
_NEEDED = ('filename', 'class', *_CORNERS)
ALIASES = {
    'filename': ('file', 'file_name', 'image', 'image_name', 'image_path', 'path'),
    'class': ('label', 'class_name', 'label_name', 'name'),
    'xmin': ('x_min', 'x1'),
    'ymin': ('y_min', 'y1'),
    'xmax': ('x_max', 'x2'),
    'ymax': ('y_max', 'y2'),
}
"""Column -> what other tools call it."""
_SIDES = {'bbox_x': 'xmin', 'bbox_y': 'ymin', 'bbox_width': 'xmax', 'bbox_height': 'ymax'}
"""Columns of makesense.ai, which has the sides of a box -> the corner that follows from each."""
_SIZES = {'image_width': 'width', 'image_height': 'height'}
_KNOWN = {other: name for name, others in ALIASES.items() for other in others}
_HEADERS = {  # of lines that consist of names N and numbers 0
    'N00N0000': COLUMNS,
    'N0000N': ('filename', 'xmin', 'ymin', 'xmax', 'ymax', 'class'),
    'NN0000': ('filename', 'class', 'xmin', 'ymin', 'xmax', 'ymax'),
    'N0000N00': ('label_name', *_SIDES, 'image_name', *_SIZES),
}


OTHERS = {
    "Open Images's table": ('imageid', 'labelname', 'confidence', 'xmin'),
    'a table with boxes in one column': ('bbox',),
    "Label Studio's table": ('annotation_id', 'annotator'),
}
"""Tables that are known and not read -> columns that they have."""


def compare_csv(root: Path) -> Likeness:
    """Say how far a folder looks like TensorFlow's tables."""
    best = Likeness()
    for path in find_shallow(root, '*.csv'):
        columns, separator, _ = _read_columns(path)
        missing = [name for name in _NEEDED if name not in columns]
        if not missing:
            return Likeness(f'{path.relative_to(root)}, a table with the columns of TensorFlow')
        if describe_table(path):
            continue
        words = ['N' if parse_number(word) is None else '0' for word in columns]
        header = _HEADERS.get(''.join(words))
        if header:
            best = Likeness(
                f'{path.relative_to(root)}, a table',
                'its first line, the names of the columns',
                f"sed -i '1i {separator.join(header)}' {path}",
            )
        elif len(missing) < len(_NEEDED) - 1:
            best = Likeness(
                f'{path.relative_to(root)}, a table with the columns {", ".join(columns)}',
                f'its columns {", ".join(missing)}',
                f"sed -i '1s/.*/{separator.join(COLUMNS)}/' {path}, if those are what it holds",
            )
    return best


def _read_columns(path: Path) -> tuple[list[str], str, bool]:
    """Return the columns of a table under their names here, and what stands between them.

    The third value says whether the table has the sides of boxes where the corners are named.
    """
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            line = file.readline(4096)
    except (OSError, UnicodeDecodeError):
        return [], ',', False
    separator = max(',;\t', key=line.count)
    try:
        names = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return [], separator, False
    names = [name.strip().lower() for name in names]
    sided = set(_SIDES) <= set(names)
    if sided:
        names = [(_SIDES | _SIZES).get(name, name) for name in names]
    return [_KNOWN.get(name, name) for name in names], separator, sided


def describe_table(path: Path) -> str:
    """Return whose table of another kind a file is, empty if it is none that is known."""
    columns, *_ = _read_columns(path)
    return next((title for title, known in OTHERS.items() if set(known) <= set(columns)), '')


def read_csv(root: Path) -> ObjectData:
    """Read tables of boxes and their images.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    tables = find_shallow(root, '*.csv')
    files = assign_splits(
        (path for path in tables if set(_NEEDED) <= set(_read_columns(path)[0])), root
    )
    index = ImageIndex(root)
    splits = {split: _read_table(path, root, index) for split, path in files.items()}
    if len(splits) > 1:
        splits.pop(WHOLE, None)  # of all images, beside the parts of it
    notes = [note_left_out(index.paths, splits, 'no line in a table')]
    return make_data(root, find_class_list(root) or collect_names(splits), splits, notes)


def _read_table(path: Path, root: Path, index: ImageIndex) -> list[Picture]:
    found: dict[Path, tuple[tuple[int, int] | None, int, list[Thing]]] = {}
    columns, separator, sided = _read_columns(path)
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            file.readline()
            rows = csv.DictReader(
                file, columns, delimiter=separator, skipinitialspace=True, restkey='', strict=True
            )
            for row in rows:
                line = rows.line_num + 1
                image = _find_image(row, path, line, index)
                if not any((row[name] or '').strip() for name in _NEEDED[1:]):
                    found.setdefault(image, (None, line, []))  # looked at, and nothing is on it
                    continue
                numbers = _read_commas(row, separator)
                size, thing = _read_row(
                    numbers, path, line, f'{path.relative_to(root)}:{line}', sided
                )
                known = found.setdefault(image, (size, line, []))
                if not known[2]:
                    known = found[image] = (size, line, [])
                if known[0] != size:
                    raise UserError(
                        f'{path}:{line}: {image.name} is {_spell(size)} here and '
                        f'{_spell(known[0])} in line {known[1]}; correct the one that is wrong',
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
    _refuse_shares(path, pictures)
    return list(check_sizes(pictures))


def _spell(size: tuple[int, int] | None) -> str:
    return f'{size[0]} x {size[1]}' if size else 'of no size'


def _refuse_shares(path: Path, pictures: Sequence[Picture]) -> None:
    """Refuse a table whose corners are shares of the image: read as pixels they lie in one."""
    boxes = [thing.box for picture in pictures for thing in picture.things]
    if boxes and all(x + w <= 1 and y + h <= 1 for x, y, w, h in boxes):
        raise UserError(
            f'{path}: no corner is beyond 1: they are shares of the image, and pixels are wanted; '
            'with columns in the order ' + ','.join(COLUMNS) + ", awk -F, -v OFS=, 'NR > 1 {$5 *= "
            f"$2; $6 *= $3; $7 *= $2; $8 *= $3}} 1' {path} > pixels.csv writes them",
            code='data.label-line',
        )


def _find_image(row: Mapping[str, str], path: Path, line: int, index: ImageIndex) -> Path:
    name = (row['filename'] or '').strip()
    beside = path.parent / name
    if name and beside.is_file():
        return beside
    split = name_split(path.stem) or name_split(path.parent.name)
    same = index.prefer_split(index.find_named(name), split)
    remedies = f'write its path from {path.parent} into the table', 'take its lines away'
    return choose_image(same, name, f'{path}:{line}', remedies)


def _read_commas(row: Mapping[str, str], separator: str) -> Mapping[str, str]:
    """Return a row with points in its numbers: beside other separators a comma is one."""
    if separator == ',':
        return row
    numbers = {name: (row.get(name) or '').replace(',', '.') for name in COLUMNS if name in row}
    return {**row, **numbers, 'filename': row['filename'], 'class': row['class']}


def _read_row(
    row: Mapping[str, str], path: Path, line: int, source: str, sided: bool = False
) -> tuple[tuple[int, int] | None, Thing]:
    sides = [key for key in ('width', 'height') if key in row]
    numbers = [parse_number(row[key]) for key in (*_CORNERS, *sides)]
    name = (row['class'] or '').strip()
    if None in numbers or not name or '' in row:
        raise UserError(
            f'{path}:{line}: a line has the columns {",".join(row)}, of which all but filename '
            'and class are numbers that the boxes need; correct it',
            code='data.label-line',
        )
    x0, y0, x1, y1, *size = (number or 0 for number in numbers)
    if sided:
        x1, y1 = x0 + x1, y0 + y1
    if x1 < x0 or y1 < y0 or min(size, default=1) < 1:
        raise UserError(
            f'{path}:{line}: {name!r} has the corners {x0:g},{y0:g},{x1:g},{y1:g}'
            + (f' in an image of {" x ".join(f"{side:g}" for side in size)}' if size else '')
            + ', and the smaller ones come first; correct it',
            code='data.label-line',
        )
    x, y, w, h = round_pixels((x0, y0, x1 - x0, y1 - y0))
    stated = (int(size[0]), int(size[1])) if len(size) == 2 else None
    return stated, Thing(name, (x, y, w, h), source=source)
