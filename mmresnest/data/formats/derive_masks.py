"""Write lists of images, and index masks where the masks of a folder are none, into the cache."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...utils.masks import decode_mask
from ..base import IGNORED, DataFolder
from ..checks.findings import Finding
from ..checks.images import map_files, read_label_file
from ..checks.objects import check_objects
from ..checks.rows import get_rows
from ..json_files import read_coco_file
from ..mask_mapping import MaskMapping
from .base import Format, MaskData, Pair, order_splits
from .derive import (
    Derived,
    find_common_folder,
    find_undivided,
    name_cache,
    read_cache,
    write_once,
    write_reading,
)
from .split import Division, choose_images

BACKGROUND = 'background'
CONTESTED = 0.02
"""Share of the labeled pixels that objects of two classes may both have: their common edges."""

Task = tuple[Path, Callable[[], np.ndarray]]
"""A mask to be written: where, and what makes it."""


def derive_masks(
    root: Path, row: Format, mapping: MaskMapping | None, division: Division | None
) -> Derived:
    """Return where images and index masks of a folder are.

    Masks that are index masks stay where they are, if their names follow from those of the images.

    Args:
        root: the folder.
        row: its format.
        mapping: what ``--mask-values`` says.
        division: how a validation part is made.

    Raises:
        UserError: with file and remedy, for what cannot be read.
    """
    folder = name_cache(root, (), row.name, mapping, division)
    held = read_cache(folder)
    if held is not None:
        return held
    data = row.read(root)
    assert isinstance(data, MaskData)
    mapping = mapping or data.mapping
    pairs = _divide_pairs(root, data.pairs, mapping, division)
    suffixes = None if mapping else _find_suffixes(pairs)

    def write(part: Path) -> None:
        files, images, masks = {}, {}, {}
        for split, rows in pairs.items():
            common = find_common_folder([pair.image for pair in rows])
            names = [pair.image.relative_to(common).as_posix() for pair in rows]
            images[split] = common
            if suffixes:
                masks[split] = str(find_common_folder([pair.mask for pair in rows]))
                names = [name[: len(name) - len(suffixes[0])] for name in names]
            else:
                masks[split] = str(folder / 'masks' / split)
                tasks = [
                    (part / 'masks' / split / f'{name}.png', _make_reader(pair.mask, mapping))
                    for name, pair in zip(names, rows)
                ]
                write_masks(tasks)
            _write_list(part / f'{split}.txt', names)
            files[split] = f'{split}.txt'
        more = dict(
            masks=masks,
            suffixes=suffixes or ('', '.png'),
            classes=mapping.classes if mapping else data.classes,
            mapped=mapping is not None,
        )
        write_reading(part, files, images, more)

    write_once(folder, write)
    found = read_cache(folder)
    assert found is not None  # it was written just now
    return found


def _write_list(path: Path, names: Sequence[str]) -> None:
    odd = [name for name in names if name != name.strip() or '\n' in name]
    if odd:
        raise UserError(
            f'the image {odd[0]!r} has a name that begins or ends with a space, which a list of '
            'names cannot hold; rename it',
            code='data.label-line',
        )
    path.write_text('\n'.join(names) + '\n', encoding='utf-8')


def _make_reader(mask: Path, mapping: MaskMapping | None) -> Callable[[], np.ndarray]:
    return lambda: read_indices(mask, mapping)


def read_indices(mask: Path, mapping: MaskMapping | None) -> np.ndarray:
    """Return the class indices of a mask: H W, uint8.

    Raises:
        UserError: it cannot be read, or is no index mask and there is no mapping.
    """
    if mapping is not None:
        return mapping.to_indices(mapping.read_values(mask), f'the mask {mask}')
    from PIL import Image

    seen = read_label_file(mask)
    if seen.fault:
        raise UserError(
            f'the mask {mask} {seen.why}; write it again with one channel of class indices, or '
            'give --mask-values and the class of each color or value, as in '
            '0:0:0=background,128:0:0=plane',
            code='data.label-colours' if seen.fault == 'colours' else 'data.label-unreadable',
        )
    if max(seen.values) > IGNORED:
        raise UserError(
            f'the mask {mask} holds the value {max(seen.values)}, and classes are 0 to 254; say '
            'what the values stand for by --mask-values 0=NAME,...',
            code='data.label-value',
        )
    with Image.open(mask) as image:
        return np.asarray(image).astype(np.uint8)


def write_masks(tasks: Sequence[Task]) -> None:
    """Write masks, in parallel."""
    from PIL import Image

    def write_mask(task: Task) -> None:
        target, make = task
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make()).save(target, format='PNG')

    for _ in map_files(write_mask, tasks, f'writing {len(tasks)} masks'):
        pass


def _find_suffixes(pairs: Mapping[str, Sequence[Pair]]) -> tuple[str, str] | None:
    """Return how all images and all masks end beyond what their names have in common."""
    named = []
    for rows in pairs.values():
        ones = find_common_folder([pair.image for pair in rows])
        others = find_common_folder([pair.mask for pair in rows])
        named += [
            (pair.image.relative_to(ones).as_posix(), pair.mask.relative_to(others).as_posix())
            for pair in rows
        ]
    stem = os.path.commonprefix(named[0])
    if '.' in stem.rpartition('/')[2]:
        stem = stem.rpartition('.')[0]
    image, mask = (name[len(stem) :] for name in named[0])
    uniform = all(
        one.endswith(image)
        and other.endswith(mask)
        and one[: len(one) - len(image)] == other[: len(other) - len(mask)]
        for one, other in named
    )
    return (image, mask) if uniform and image and mask else None


def _divide_pairs(
    root: Path,
    pairs: Mapping[str, Sequence[Pair]],
    mapping: MaskMapping | None,
    division: Division | None,
) -> dict[str, Sequence[Pair]]:
    source = find_undivided(root, pairs, division)
    if source is None or division is None:
        return order_splits(pairs)
    rows = pairs[source]
    values = map_files(
        lambda pair: np.unique(read_indices(pair.mask, mapping)).tolist(),
        rows,
        f'reading {len(rows)} masks',
    )
    contents = [Counter(one for one in found if one != IGNORED) for found in values]
    chosen = set(choose_images([pair.image for pair in rows], contents, division))
    parts = {
        'train': [pair for at, pair in enumerate(rows) if at not in chosen],
        'val': [rows[at] for at in sorted(chosen)],
    }
    return {**parts, **{split: other for split, other in pairs.items() if split == 'test'}}


def draw_masks(folder: DataFolder) -> Generator[Finding, None, Derived]:
    """Return index masks that are drawn from the instance masks of a COCO folder.

    A pixel has the class of the objects that cover it, and ``background`` without one. Crowds, and
    pixels that objects of two classes share, are left out of training and scores.

    Args:
        folder: the data, read as COCO.

    Yields:
        what is wrong with the masks.

    Raises:
        UserError: an object has no mask, or objects of different classes lie on each other, so that
            the class of their pixels is not known.
    """
    if not folder.has_masks:
        raise UserError(
            f'no masks for a segmentor in {folder.root}: {folder.maskless}; draw them, or choose a '
            'config of a detector, such as faster_rcnn_resnest50_fpn',
            code='data.no-masks',
        )
    tables = {}
    for split, part in folder.splits.items():
        if part.scored:
            path = folder.root / part.annotations
            tables[split] = read_coco_file(path)[0]
            yield from check_objects(path, tables[split], masks='needed', kinds=())
    roots = [(folder.root / part.annotations).parent for part in folder.splits.values()]
    cache = name_cache(folder.root, roots, 'drawn', *folder.splits.values())
    held = read_cache(cache)
    if held is not None:
        return held
    classes = (BACKGROUND, *(name for name in folder.classes if name != BACKGROUND))

    def write(part: Path) -> None:
        images, shares = {}, []
        for split, table in tables.items():
            images[split] = folder.root / folder.splits[split].images
            rows, objects = get_rows(table, 'images'), _group_objects(table)
            labels = {
                row['id']: classes.index(row['name']) for row in get_rows(table, 'categories')
            }
            names = [row['file_name'] for row in rows]
            drawn = [_Drawing(row, objects.get(row['id'], ()), labels) for row in rows]
            targets = [part / 'masks' / split / f'{name}.png' for name in names]
            write_masks([(target, one.draw) for target, one in zip(targets, drawn)])
            _write_list(part / f'{split}.txt', names)
            shares += drawn
        _refuse_contested(folder, shares)
        more = dict(
            masks={split: str(cache / 'masks' / split) for split in tables},
            suffixes=('', '.png'),
            classes=classes,
            mapped=True,
        )
        write_reading(part, {split: f'{split}.txt' for split in tables}, images, more)

    write_once(cache, write)
    found = read_cache(cache)
    assert found is not None  # it was written just now
    return found


def _group_objects(table: Mapping[str, Any]) -> dict[Any, list[Any]]:
    """Return the objects of each image by its id."""
    found: dict[Any, list[Any]] = {}
    for row in get_rows(table, 'annotations'):
        found.setdefault(row['image_id'], []).append(row)
    return found


class _Drawing:
    """The mask of an image, and how much of it is contested."""

    def __init__(
        self, image: Mapping[str, Any], objects: Sequence[Any], labels: Mapping[Any, int]
    ) -> None:
        self.name, self.size = image['file_name'], (image['height'], image['width'])
        self.objects, self.labels = objects, labels
        self.labeled = self.contested = 0
        self.rivals = ('', '')

    def draw(self) -> np.ndarray:
        """Return H W, uint8."""
        mask = np.zeros(self.size, np.uint8)
        crowd = np.zeros(self.size, bool)
        both = np.zeros(self.size, bool)
        for row in self.objects:
            label = self.labels[row['category_id']]
            inside = decode_mask(row['segmentation'], *self.size)
            if row.get('iscrowd'):
                crowd |= inside
                continue
            other = inside & (mask != 0) & (mask != label)
            if other.any() and not both.any():
                under = next(key for key, at in self.labels.items() if at == mask[other][0])
                self.rivals = str(under), str(row['category_id'])
            both |= other
            mask[inside] = label
        self.labeled, self.contested = int((mask != 0).sum()), int(both.sum())
        mask[both | crowd & (mask == 0)] = IGNORED
        return mask


def _refuse_contested(folder: DataFolder, drawn: Sequence[_Drawing]) -> None:
    labeled, contested = sum(one.labeled for one in drawn), sum(one.contested for one in drawn)
    if contested > CONTESTED * labeled:
        worst = max(drawn, key=lambda one: one.contested)
        raise UserError(
            f'the objects of {folder.root} lie on each other: {contested / labeled:.0%} of their '
            f'pixels have two classes, such as the categories {" and ".join(worst.rivals)} in '
            f'{worst.name}, and a segmentor gives a pixel one; take a config for instance masks, '
            'such as mask_rcnn_resnest50_fpn, or write masks of classes',
            code='data.not-exact',
        )
