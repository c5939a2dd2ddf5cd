"""Folders of masks of classes as other tools write them, each made from one truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from helpers.folders import CLASSES, Shot, draw_image, make_truth, write_text

NAMES = ('ground', *CLASSES)
COLORS = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
BY_COLOR = ','.join(f'{":".join(map(str, color))}={name}' for color, name in zip(COLORS, NAMES))


def draw_truth(shot: Shot) -> np.ndarray:
    """Return the mask of an image, H W: indices of ``NAMES``; a corner is left out."""
    mask = np.zeros(shot.size[::-1], np.uint8)
    for mark in shot.marks:
        x, y, w, h = mark.box
        mask[y : y + h, x : x + w] = NAMES.index(mark.name)
    mask[:2, :2] = 255
    return mask


def save_mask(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    """Write a mask, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(paint(np.arange(256)).tobytes())
    image.save(path)


def paint(mask: np.ndarray) -> np.ndarray:
    """Return a mask in colors, H W 3, 255 as white."""
    colors = np.full((256, 3), 255, np.uint8)
    colors[: len(COLORS)] = COLORS
    return colors[mask]


def put_pairs(
    images: Path,
    masks: Path,
    shots: Iterable[Shot],
    tails: tuple[str, str] = ('.jpg', '.png'),
    change: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> None:
    """Write images and masks."""
    for shot in shots:
        draw_image(images / f'{shot.name}{tails[0]}', shot)
        save_mask(masks / f'{shot.name}{tails[1]}', change(draw_truth(shot)))


def make_ade20k(root: Path) -> None:
    """ADE20K with its own names of splits."""
    for split, name in (('train', 'training'), ('val', 'validation')):
        put_pairs(root / 'images' / name, root / 'annotations' / name, make_truth()[split])
    write_text(root / 'classes.txt', '\n'.join(NAMES) + '\n')


def make_cityscapes(root: Path, tail: str = 'labelTrainIds') -> None:
    """Cityscapes, with masks of train ids."""
    ids = np.arange(256)
    if tail == 'labelIds':
        ids[:4] = 7, 8, 11, 12  # road, sidewalk, building, wall
        ids[255] = 0  # unlabeled
    for split, shots in make_truth(['train', 'val']).items():
        put_pairs(
            root / 'leftImg8bit' / split / 'aachen',
            root / 'gtFine' / split / 'aachen',
            shots,
            ('_leftImg8bit.png', f'_gtFine_{tail}.png'),
            lambda mask: ids[mask].astype(np.uint8),
        )
        for shot in shots:  # what else lies there
            save_mask(
                root / 'gtFine' / split / 'aachen' / f'{shot.name}_gtFine_color.png',
                paint(draw_truth(shot)),
            )


def make_cityscapes_ids(root: Path) -> None:
    """Cityscapes as published: masks of label ids."""
    make_cityscapes(root, 'labelIds')


def make_mmseg(root: Path) -> None:
    """mmseg's ``img_dir`` and ``ann_dir``."""
    for split, shots in make_truth().items():
        put_pairs(root / 'img_dir' / split, root / 'ann_dir' / split, shots)
    write_text(root / 'classes.txt', '\n'.join(NAMES) + '\n')


def make_voc_masks(root: Path) -> None:
    """VOC's masks with palette, and images of other tasks."""
    for split, shots in make_truth(['train', 'val']).items():
        for shot in shots:
            draw_image(root / 'JPEGImages' / f'{shot.name}.jpg', shot)
            path = root / 'SegmentationClass' / f'{shot.name}.png'
            save_mask(path, draw_truth(shot), palette=True)
        names = '\n'.join(shot.name for shot in shots) + '\n'
        write_text(root / 'ImageSets' / 'Segmentation' / f'{split}.txt', names)
    draw_image(root / 'JPEGImages' / 'other.jpg', make_truth()['test'][0])
    write_text(root / 'classes.txt', '\n'.join(NAMES) + '\n')


def make_voc_objects(root: Path) -> None:
    """VOC's masks of classes and of objects, with a void corner."""
    make_voc_masks(root)
    for shots in make_truth(['train', 'val']).values():
        for shot in shots:
            pixels = np.zeros(shot.size[::-1], np.uint8)
            for number, mark in enumerate(shot.marks, start=1):
                x, y, w, h = mark.box
                pixels[y : y + h, x : x + w] = number
            pixels[:2, :2] = 255
            save_mask(root / 'SegmentationObject' / f'{shot.name}.png', pixels, palette=True)


def make_cvat_masks(root: Path) -> None:
    """CVAT's "Segmentation mask": colors, ``labelmap.txt``, one list."""
    put_pairs(
        root / 'JPEGImages',
        root / 'SegmentationClass',
        make_truth(['train'])['train'],
        change=lambda mask: paint(np.where(mask == 255, 0, mask)),
    )
    lines = [f'{name}:{",".join(map(str, color))}::' for name, color in zip(NAMES, COLORS)]
    write_text(root / 'labelmap.txt', '# label:color_rgb:parts:actions\n' + '\n'.join(lines))


def make_beside(root: Path) -> None:
    """``a_mask.png`` beside ``a.jpg``, no splits."""
    put_pairs(root, root, make_truth(['train'])['train'], ('.jpg', '_mask.png'))
    write_text(root / 'classes.txt', '\n'.join(NAMES) + '\n')


def make_mask_folders(root: Path) -> None:
    """``images/`` and ``masks/`` in folders of splits."""
    for split, shots in make_truth(['train', 'val']).items():
        put_pairs(root / split / 'images', root / split / 'masks', shots, ('.png', '.png'))
    write_text(root / 'classes.txt', '\n'.join(NAMES) + '\n')


def make_mixed(root: Path) -> None:
    """``images/`` of several kinds and ``masks/``, no splits."""
    for number, shot in enumerate(make_truth(['train'])['train']):
        draw_image(root / 'images' / (shot.name + ('.jpg', '.png')[number % 2]), shot)
        save_mask(root / 'masks' / f'{shot.name}.png', draw_truth(shot))
    write_text(root / 'classes.txt', '\n'.join(NAMES) + '\n')


def make_colors(root: Path) -> None:
    """Masks of colors, which a mapping names."""
    for split, shots in make_truth(['train', 'val']).items():
        put_pairs(root / 'img_dir' / split, root / 'ann_dir' / split, shots, change=paint)


def make_two_values(root: Path) -> None:
    """Masks of 0 and 255, which a mapping names."""
    put_pairs(
        root / 'images',
        root / 'masks',
        make_truth(['train'])['train'],
        change=lambda mask: np.where((mask > 0) & (mask < 255), 255, 0).astype(np.uint8),
    )


class MaskKind(NamedTuple):
    """A kind of folder of masks.

    Attributes:
        make: writes it.
        format: the name of its format.
        splits: those it has; one alone needs ``--split``.
        mapping: what ``--mask-values`` says.
        names: the classes that are read.
        change: what becomes of the truth.
    """

    make: Callable[[Path], None]
    format: str
    splits: tuple[str, ...] = ('train', 'val')
    mapping: str | None = None
    names: tuple[str, ...] = NAMES
    change: Callable[[np.ndarray], np.ndarray] = np.asarray


CITY = (
    'road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,'
    'person,rider,car,truck,bus,train,motorcycle,bicycle'
)

# fmt: off
MASK_KINDS = {
    'ade20k-names': MaskKind(make_ade20k, 'ade20k'),
    'cityscapes': MaskKind(make_cityscapes, 'cityscapes', names=tuple(CITY.split(','))),
    'cityscapes-ids': MaskKind(make_cityscapes_ids, 'cityscapes', names=tuple(CITY.split(','))),
    'mmseg': MaskKind(make_mmseg, 'mmseg', ('train', 'val', 'test')),
    'voc-masks': MaskKind(make_voc_masks, 'voc-masks'),
    'cvat-masks': MaskKind(make_cvat_masks, 'voc-masks', ('train',),
                           change=lambda mask: np.where(mask == 255, 0, mask)),
    'mask-beside': MaskKind(make_beside, 'mask-files', ('train',)),
    'mask-folders': MaskKind(make_mask_folders, 'mask-files'),
    'mask-mixed-suffixes': MaskKind(make_mixed, 'mask-files', ('train',)),
    'mask-colors': MaskKind(make_colors, 'mmseg', mapping=BY_COLOR + ',255:255:255=ignore'),
    'mask-two-values': MaskKind(make_two_values, 'mask-files', ('train',),
                                '0=ground,255=thing', ('ground', 'thing'),
                                lambda mask: (mask > 0) & (mask < 255)),
}
# fmt: on
"""Every kind with masks of classes."""
