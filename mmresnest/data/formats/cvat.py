"""CVAT's own file, "CVAT for images 1.1": ``annotations.xml`` with all images and their objects.

::

    <image name="a.jpg" width="640" height="480" subset="Train">
      <box label="cat" xtl="1" ytl="2" xbr="3" ybr="4"/>
      <polygon label="cat" points="1,2;3,4;5,6" group_id="1"/>
      <mask label="cat" rle="3, 5, 7, 5" left="1" top="2" width="4" height="5"/>

The labels of the task are the classes, in its order. A turned box is the polygon of its corners; a
mask has the pixels of its rectangle, line by line, in runs of which the first are outside. Shapes
of the same ``group_id`` and label are one object. Other shapes are refused, and so are the tracks
of a video; tags are of images, and left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...utils.masks import turn_box
from ..checks.findings import shorten
from .base import (
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    check_sizes,
    choose_image,
    collect_names,
    enclose,
    find_shallow,
    join_things,
    make_data,
    make_mask_thing,
    name_split,
    note_left_out,
    parse_number,
    round_pixels,
)
from .xml_files import Node, read_xml

_SHAPES = ('polyline', 'points', 'ellipse', 'cuboid', 'skeleton')
_LOOKED_AT = 50
_EXPORT = 'export the task as COCO 1.0'


def compare_cvat(root: Path) -> Likeness:
    """Say how far a folder looks like CVAT's own export."""
    for path in find_cvat_files(root):
        return Likeness(f'{path.relative_to(root)}, an xml file with images')
    return Likeness()


def find_cvat_files(root: Path) -> list[Path]:
    """Return the xml files in and right below a folder that list images with their objects."""
    found = []
    for path in islice(find_shallow(root, '*.xml', 1), _LOOKED_AT):
        with path.open('rb') as file:
            if re.search(rb'<annotations[\s>]', file.read(4096)):
                found.append(path)
    return found


def read_cvat(root: Path) -> ObjectData:
    """Read CVAT's file and the images that it names.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    path, *others = find_cvat_files(root)
    if others:
        raise UserError(
            f'{path} and {others[0]} both list images; put each into a folder of its own, or move '
            'the one that is not to be used away',
            code='data.ambiguous',
        )
    top, index = read_xml(path), ImageIndex(root)
    if top.find_child('track'):
        raise UserError(
            f'{path}: <track>: objects of a video, and images are wanted; {_EXPORT}',
            code='data.shape',
        )
    splits: dict[str, list[Picture]] = {}
    for node in top.iterate('image'):
        split = name_split(node.attributes.get('subset', ''))
        splits.setdefault(split, []).append(_read_picture(node, path, root, index))
    sized = {split: list(check_sizes(pictures)) for split, pictures in splits.items()}
    meta = top.find_child('meta')
    names = [one.read_text('name') for one in meta.iterate('label')] if meta else []
    listed = [name for name in dict.fromkeys(names) if name]
    notes = [note_left_out(index.paths, sized, f'no <image> in {path.name}')]
    tags = sum(1 for _ in top.iterate('tag'))
    if tags:
        notes.append(f'{tags} tags are left out: they are of images, and no objects')
    return make_data(root, listed or collect_names(sized), sized, notes)


def _read_picture(node: Node, path: Path, root: Path, index: ImageIndex) -> Picture:
    name = node.attributes.get('name', '').replace('\\', '/')
    split = name_split(node.attributes.get('subset', ''))
    same = index.prefer_split(index.find_named(name), split)
    remedies = 'keep the folders of the task', 'export with "Save images"'
    image = choose_image(same, name, f'{path}:{node.line}', remedies)
    sides = [parse_number(node.attributes.get(side)) for side in ('width', 'height')]
    size = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
    groups: dict[object, list[Thing]] = {}
    for at, shape in enumerate(node.children):
        group = shape.attributes.get('group_id', '0')
        place, source = (f'{name}:{shape.line}' for name in (path, path.relative_to(root)))
        thing = _read_thing(shape, place, source, size)
        if thing is not None:
            key = (thing.name, group) if group not in ('', '0') else at
            groups.setdefault(key, []).append(thing)
    return Picture(image, tuple(map(join_things, groups.values())), size, f'{path}:{node.line}')


def _read_thing(shape: Node, place: str, source: str, size: tuple[int, int] | None) -> Thing | None:
    label = shape.attributes.get('label', '')
    if shape.tag in _SHAPES:
        raise UserError(
            f'{place}: {shorten(label)} is a {shape.tag}, and boxes and masks are read from '
            f'<box>, <polygon> and <mask>; draw it as one of them, take it away, or {_EXPORT}',
            code='data.shape',
        )
    if shape.tag not in ('box', 'polygon', 'mask'):
        return None
    if not label.strip():
        raise UserError(
            f'{place}: a {shape.tag} without label; name its class, or take it away',
            code='data.label-line',
        )
    if shape.tag == 'box':
        return _read_box(shape, label, place, source)
    if shape.tag == 'mask':
        return _read_mask(shape, label, place, source, size)
    pairs = [pair.split(',') for pair in shape.attributes.get('points', '').split(';')]
    points = round_pixels(_read_numbers([one for pair in pairs for one in pair], place, label))
    if len(points) % 2 or len({*zip(points[::2], points[1::2])}) < 3:
        raise UserError(
            f'{place}: the polygon of {shorten(label)} has {len(points) // 2} points, and needs 3 '
            'different ones or more; draw it again, or take it away',
            code='data.mask-points',
        )
    return Thing(label, enclose([points]), (points,), source)


def _read_mask(
    shape: Node, label: str, place: str, source: str, size: tuple[int, int] | None
) -> Thing:
    keys = ('left', 'top', 'width', 'height')
    sides = _read_numbers([shape.attributes.get(key) for key in keys], place, label)
    runs = _read_numbers(shape.attributes.get('rle', '').split(','), place, label)
    whole = all(value == int(value) and value >= 0 for value in (*sides, *runs))
    left, top, width, height = map(int, sides)
    columns, lines = size or (0, 0)
    inside = left + width <= columns and top + height <= lines
    if not whole or sum(runs) != width * height or not sum(runs[1::2]) or not inside:
        raise UserError(
            f'{place}: the mask of {shorten(label)} has runs of {sum(runs):g} pixels, of which '
            f'{sum(runs[1::2]):g} are in it, in {width} x {height} at {left},{top} of an image of '
            f'{columns} x {lines}; draw it again, or take it away',
            code='data.mask-rle',
        )
    mask = np.zeros((lines, columns), bool)
    flags = np.arange(len(runs)) % 2 == 1
    part = np.repeat(flags, np.array(runs, int)).reshape(height, width)
    mask[top : top + height, left : left + width] = part
    return make_mask_thing(label, mask, source)


def _read_numbers(words: Sequence[str | None], place: str, label: str) -> list[float]:
    values = [parse_number(word) for word in words]
    if None in values:
        wrong = words[values.index(None)]
        raise UserError(
            f'{place}: {shorten(label)} has {shorten(wrong)} where a number belongs; export the '
            'file again',
            code='data.label-line',
        )
    return [value for value in values if value is not None]


def _read_box(shape: Node, label: str, place: str, source: str) -> Thing:
    keys = ('xtl', 'ytl', 'xbr', 'ybr')
    x0, y0, x1, y1 = _read_numbers([shape.attributes.get(key) for key in keys], place, label)
    if x1 < x0 or y1 < y0:
        raise UserError(
            f'{place}: {shorten(label)} has the corners {x0:g},{y0:g},{x1:g},{y1:g}, and the '
            'smaller ones come first; correct them, or take the box away',
            code='data.label-line',
        )
    (turn,) = _read_numbers([shape.attributes.get('rotation', '0')], place, label)
    if not turn:
        x, y, w, h = round_pixels((x0, y0, x1 - x0, y1 - y0))
        return Thing(label, (x, y, w, h), source=source)
    polygon = round_pixels(turn_box((x0, y0, x1 - x0, y1 - y0), turn))
    return Thing(label, enclose([polygon]), (polygon,), source)
