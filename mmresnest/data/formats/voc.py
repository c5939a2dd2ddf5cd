"""Pascal VOC: an xml file for each image.

``JPEGImages/``, ``Annotations/`` and lists of names in ``ImageSets/Main/``, or the xml files beside
the images, also in folders named after splits. The name of an xml file, not its ``<filename>``,
says which image it is of where both are there: tools rename images and leave the latter. An object
that is ``difficult`` is neither learned nor scored, as in the challenge: it becomes a crowd of
COCO, which is counted neither as missed nor, where it is detected, as wrong.

A box has two corners ``(xmin, ymin)`` and ``(xmax, ymax)``. The challenge counts pixels from 1 and
includes the last, so that ``w = xmax - xmin + 1``; its files say so by ``<database>The VOC2007
Database``. Those of drawing tools (LabelImg, CVAT, Label Studio, Roboflow) hold edges:
``w = xmax - xmin``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import UserError
from ...utils.masks import turn_box
from ..base import IMAGE_SUFFIXES, list_files
from ..checks.images import track_rows
from ..text_files import read_lines
from .base import (
    SPLIT_WORDS,
    WHOLE,
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    check_sizes,
    collect_names,
    enclose,
    find_label_folders,
    find_shallow,
    find_split_folders,
    make_data,
    name_split,
    note_left_out,
    order_splits,
    parse_number,
    refuse_rivals,
    round_pixels,
)
from .names import NO_CLASSES, find_class_list
from .xml_files import Node, read_xml

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def compare_voc(root: Path) -> Likeness:
    """Say how far a folder looks like VOC."""
    files = _find_labels(root)
    first = next(files, None)
    if first is None:
        pictures = (root / 'JPEGImages').is_dir()
        sets = (root / 'ImageSets' / 'Main').is_dir()
        if (pictures or sets) and not any(root.glob('SegmentationClass*')):
            return Likeness(
                'JPEGImages/' if pictures else 'ImageSets/Main/',
                'Annotations/ with an xml file for each image',
                f'mv WHERE_THE_XML_FILES_ARE {root / "Annotations"}',
            )
        return Likeness()
    return Likeness(f'{first.relative_to(root)}, an xml file with boxes')


def _find_labels(root: Path) -> Iterator[Path]:
    """Yield the first xml file that has boxes, looking at a few of each place."""
    splits = list(find_split_folders(root).values())
    places: list[Path] = [root / 'Annotations', root, *splits]
    if root.is_dir():
        places += [path for path in sorted(root.iterdir()) if path.is_dir()]
    for place in dict.fromkeys(places):
        for number, path in enumerate(find_shallow(place, '*.xml', 1 if place != root else 0)):
            if number == 3:
                break
            if path.parent.name == 'Annotations' and path.parent != place not in splits:
                continue  # a whole folder of its own, below this one
            with path.open('rb') as file:
                # Letters of two bytes are found, too.
                if re.search(rb'<annotation[\s>]', file.read(4096).replace(b'\0', b'')):
                    yield path


def read_voc(root: Path) -> ObjectData:
    """Read a folder of xml files and images.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    splits, images = {}, {}
    for split, (labels, folder) in _list_labels(root).items():
        index = ImageIndex(folder)
        images.update(dict.fromkeys(index.paths))
        rows = track_rows(labels, len(labels), f'reading {len(labels)} xml files')
        splits[split] = list(check_sizes([_read_picture(path, root, index) for path in rows]))
    notes = [_note_difficult(splits)]
    if not (root / 'ImageSets').is_dir():  # whose lists say which images are meant
        notes.append(note_left_out(images, splits, 'no xml file'))
    found = collect_names(splits)
    # labelme2voc puts _background_ into its list.
    listed = [name for name in find_class_list(root) if name not in NO_CLASSES or name in found]
    return make_data(root, listed or found, splits, notes)


def _note_difficult(splits: Mapping[str, Sequence[Picture]]) -> str:
    """Return the note on objects that are neither learned nor scored, empty without any."""
    rows = [one.ignored for some in splits.values() for row in some for one in row.things]
    if not any(rows):
        return ''
    return (
        f'{sum(rows)} of {len(rows)} objects are marked difficult: they are neither learned nor '
        'scored'
    )


def _list_labels(root: Path) -> dict[str, tuple[list[Path], Path]]:
    """Return the xml files of each split, and the folder of its images."""
    sets = root / 'ImageSets' / 'Main'
    annotations = root / 'Annotations'
    if annotations.is_dir():
        images = root / 'JPEGImages' if (root / 'JPEGImages').is_dir() else root
        lists = find_lists(sets)
        if 'train' not in lists and (sets / 'trainval.txt').is_file():
            lists = {WHOLE: sets / 'trainval.txt', **lists}
            lists.pop('val', None)
        elif not lists and (sets / 'default.txt').is_file():
            lists = {WHOLE: sets / 'default.txt'}
        if lists:
            return {
                split: (list(_read_list(path, annotations)), images)
                for split, path in lists.items()
            }
        folders = find_split_folders(annotations, strict=True)
        if folders:
            return {split: (_list_xml(folder), images) for split, folder in folders.items()}
        return {WHOLE: (_list_xml(annotations), images)}
    folders = find_label_folders(root, '.xml') or {WHOLE: root}
    return {
        split: (_list_xml(folder), folder if folder.parent == root else root)
        for split, folder in folders.items()
    }


def find_lists(folder: Path) -> dict[str, Path]:
    """Return the lists of names in a folder of ``ImageSets``, by split: ``val.txt``, ``Valid.txt``.

    Raises:
        UserError: two say the same split.
    """
    found: dict[str, Path] = {}
    for path in find_shallow(folder, '*.txt', 0):
        split = name_split(path.stem)
        if split and path.stem.lower() in SPLIT_WORDS[split]:  # cat_train.txt is of a class
            if split in found:
                raise refuse_rivals(found[split], path, split)
            found[split] = path
    return order_splits(found)


def _list_xml(folder: Path) -> list[Path]:
    return [folder / name for name in list_files(folder, ('.xml',))]


def _read_list(path: Path, annotations: Path) -> Iterator[Path]:
    """Yield the xml files that a list names, one a line, with 1 or -1 after it for a class."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            words = line.strip().rsplit(maxsplit=1)
            name = words[0] if len(words) == 2 and words[1] in ('1', '-1', '0') else line.strip()
            if name.lower().endswith(IMAGE_SUFFIXES):
                name = name.rpartition('.')[0]
            tried = [annotations / f'{name}{suffix}' for suffix in ('.xml', '.XML')]
            label = next((path for path in tried if path.is_file()), tried[0])
            if not label.is_file():
                raise UserError(
                    f'{path}:{number}: {name} has no file {label}; put it there, or take the '
                    f'line away; if none of the list has one, take {path.name} away',
                    code='data.label-missing',
                )
            yield label


def _read_picture(path: Path, root: Path, index: ImageIndex) -> Picture:
    top = read_xml(path)
    where = path.relative_to(root)
    if top.tag != 'annotation':
        raise UserError(
            f'{path}:{top.line}: <{top.tag}> where VOC has <annotation>; take the file away, or '
            'export it again',
            code='data.label-line',
        )
    name = top.read_text('filename')
    image = index.find_near(path, name)
    if image is None:
        raise UserError(
            f'{path}: there is no image for it, neither {name or "a <filename>"} nor one called '
            f'{path.stem}, below the folder of the images; put it there, or take the file away',
            code='data.image-missing',
        )
    if top.find_child('imagesize'):
        raise UserError(
            f'{path}: is a file of LabelMe 3.0, which is not read; export the data as COCO or VOC',
            code='data.label-line',
        )
    size = top.find_child('size')
    sides = [parse_number(size.read_text(side)) for side in ('width', 'height')] if size else []
    if not sides or any(side is None or side < 1 for side in sides):
        raise UserError(
            f'{path}:{size.line if size else top.line}: no <size> with width and height of the '
            'image, by which the boxes are checked; write '
            f'<size><width>W</width><height>H</height></size> into it, those of {image.name}',
            code='data.size-missing',
        )
    database = top.read_text('source', 'database').lower()
    counts_from_1 = database.startswith('the voc') and database.endswith('database')
    things = tuple(
        _read_thing(node, path, where, 1 if counts_from_1 else 0)
        for node in top.children
        if node.tag == 'object'
    )
    width, height = (int(side or 0) for side in sides)
    return Picture(image, things, (width, height), str(path))


def _read_thing(node: Node, path: Path, where: Path, first: int) -> Thing:
    name, box = node.read_text('name'), node.find_child('bndbox')
    if not name:
        raise UserError(
            f'{path}:{node.line}: an <object> without <name>; name its class, or take it away',
            code='data.label-line',
        )
    if box is None:
        raise UserError(
            f'{path}:{node.line}: {name!r} has no <bndbox>; give it one, or take it away',
            code='data.label-line',
        )
    values = [parse_number(box.read_text(corner)) for corner in _CORNERS]
    x0, y0, x1, y1 = (float('nan') if value is None else value for value in values)
    if None in values or x1 < x0 or y1 < y0:
        spelled = ', '.join(f'{corner}={box.read_text(corner)!r}' for corner in _CORNERS)
        raise UserError(
            f'{path}:{box.line}: {name!r} has the corners {spelled}, and they are four numbers, '
            'the smaller ones first; correct them, or take the object away',
            code='data.label-line',
        )
    x, y, width, height = round_pixels((x0 - first, y0 - first, x1 - x0 + first, y1 - y0 + first))
    corners = (x, y, width, height)
    turn, polygons = _read_turn(node), []
    if turn:
        polygons = [round_pixels(turn_box(corners, turn))]
        corners = enclose(polygons)
    return Thing(
        name,
        corners,
        tuple(polygons),
        source=f'{where}:{box.line}',
        ignored=node.read_text('difficult').lower() in ('1', 'true'),
    )


def _read_turn(node: Node) -> float:
    """Return by how many degrees CVAT's box is turned, which its corners do not tell."""
    for one in node.iterate('attribute'):
        if one.read_text('name') == 'rotation':
            return parse_number(one.read_text('value')) or 0
    return 0
