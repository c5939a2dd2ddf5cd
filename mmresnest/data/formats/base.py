"""What readers of formats share: likenesses, pictures with objects, tables, and where files are."""

from __future__ import annotations

import filecmp
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...utils.masks import decode_mask, encode_rle, measure_rle
from ..base import IMAGE_SUFFIXES, SPLITS, is_hidden, list_files
from ..checks.findings import Finding
from ..checks.images import find_mismatch, read_headers
from ..mask_mapping import MaskMapping

WHOLE = ''
"""The split of a folder that has none."""

DIGITS = 6
"""Decimals of a pixel that are kept: what is written as a share comes back as the same number."""

SPLIT_WORDS = {
    'train': ('train', 'training', 'trainset'),
    'val': ('val', 'valid', 'validation', 'dev', 'valset'),
    'test': ('test', 'testing', 'testset'),
}
"""How folders and files call the splits."""

_NAMES = {word: split for split, words in SPLIT_WORDS.items() for word in words}


@dataclass(frozen=True)
class Likeness:
    """How far a folder looks like a format.

    Attributes:
        found: what of the format is there; empty if nothing is.
        missing: what is not there and must be; empty for a folder that can be read.
        command: the one command that mends it.
    """

    found: str = ''
    missing: str = ''
    command: str = ''

    @property
    def is_whole(self) -> bool:
        """Whether the folder has all that the format needs."""
        return bool(self.found) and not self.missing


@dataclass(frozen=True)
class Thing:
    """An annotated object.

    Attributes:
        name: its class.
        box: x, y, width and height in pixels.
        polygons: its mask, x0 y0 x1 y1 ... each; empty without one.
        source: where it stands, as ``a.xml:12``.
        rle: its mask as COCO's run lengths, where polygons would not be exact.
        ignored: whether neither training nor scores count it, as COCO's crowds.
    """

    name: str
    box: tuple[float, float, float, float]
    polygons: tuple[tuple[float, ...], ...] = ()
    source: str = ''
    rle: Mapping[str, Any] | None = None
    ignored: bool = False


@dataclass(frozen=True)
class Picture:
    """An image and its objects.

    Attributes:
        path: the file.
        things: what is annotated.
        size: width and height as annotated; None where the format says nothing of them.
        source: the file of its annotations.
    """

    path: Path
    things: tuple[Thing, ...] = ()
    size: tuple[int, int] | None = None
    source: str = ''


@dataclass(frozen=True)
class Part:
    """A split as it was read.

    Attributes:
        table: a COCO table.
        paths: the image files, in the order of its list.
        original: the annotation file, if the table is what it holds.
        folder: where its ``file_name`` start from, if there is an ``original``.
        source: the file of its annotations, where no row says where it is from.
    """

    table: Mapping[str, Any]
    paths: Sequence[Path]
    original: Path | None = None
    folder: Path | None = None
    source: str = ''


@dataclass(frozen=True)
class ObjectData:
    """Images with boxes or instance masks.

    Attributes:
        parts: one for each split, or one called ``WHOLE``.
        findings: what was mended in reading.
        notes: what a person should know of the reading: what was left out, and why.
        of_classes: whether a mask holds all pixels of a class in an image, be they one object or
            several, so that it serves segmentors alone.
    """

    parts: Mapping[str, Part]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    of_classes: bool = False


@dataclass(frozen=True)
class Pair:
    """An image and its mask of classes."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class MaskData:
    """Images with masks of classes.

    Attributes:
        pairs: images and masks for each split, or for one called ``WHOLE``.
        classes: names by index; empty if ``classes.txt`` or the values tell.
        mapping: what the values of the masks stand for, if the format says so.
    """

    pairs: Mapping[str, Sequence[Pair]]
    classes: tuple[str, ...] = ()
    mapping: MaskMapping | None = None


@dataclass(frozen=True)
class Format:
    """A format: a row of :data:`.table.FORMATS`.

    Attributes:
        name: what ``--format`` calls it.
        title: what messages call it.
        looks: the files that it is known by, for a message.
        kind: ``coco`` for boxes and instance masks, ``ade20k`` for masks of classes.
        compare: says how far a folder looks like it.
        read: reads a folder.
        find_roots: further folders that it reads from.
        yields_to: another format that a folder is taken for where it is both.
    """

    name: str
    title: str
    looks: str
    kind: str
    compare: Callable[[Path], Likeness]
    read: Callable[[Path], ObjectData | MaskData]
    find_roots: Callable[[Path], Iterable[Path]] = field(default=lambda root: ())
    yields_to: str = ''


def name_split(text: str) -> str:
    """Return the split that a name of a file or folder says, ``WHOLE`` if none.

    ``train2017``, ``_valid`` and ``instances_Test`` count; ``training_notes`` does, too, and
    ``constrained`` does not.
    """
    words = re.split('[^a-z]+', text.lower())
    found = {_NAMES[word] for word in words if word in _NAMES}
    return found.pop() if len(found) == 1 else WHOLE


def find_split_folders(folder: Path, strict: bool = False) -> dict[str, Path]:
    """Return the folders below a folder whose names say a split, by split.

    A folder called ``train`` goes before one called ``train_2`` or ``panoptic_train``.

    Args:
        folder: where to look.
        strict: whether two folders that say the same split are refused; else the first counts.

    Raises:
        UserError: two say the same.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        split = name_split(path.name)
        if split and path.is_dir():
            found[split].append(path)
    chosen = {}
    for split, paths in found.items():
        exact = [path for path in paths if path.name.lower() in SPLIT_WORDS[split]]
        rivals = exact or paths
        if strict and len(rivals) > 1:
            raise refuse_rivals(rivals[0], rivals[1], split)
        chosen[split] = rivals[0]
    return chosen


def choose_image(found: Sequence[Path], name: str, place: str, remedies: tuple[str, str]) -> Path:
    """Return the one image that was found for a name.

    Args:
        found: those that it may mean.
        name: as it is written.
        place: where, as ``a.csv:2``.
        remedies: what to do if there are several, and if there is none.

    Raises:
        UserError: there is not one.
    """
    if len(found) == 1:
        return found[0]
    several, lost = remedies
    raise UserError(
        f'{place}: '
        + (
            f'the image {name!r} may be {found[0]} or {found[1]}; {several}'
            if found
            else f'there is no image {name!r} below the folder; put it there, or {lost}'
        ),
        code='data.image-missing',
    )


def find_label_folders(root: Path, suffix: str) -> dict[str, Path]:
    """Return the folders of splits that hold label files, in a folder or in one right below it.

    Raises:
        UserError: two say the same split.
    """
    found: dict[str, Path] = {}
    for place in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for split, folder in find_split_folders(place, strict=True).items():
            if next(list_files(folder, (suffix,)), None) is None:
                continue
            if split in found:
                raise refuse_rivals(found[split], folder, split)
            found[split] = folder
        if place == root and found:
            break
    return found


def refuse_rivals(one: Path, other: Path, split: str) -> UserError:
    """Return the error that two folders say the same split."""
    return UserError(
        f'{one} and {other} both seem to hold the split {split}; rename or move away the one that '
        'does not',
        code='data.ambiguous',
    )


def assign_splits(paths: Iterable[Path], root: Path, stems: bool = True) -> dict[str, Path]:
    """Return the file of each split, as its name says, or else the folder that it is in.

    Args:
        paths: the files.
        root: what they are in, whose own name says nothing.
        stems: whether names count, and not folders alone.

    Raises:
        UserError: two are of the same split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = name_split(path.stem) if stems else WHOLE
        split = split or name_split(path.parent.name if path.parent != root else '')
        if split in found:
            raise UserError(
                f'{found[split]} and {path} are both of {split or "all images"}; move the one that '
                'is not to be used away',
                code='data.ambiguous',
            )
        found[split] = path
    return found


def list_images(folder: Path) -> list[Path]:
    """Return the image files below a folder, in the order of their names."""
    return [folder / name for name in list_files(folder, IMAGE_SUFFIXES)]


def has_file(folder: Path, pattern: str, depth: int = 2) -> bool:
    """Return whether a folder or those below it hold a file of such a name."""
    return next(find_shallow(folder, pattern, depth), None) is not None


def find_shallow(folder: Path, pattern: str, depth: int = 2) -> Iterator[Path]:
    """Yield files of such a name in a folder and up to ``depth`` below, in the order of names.

    Letters count in any case: cameras and tools of Windows write ``.XML``.
    """
    if not folder.is_dir():
        return
    cased = ''.join(f'[{one.lower()}{one.upper()}]' if one.isalpha() else one for one in pattern)
    for level in range(depth + 1):
        for path in sorted(folder.glob('*/' * level + cased)):
            if path.is_file() and not any(map(is_hidden, path.relative_to(folder).parts)):
                yield path


def round_pixels(values: Iterable[float]) -> tuple[float, ...]:
    """Return coordinates of a pixel's millionth, whole ones as whole numbers."""
    rounded = [round(value, DIGITS) for value in values]
    return tuple(int(value) if value == int(value) else value for value in rounded)


def enclose(polygons: Iterable[Sequence[float]]) -> tuple[float, float, float, float]:
    """Return the box x, y, width, height around polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    x, y, width, height = round_pixels((min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)))
    return x, y, width, height


def measure_polygon(polygon: Sequence[float]) -> float:
    """Return the area of a polygon x0 y0 x1 y1 ..., by the shoelace formula."""
    xs, ys = polygon[::2], polygon[1::2]
    turned = zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]))
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in turned)) / 2


def join_things(things: Sequence[Thing]) -> Thing:
    """Return the parts of one object as that; a rectangle among several gives its corners."""
    if len(things) == 1:
        return things[0]
    coded = next((thing.rle for thing in things if thing.rle), None)
    if coded:
        masks = [decode_mask(_get_mask(thing), *coded['size']) for thing in things]
        return make_mask_thing(things[0].name, np.any(masks, axis=0), things[0].source)
    polygons = tuple(
        polygon for thing in things for polygon in (thing.polygons or (_to_polygon(thing),))
    )
    return Thing(things[0].name, enclose(polygons), polygons, things[0].source)


def make_mask_thing(name: str, mask: np.ndarray, source: str) -> Thing:
    """Return the object that a mask H W, not empty, shows: its box is around all of its pixels."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = xs[0], ys[0], xs[-1] + 1 - xs[0], ys[-1] + 1 - ys[0]
    x, y, width, height = (int(side) for side in box)
    return Thing(name, (x, y, width, height), source=source, rle=encode_rle(mask))


def _get_mask(thing: Thing) -> Any:
    return thing.rle or list(map(list, thing.polygons or (_to_polygon(thing),)))


def _to_polygon(thing: Thing) -> tuple[float, ...]:
    x, y, width, height = thing.box
    return x, y, x + width, y, x + width, y + height, x, y + height


def check_sizes(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Yield pictures with the size that training sees.

    Raises:
        UserError: an image that is missing or cannot be read, or whose size is another than
            annotated.
    """
    pictures = list(pictures)
    headers = list(read_headers([one.path for one in pictures]))  # whole, whatever is refused
    for picture, seen in zip(pictures, headers):
        kind, why = find_mismatch(seen, picture.size, follows_exif=True)
        where = f'{picture.source}: ' if picture.source else ''
        if kind == 'image-missing':
            raise UserError(
                f'{where}the image {picture.path} does not exist; put it there, or take its '
                'annotations away',
                code='data.image-missing',
            )
        if seen.fault:
            raise UserError(
                f'{where}the image {picture.path} cannot be read: {why}; put it there again, or '
                'take it and its annotations away',
                code='data.image-unreadable',
            )
        if kind in ('image-size', 'image-turned'):
            turned = kind == 'image-turned'
            raise UserError(
                f'{where}the image {picture.path} {why}'
                + (' (an EXIF orientation turns it when it is read)' if turned else '')
                + '; annotate the file that is there, or correct the size, before anything else '
                'is corrected',
                code='data.image-size',
            )
        size = seen.size[::-1] if seen.turned else seen.size
        yield replace(picture, size=size)


def make_data(
    root: Path,
    classes: Sequence[str],
    splits: Mapping[str, Sequence[Picture]],
    notes: Iterable[str] = (),
) -> ObjectData:
    """Return pictures as COCO tables: ids from 1, categories in the order of the classes.

    Args:
        root: their folder, for messages.
        classes: the names.
        splits: the pictures of each split.
        notes: see :class:`ObjectData`; empty ones are left out.

    Raises:
        UserError: a split without images, no object at all, an image with two label files, or an
            object whose class is not in the list.
    """
    total = sum(map(len, splits.values()))
    if total and not any(picture.things for rows in splits.values() for picture in rows):
        raise UserError(
            f'{root}: none of its {total} images has an object; annotate some, or name the folder '
            'that holds those with objects',
            code='data.objects-none',
        )
    for split, pictures in splits.items():
        if not pictures:
            raise UserError(
                f'{root} has no annotated image'
                + (f' for {split}' if split else '')
                + '; put some there'
                + (f', or take what is called {split} away' if split else ''),
                code='data.no-images',
            )
        _refuse_shared_images(pictures)
        for thing in (thing for picture in pictures for thing in picture.things):
            if thing.name not in classes:
                raise UserError(
                    f'{thing.source}: the class {thing.name!r} is not in the list of classes of '
                    f'{root} ({", ".join(classes[:20])}); add it there, or correct the name',
                    code='data.class-index',
                )
    parts = {split: _make_part(classes, rows) for split, rows in order_splits(splits).items()}
    return ObjectData(parts, notes=[note for note in notes if note])


def _refuse_shared_images(pictures: Iterable[Picture]) -> None:
    """Refuse an image that two label files of a split annotate, or that a list names twice."""
    known: dict[Path, str] = {}
    for picture in pictures:
        if picture.path in known:
            other = known[picture.path]
            raise UserError(
                f'{picture.source} and {other} both annotate {picture.path}; take one of them away'
                if other != picture.source
                else f'{other} is listed twice; take one of the lines away',
                code='data.ambiguous',
            )
        known[picture.path] = picture.source


def note_left_out(
    images: Iterable[Path], splits: Mapping[str, Sequence[Picture]], lacking: str
) -> str:
    """Return the note on images that no annotations name, empty without any.

    Args:
        images: all that there are.
        splits: the pictures that are read.
        lacking: what they have not.
    """
    read = {picture.path for pictures in splits.values() for picture in pictures}
    images = list(images)
    lost = [path for path in images if path not in read]
    if not lost:
        return ''
    return (
        f'left out: {len(lost)} of {len(images)} images ({lacking}), such as {lost[0]}; nothing '
        'says whether there is anything on them'
    )


def _make_part(classes: Sequence[str], pictures: Sequence[Picture]) -> Part:
    ids = {name: number for number, name in enumerate(classes, start=1)}
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        assert picture.size is not None  # of check_sizes
        width, height = picture.size
        images.append(dict(id=number, file_name='', width=width, height=height))
        for thing in picture.things:
            row = dict(
                id=len(rows) + 1,
                image_id=number,
                category_id=ids[thing.name],
                bbox=list(thing.box),
                area=thing.box[2] * thing.box[3],
                iscrowd=int(thing.ignored),
                source=thing.source,
            )
            if thing.rle:
                row['segmentation'] = dict(thing.rle)
                row['area'] = measure_rle(thing.rle)
            if thing.polygons:
                row['segmentation'] = list(map(list, thing.polygons))
                row['area'] = sum(map(measure_polygon, thing.polygons))
            rows.append(row)
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    table = dict(images=images, annotations=rows, categories=categories)
    return Part(table, [picture.path for picture in pictures])


def collect_names(splits: Mapping[str, Sequence[Picture]]) -> tuple[str, ...]:
    """Return the names of all objects in the order of the alphabet, where no list gives another.

    Numbers are in their own order: 2 before 10.
    """
    found = {thing.name for rows in splits.values() for row in rows for thing in row.things}
    numbered = all(name.isascii() and name.isdecimal() for name in found)
    return tuple(sorted(found, key=int) if numbered else sorted(found))


def order_splits(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the splits in the order train, val, test."""
    return {name: splits[name] for name in (*SPLITS, WHOLE) if name in splits}


def parse_number(text: Any) -> float | None:
    """Return a finite number that a text spells, None if it spells none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def compose_name(name: str) -> str:
    """Return a name with its accents as one letter each: macOS writes them as two."""
    return unicodedata.normalize('NFC', name)


def _fold_case(name: str) -> str:
    return compose_name(name).casefold()


class ImageIndex:
    """The images below a folder, found by their names with or without ending."""

    def __init__(self, *folders: Path) -> None:
        self.roots = folders
        self.paths = [path for folder in folders for path in list_images(folder)]
        self.names: dict[str, list[Path]] = defaultdict(list)
        self.stems: dict[str, list[Path]] = defaultdict(list)
        self.folded: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self.names[compose_name(path.name)].append(path)
            self.stems[compose_name(path.stem)].append(path)
            self.folded[_fold_case(path.name)].append(path)
        self.folders = {path.parent.name for path in self.paths}

    def has(self, name: str) -> bool:
        """Return whether an image has the last part of a path for its name."""
        return _fold_case(name).replace('\\', '/').rpartition('/')[2] in self.folded

    def find_named(self, name: str) -> list[Path]:
        """Return the images whose paths end as a name does, in the most of its parts.

        Where the folder that it names holds images, none of another folder is meant. Where no name
        is the same in its letters, capitals and small ones are.
        """
        name = compose_name(name).replace('\\', '/')
        parts = [part for part in name.split('/') if part not in ('', '.', '..')]
        found, spell = self.names.get(parts[-1], []) if parts else [], compose_name
        if parts and not found:  # written where letters count in any case
            parts, spell = [*map(_fold_case, parts)], _fold_case
            found = self.folded.get(parts[-1], [])
        for count in range(len(parts), 1, -1):
            same = [path for path in found if [*map(spell, path.parts[-count:])] == parts[-count:]]
            if same:
                return same
        return [] if len(parts) > 1 and parts[-2] in self.folders else found

    def prefer_split(self, found: list[Path], split: str) -> list[Path]:
        """Return those of some images that are in folders of a split, all if none is."""
        own = []
        for path in found if split and len(found) > 1 else ():
            root = next(root for root in self.roots if path.is_relative_to(root))
            if split in map(name_split, path.relative_to(root).parts[:-1]):
                own.append(path)
        return own or found

    def find_near(self, label: Path, name: str) -> Path | None:
        """Return the image that a label file stands for.

        Args:
            label: the file.
            name: what it calls the image; empty if it says nothing.

        Returns:
            the image with the label's name, else the one of that name; of several the one to which
            the name leads from the label, else the one whose folders are most like the label's;
            None without one.

        Raises:
            UserError: two are as near as each other, and not the same image.
        """
        *_, base = parts = compose_name(name).replace('\\', '/').split('/')
        # Tools rename images and leave the name in the file: the label's own name is the better.
        found = self.stems.get(compose_name(label.stem)) or self.names.get(base) or []
        both = [path for path in found if compose_name(path.name) == base] or found
        if not both:
            return None
        led = Path(os.path.normpath(label.parent.joinpath(*parts)))
        if led in both:
            return led
        most = max(_count_shared(path, label) for path in both)
        first, *rivals = (path for path in both if _count_shared(path, label) == most)
        for rival in rivals:
            if not filecmp.cmp(first, rival, shallow=False):
                raise UserError(
                    f'{label}: its image may be {first} or {rival}; give folders of images and '
                    'labels the same names, or images different ones',
                    code='data.ambiguous',
                )
        return first


def _count_shared(image: Path, label: Path) -> int:
    """Return how many folders two paths share: those above both, and names further down."""
    above = Path(os.path.commonpath([image.parent, label.parent]))
    names = [
        Counter(name_split(part) or part.lower() for part in path.parent.relative_to(above).parts)
        for path in (image, label)
    ]
    return len(above.parts) + (names[0] & names[1]).total()
