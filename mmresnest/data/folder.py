"""A user's data folder, read once: which layout, which classes, how many images.

Three layouts are understood, and a folder may hold all. Two of them::

    root/                                   root/
      train.json  val.json  [test.json]       images/train  images/val  [images/test]
      train/      val/      [test/]           annotations/train  annotations/val  [.../test]

On the left COCO's (boxes, and masks where every object has one), on the right ADE20K's (one mask
image per picture, a pixel's value is its class and 255 is left out).  The third is COCO's for
panoptic segmentation: ``panoptic_train.json`` and the folder ``panoptic_train/`` of its masks.
COCO's own names, such as ``annotations/instances_train2017.json`` beside ``train2017/``, are found
as well.

Whatever would only show up in the middle of a run is looked for here, and named with file, field
and remedy in a :class:`~mmresnest.errors.UserError`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import Seen, look_at_all, look_at_label, without_collecting
from .findings import raise_first
from .panoptic import count_things, look_for_masks, look_over_segments, look_over_things
from .polygons import is_coded
from .tables import FIELDS, have, missing_fields, rows_of

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
IGNORED = 255
"""The value of a mask's pixels that no loss and no score counts."""

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

_CHECKED_IMAGES = 1000
_CACHED_FROM = 1000

_LAYOUTS = (
    'expected train.json, val.json and images in train/ and val/ (COCO), '
    'or images/{train,val} with annotations/{train,val} (ADE20K), '
    'or panoptic_{train,val}.json beside their folders of masks'
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        annotations: the json file, or the folder of masks, relative to the root.
        images: the folder that the image names start from, relative to the root.
        image_count: how many images it lists.
        object_count: how many objects are annotated; 0 for masks.
        masks: the folder of panoptic masks, relative to the root; empty for other kinds.
    """

    name: str
    annotations: str
    images: str
    image_count: int
    object_count: int = 0
    masks: str = ''


@dataclass(frozen=True)
class DataFolder:
    """What a data folder holds.

    Attributes:
        kind: ``coco``, ``panoptic`` or ``ade20k``.
        root: absolute path.
        classes: names in the order that labels have: for COCO that of the ``categories`` list,
            which is how mmdet numbers them; for masks the pixel value.
        splits: ``train``, ``val`` and, where the folder has one with annotations, ``test``.
        has_masks: whether every object of a COCO folder has a mask.
        coded_masks: whether any object, crowds left out, has its mask as run lengths.
        maskless: where the first object without a mask stands; empty if ``has_masks``.
        things: for panoptic data, how many classes, from the first on, are countable.
        img_suffix: how image names end in a folder of masks.
        seg_map_suffix: what takes the place of ``img_suffix`` in the name of the mask.
    """

    kind: str
    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, Split] = field(default_factory=dict)
    has_masks: bool = False
    coded_masks: bool = False
    maskless: str = ''
    things: int = 0
    img_suffix: str = '.jpg'
    seg_map_suffix: str = '.png'

    @property
    def has_test(self) -> bool:
        """Whether there is a test split that can be scored."""
        return 'test' in self.splits

    @property
    def counts(self) -> dict[str, int]:
        """Images by split."""
        return {name: split.image_count for name, split in self.splits.items()}

    def split(self, name: str) -> Split:
        """The split of that name; ``val`` stands in for a missing ``test``."""
        return self.splits['val' if name == 'test' and not self.has_test else name]

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {name}' for name, count in self.counts.items())
        return f'{self.root} ({self.kind}: {counts} images; {len(self.classes)} classes)'


def read_folder(
    path: str | os.PathLike, kind: str | None = None, lenient: bool = False
) -> DataFolder:
    """Reads a data folder.

    Args:
        path: the folder.
        kind: ``coco``, ``panoptic`` or ``ade20k``, as the task wants it; by default the first of
            ``coco``, ``ade20k`` and ``panoptic`` that the folder holds.
        lenient: find out classes and files as far as that can be done, and leave what is wrong with
            them to an audit.

    Returns:
        its classes, files and counts.

    Raises:
        UserError: if the folder or its annotations are missing or cannot be used.
    """
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise UserError(f'the data folder {root} does not exist; {_LAYOUTS}')
    if not root.is_dir():
        raise UserError(f'{root} is a file, and the data must be a folder; {_LAYOUTS}')
    kind = kind or _kind_of(root)
    if kind not in _READERS:
        raise UserError(f'unknown kind of data folder {kind!r}; legal: ' + ', '.join(_READERS))
    return _READERS[kind](root, lenient)


def _kind_of(root: Path) -> str:
    if _first(root, JSON_NAMES, 'train'):
        return 'coco'
    if (root / 'annotations' / 'train').is_dir():
        return 'ade20k'
    if _first(root, PANOPTIC_NAMES, 'train'):
        return 'panoptic'
    raise UserError(f'no annotations in {root}; {_LAYOUTS}. {_what_is_there(root)}')


def _first(root: Path, patterns: Iterable[str], split: str) -> Path | None:
    """The first of the named files that exists."""
    paths = (root / pattern.format(split=split) for pattern in patterns)
    return next((path for path in paths if path.is_file()), None)


def _what_is_there(root: Path) -> str:
    names = sorted(entry.name + ('/' if entry.is_dir() else '') for entry in root.iterdir())
    if not names:
        return 'The folder is empty'
    more = f' and {len(names) - 8} more' if names[8:] else ''
    return 'It holds: ' + ', '.join(names[:8]) + more


def _relative(path: Path, root: Path) -> str:
    text = path.relative_to(root).as_posix()
    return '' if text == '.' else text


# ---- COCO ----------------------------------------------------------------------------------------


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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a json file.

    Raises:
        UserError: if it cannot be read, or is none.
    """
    try:
        with path.open(encoding='utf-8') as file, without_collecting():
            table = json.load(file)
    except json.JSONDecodeError as error:
        raise UserError(
            f'{path} is not valid json: {error.msg} at line {error.lineno}, column '
            f'{error.colno}; export it again, or download it again if it is cut '
            'off'
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not text in UTF-8 (byte {error.start}); export it again'
        ) from None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise UserError(f'{path} cannot be read: {error}; export it again') from None
    if not isinstance(table, dict):
        raise UserError(
            f'{path} holds a {type(table).__name__}, and a COCO file is an object with '
            'the fields images, annotations and categories'
        )
    return table


def peek_json(path: Path, most: int, window: int = 2**24) -> dict[str, Any]:
    """What can be had of a COCO file without reading all of it, which takes tens of seconds.

    Looks for the lists by their names, wherever they stand, and reads the categories and the first
    rows of the others. A name that stands deeper in the file can mislead it, so that what it says
    may acquit a file, but not condemn it.

    Args:
        path: the file.
        most: rows to read of every list but the categories.
        window: bytes of a list that are looked at.

    Returns:
        the lists found.

    Raises:
        ValueError: what stands there is not a list of objects that ends in the window.
    """
    import mmap

    table: dict[str, Any] = {}
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if not text[-1024:].rstrip().endswith(b'}'):
            raise ValueError('cut off')
        for name in FIELDS:
            key = text.find(f'"{name}"'.encode())
            if key >= 0:
                start = text.find(b'[', key)
                part = text[start + 1 : start + window].decode('utf-8', 'ignore')
                table[name] = _rows(part, None if name == 'categories' else most)
    return table


def _rows(text: str, most: int | None) -> list[Any]:
    """The first objects of a list, from behind its bracket."""
    rows: list[Any] = []
    at, decoder = 0, json.JSONDecoder()
    while most is None or len(rows) < most:
        while text[at : at + 1] in (' ', '\n', '\r', '\t', ','):
            at += 1
        if text[at : at + 1] == ']':
            break
        row, at = decoder.raw_decode(text, at)
        rows.append(row)
    return rows


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


# ---- panoptic ------------------------------------------------------------------------------------


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


# ---- ADE20K --------------------------------------------------------------------------------------


def _read_ade20k(root: Path, lenient: bool) -> DataFolder:
    splits, pairs = {}, {}
    suffixes: tuple[str, str] | None = None
    for split in ('train', 'val', 'test'):
        images, masks = root / 'images' / split, root / 'annotations' / split
        if split == 'test' and not (images.is_dir() and masks.is_dir()):
            continue
        for folder in (images, masks):
            if not folder.is_dir():
                _no_masks(root, folder)
        found, pairs[split] = _match(images, masks, lenient)
        if suffixes is not None and found != suffixes and not lenient:
            raise UserError(
                f'images and masks end in {suffixes[0]} and {suffixes[1]} in train, '
                f'and in {found[0]} and {found[1]} in {split} ({images}); use the same '
                'in all'
            )
        suffixes = suffixes or found
        splits[split] = Split(split, f'annotations/{split}', f'images/{split}', len(pairs[split]))
    assert suffixes is not None  # train and val exist, or _no_masks has raised
    scored = [mask for split, masks in pairs.items() for mask in masks if split != 'test']
    values = mask_values(scored, root, lenient)
    classes = _class_names(root, values, lenient)
    if 'test' in pairs and not lenient:
        _within(mask_values(pairs['test'], root), classes, root / 'annotations' / 'test')
    return DataFolder(
        'ade20k', root, classes, splits, img_suffix=suffixes[0], seg_map_suffix=suffixes[1]
    )


def _no_masks(root: Path, folder: Path) -> None:
    hint = ''
    if _first(root, JSON_NAMES, 'train'):
        hint = (
            '; it holds boxes in COCO format, which a segmentor cannot use: choose a config '
            'of a detector, such as faster_rcnn_resnest50_fpn'
        )
    raise UserError(
        f'no annotations for a segmentor in {root}: the folder {folder} does not exist'
        f'{hint}. {_what_is_there(root)}'
    )


def _files(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Names of the files below a folder, relative to it, that end in one of the suffixes."""
    for where, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(tuple(suffixes)) and not name.startswith('.'):
                yield (Path(where) / name).relative_to(folder).as_posix()


def _match(images: Path, masks: Path, lenient: bool) -> tuple[tuple[str, str], list[Path]]:
    """Finds how images and masks end, so that each image has its mask.

    Returns:
        the two suffixes, and the masks in the order of the images.
    """
    pictures, maps = list(_files(images, IMAGE_SUFFIXES)), set(_files(masks, MASK_SUFFIXES))
    if not pictures:
        raise UserError(f'no images in {images} (looked for {" ".join(IMAGE_SUFFIXES)})')
    if not maps:
        raise UserError(f'no masks in {masks} (looked for {" ".join(MASK_SUFFIXES)})')
    endings = Counter(Path(name).suffix for name in pictures)
    if len(endings) > 1 and not lenient:
        said = ', '.join(f'{count} {ending}' for ending, count in endings.most_common())
        raise UserError(
            f'the images of {images} are of several kinds ({said}); convert them to one'
        )
    image_suffix = _whole_suffix(pictures, maps)
    stems = [name[: -len(image_suffix)] for name in pictures]
    tails = Counter(name[len(stems[0]) :] for name in maps if name.startswith(stems[0]))
    tails.update({'.png': 0})
    mask_suffix = max(
        tails, key=lambda tail: (sum(stem + tail in maps for stem in stems), -len(tail))
    )
    lost = [stem for stem in stems if stem + mask_suffix not in maps]
    if lost and not lenient:
        raise UserError(
            f'{len(lost)} of {len(stems)} images in {images} have no mask in {masks}, '
            f'such as {lost[0]}{image_suffix}, whose mask would be '
            f'{lost[0]}{mask_suffix}; masks are named like their images, up to the '
            'ending'
        )
    return (image_suffix, mask_suffix), [masks / (stem + mask_suffix) for stem in stems]


def _whole_suffix(pictures: list[str], maps: set[str]) -> str:
    """The part of image names that mask names do not share, such as ``_leftImg8bit.png``."""
    ending = Path(pictures[0]).suffix
    first = pictures[0][: -len(ending)]
    if any(name.startswith(first) for name in maps) or '_' not in first:
        return ending
    tail = '_' + first.rpartition('_')[2] + ending
    return tail if all(name.endswith(tail) for name in pictures) else ending


def _class_names(root: Path, values: dict[int, Path], lenient: bool) -> tuple[str, ...]:
    used = sorted(value for value in values if value != IGNORED)
    if not used:
        raise UserError(
            f'the masks of {root / "annotations"} hold nothing but {IGNORED}, which is left out'
        )
    for path in (root / 'classes.txt', root / 'annotations' / 'classes.txt'):
        if path.is_file():
            lines = path.read_text(encoding='utf-8').splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
            if not lenient:
                _within(values, names, path)
            return names
    if used[-1] >= 200 and len(used) < 20 and not lenient:
        raise UserError(
            f'the masks of {root / "annotations"} hold the values {used}: that looks '
            'like colours, and a pixel must hold the index of its class, 0, 1, 2 ... '
            f'(such as {values[used[-1]]})'
        )
    return tuple(f'class_{index}' for index in range(used[-1] + 1))


def _within(values: dict[int, Path], classes: Sequence[str], where: Path) -> None:
    beyond = sorted(value for value in values if len(classes) <= value != IGNORED)
    if beyond:
        raise UserError(
            f'{where}: there are {len(classes)} classes, and the mask '
            f'{values[beyond[0]]} holds the label {beyond[0]}; labels run from 0 to '
            f'{len(classes) - 1}, and {IGNORED} is left out'
        )


def mask_values(masks: Sequence[Path], root: Path, lenient: bool = False) -> dict[int, Path]:
    """Which values the pixels of masks take.

    Args:
        masks: image files of one channel.
        root: the folder the cache entry is named after; many masks are read once and remembered, as
            long as no file changes.
        lenient: pass over what cannot be read.

    Returns:
        for each value the first mask that holds it.
    """
    cache = _cache_file(masks, root) if len(masks) >= _CACHED_FROM else None
    if cache is not None and cache.is_file():
        try:
            return {int(value): Path(path) for value, path in json.loads(cache.read_text()).items()}
        except (ValueError, OSError):
            logger.debug('the cache %s cannot be read, so the masks are', cache)
    found: dict[int, Path] = {}
    seen = look_at_all(lambda mask: _values(mask, lenient), masks, f'reading {len(masks)} masks')
    for mask, values in zip(masks, seen):
        for value in values:
            found.setdefault(value, mask)
    if cache is not None and not lenient:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps({value: str(path) for value, path in found.items()}))
        except OSError as error:
            logger.debug('the cache %s cannot be written: %s', cache, error)
    return found


def _values(path: Path, lenient: bool) -> tuple[int, ...]:
    seen = look_at_label(path)
    if seen.fault and not lenient:
        raise UserError(label_fault(path, seen))
    return seen.values


def label_fault(path: Path, seen: Seen) -> str:
    """What is wrong with a label image, in words."""
    return (
        f'the mask {path} {seen.why}'
        if seen.fault == 'colours'
        else (f'the mask {path} cannot be read: {seen.why}')
    )


def _cache_file(masks: Sequence[Path], root: Path) -> Path:
    digest = hashlib.sha256()
    for mask in masks:
        stat = mask.stat()
        digest.update(f'{mask}\0{stat.st_size}\0{stat.st_mtime_ns}\n'.encode())
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return home / 'mmresnest' / f'{root.name}-{digest.hexdigest()[:16]}.json'


_READERS = {'coco': _read_coco, 'ade20k': _read_ade20k, 'panoptic': _read_panoptic}
