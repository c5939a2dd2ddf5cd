"""Read a folder of images and index masks in the layout of ADE20K."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .base import (
    IGNORED,
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    DataFolder,
    Split,
    _files,
    _first,
    _what_is_there,
    _within,
    logger,
)
from .checks.images import Seen, look_at_all, look_at_label
from .coco_folder import JSON_NAMES
from .json_files import _CACHED_FROM


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
