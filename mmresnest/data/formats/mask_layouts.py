"""Masks of classes in the layouts of data sets and tools.

::

    images/training          annotations/training           ADE20K's own names
    leftImg8bit/train/CITY   gtFine/train/CITY              Cityscapes, train ids or label ids
    img_dir/train            ann_dir/train                  mmseg
    JPEGImages               SegmentationClass              VOC, and CVAT with labelmap.txt
    a.jpg                    a_mask.png                     beside each other, or in images/ masks/

An image and its mask are found by their names; what the values of the masks stand for is the
business of :mod:`mmresnest.data.mask_mapping`, unless the layout says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import UserError
from ..base import MASK_SUFFIXES, list_files
from ..checks.images import read_label_file
from ..mask_mapping import IGNORE, MaskMapping
from ..text_files import read_lines
from .base import (
    SPLIT_WORDS,
    WHOLE,
    Likeness,
    MaskData,
    Pair,
    compose_name,
    find_split_folders,
    list_images,
    name_split,
    order_splits,
    refuse_rivals,
)
from .names import find_class_list
from .object_masks import compare_object_masks
from .voc import find_lists

TAIL = re.compile(
    r'[-_. ](?:mask|masks|label|labels|seg|segmentation|gt|annotation|labelTrainIds)$', re.I
)
"""How the name of a mask ends beside its image."""

_SMALL_TAIL = re.compile('_L$')
"""How the names of CamVid's masks end, which stand in folders of their own."""
_WORDS = (
    r'(?:img|images?|sat|rgb|frame|photo|input)',
    r'(?:masks?|labels?|lbl|seg|segmentation|gt|annot|annotation|target|groundtruth)',
)
"""What begins or ends the names of images, and of masks, beyond the part that they share."""
_TAILS = ('', '_sat', '_image', '_img', '_rgb')
"""How the name of an image goes on that stands beside its mask."""
_MORE_TAIL = re.compile(r'[-_. ]mask[-_. ]\d+$', re.I)
"""How further masks of an image end, one for each object."""

MASK_FOLDERS = (
    'masks',
    'mask',
    'labels',
    'label',
    'gt',
    'annotations',
    'annotation',
    'segmentations',
    'ground_truth',
    'groundtruth',
)
"""Folders beside those of images that masks may be in, in letters of any case."""
_IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'jpegimages')
_SIBLING = re.compile('[-_ ]?(?:masks?|labels?|annot|annotations?|gt)', re.I)
"""What follows the name of a folder of images in that of its masks: ``train_masks``."""

# fmt: off
CITYSCAPES = {  # cityscapesScripts, helpers/labels.py: label id -> name of the 19 train ids
    7: 'road', 8: 'sidewalk', 11: 'building', 12: 'wall', 13: 'fence', 17: 'pole',
    19: 'traffic light', 20: 'traffic sign', 21: 'vegetation', 22: 'terrain', 23: 'sky',
    24: 'person', 25: 'rider', 26: 'car', 27: 'truck', 28: 'bus', 31: 'train', 32: 'motorcycle',
    33: 'bicycle',
}
VOC = (  # http://host.robots.ox.ac.uk/pascal/VOC/voc2012/segexamples
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
    'train', 'tvmonitor',
)
# fmt: on


def compare_ade20k(root: Path) -> Likeness:
    """Say how far a folder looks like ADE20K."""
    return _compare_folders(root, 'images', 'annotations')


def compare_mmseg(root: Path) -> Likeness:
    """Say how far a folder looks like mmseg's layout."""
    return _compare_folders(root, 'img_dir', 'ann_dir')


def compare_cityscapes(root: Path) -> Likeness:
    """Say how far a folder looks like Cityscapes."""
    return _compare_folders(root, 'leftImg8bit', 'gtFine')


def _compare_folders(root: Path, images: str, masks: str) -> Likeness:
    ones, others = find_split_folders(root / images), find_split_folders(root / masks)
    if any(has_masks(folder) for folder in others.values()):
        if ones:
            return Likeness(f'{images}/ and {masks}/ with folders of splits')
        return Likeness(
            f'{masks}/ with folders of splits',
            f'{images}/ with the images',
            f'mv WHERE_THE_IMAGES_ARE {root / images}',
        )
    return Likeness()


def has_masks(folder: Path) -> bool:
    """Return whether there are masks below a folder."""
    return next(iter(list_files(folder, MASK_SUFFIXES)), None) is not None


def compare_voc_masks(root: Path) -> Likeness:
    """Say how far a folder looks like VOC's masks of classes."""
    if not has_masks(root / 'SegmentationClass'):
        for other in sorted(root.glob('SegmentationClass*')):
            if has_masks(other):
                link = root / 'SegmentationClass'
                return Likeness(f'{other.name}/', f'{link.name}/', f'ln -s {other.name} {link}')
        return Likeness()
    found = 'SegmentationClass/'
    if (root / 'JPEGImages').is_dir():
        return Likeness(found)
    return Likeness(found, 'JPEGImages/', f'mv WHERE_THE_IMAGES_ARE {root / "JPEGImages"}')


def compare_mask_files(root: Path) -> Likeness:
    """Say how far a folder looks like images with masks beside them or in a folder of their own."""
    if compare_ade20k(root).is_whole or compare_object_masks(root).is_whole:  # which have, too
        return Likeness()
    for images, masks in _find_mask_folders(root).values():
        if images == masks:
            return Likeness(f'{_show(images, root)} with masks named after the images')
        return Likeness(f'{_show(images, root)} and {_show(masks, root)}')
    return Likeness()


def _show(folder: Path, root: Path) -> str:
    return f'{folder.relative_to(root).as_posix()}/' if folder != root else 'images'


def read_ade20k_layout(root: Path) -> MaskData:
    """Read ADE20K under its own names; ``objectInfo150.txt`` says that 0 is left out.

    Raises:
        UserError: images without masks, or a list that cannot be read.
    """
    pairs = _pair_folders(root / 'images', root / 'annotations')
    info = root / 'objectInfo150.txt'
    if not info.is_file():
        return MaskData(pairs)
    entries: list[tuple[int, str]] = [(0, IGNORE)]
    for line in read_lines(info)[1:]:
        words = line.split('\t')
        if len(words) > 1 and words[0].strip().isdecimal():
            entries.append((int(words[0]), words[-1].strip().partition(',')[0]))
    return MaskData(pairs, mapping=MaskMapping(tuple(entries)))


def read_mmseg_layout(root: Path) -> MaskData:
    """Read ``img_dir`` and ``ann_dir``.

    Raises:
        UserError: images without masks.
    """
    return MaskData(_pair_folders(root / 'img_dir', root / 'ann_dir'))


def read_cityscapes(root: Path) -> MaskData:
    """Read Cityscapes: masks of train ids, or those of label ids, of which 19 are learned.

    Raises:
        UserError: images without masks.
    """
    pairs: dict[str, list[Pair]] = {}
    masks = [root / 'gtFine' / name for name in list_files(root / 'gtFine', MASK_SUFFIXES)]
    trained = any(mask.stem.endswith('_labelTrainIds') for mask in masks)
    tail = '_gtFine_labelTrainIds' if trained else '_gtFine_labelIds'
    for split, folder in find_split_folders(root / 'leftImg8bit', strict=True).items():
        there = find_split_folders(root / 'gtFine').get(split)
        if there is None:
            continue  # the test split has none
        found = {
            mask.stem.removesuffix(tail): mask
            for mask in masks
            if there in mask.parents and mask.stem.endswith(tail)
        }
        images = name_files(
            (image.stem.removesuffix('_leftImg8bit'), image) for image in list_images(folder)
        )
        if split == 'test' and not (found and _has_classes(next(iter(found.values())), trained)):
            continue
        pairs[split] = _pair_names(images, found, folder, there)
    names = find_class_list(root)
    if trained:
        return MaskData(order_splits(pairs), names or tuple(CITYSCAPES.values()))
    entries = [(value, CITYSCAPES.get(value, IGNORE)) for value in range(34)]
    learned = [(value, name) for value, name in entries if name != IGNORE]
    ignored = [(value, name) for value, name in entries if name == IGNORE]
    return MaskData(order_splits(pairs), mapping=MaskMapping((*learned, *ignored)))


def _has_classes(mask: Path, trained: bool) -> bool:
    """Return whether a mask of Cityscapes has a pixel that counts; those of its test have none."""
    known = range(len(CITYSCAPES)) if trained else CITYSCAPES
    seen = read_label_file(mask)
    return bool(seen.fault) or any(value in known for value in seen.values)


def read_voc_masks(root: Path) -> MaskData:
    """Read VOC's masks: the colors of ``labelmap.txt`` if there is one, else the palette's indices.

    Raises:
        UserError: a list that names an image without mask.
    """
    names, mapping = read_voc_classes(root)
    pairs = pair_voc_images(root, root / 'SegmentationClass')
    return MaskData(pairs, () if mapping else names, mapping)


def read_voc_classes(root: Path) -> tuple[tuple[str, ...], MaskMapping | None]:
    """Return the names of VOC's classes by index, empty if nothing tells, and colors of them."""
    mapping = _read_label_colors(root / 'labelmap.txt')
    names = mapping.classes if mapping else find_class_list(root)
    if not names and re.fullmatch('VOC20[0-9]{2}', root.name):
        names = VOC
    return names, mapping


def pair_voc_images(root: Path, masks: Path) -> dict[str, list[Pair]]:
    """Return images and masks of VOC, by the lists of ``ImageSets/Segmentation`` if it has any.

    Raises:
        UserError: a list that names an image without mask.
    """
    folder = root / 'JPEGImages'
    images = name_files((image.stem, image) for image in list_images(folder))
    found = name_masks(masks)
    sets = root / 'ImageSets' / 'Segmentation'
    pairs: dict[str, list[Pair]] = {}
    for split, path in find_lists(sets).items():
        lines = [line.strip() for line in read_lines(path)]
        for number, name in enumerate(lines, start=1):
            if name and (name not in images or name not in found):
                lost = folder / f'{name}.jpg' if name not in images else masks / f'{name}.png'
                raise UserError(
                    f'{path}:{number}: {lost} does not exist; put it there, or take the line away',
                    code='data.label-missing',
                )
        pairs[split] = [Pair(images[name], found[name]) for name in lines if name]
    # Without lists: images of other tasks stand beside those with masks.
    return pairs or {WHOLE: [Pair(images[name], found[name]) for name in found if name in images]}


def _read_label_colors(path: Path) -> MaskMapping | None:
    """Return the colors that CVAT's list gives to classes: ``name:r,g,b:parts:actions``."""
    if not path.is_file():
        return None
    entries = []
    for line in read_lines(path):
        name, _, rest = line.partition(':')
        numbers = rest.partition(':')[0].split(',')
        if name[:1] != '#' and len(numbers) == 3 and all(one.isdecimal() for one in numbers):
            red, green, blue = map(int, numbers)
            entries.append(((red, green, blue), name.strip()))
    return MaskMapping(tuple(entries)) if entries else None


def read_mask_files(root: Path) -> MaskData:
    """Read images with masks beside them or in a folder of their own.

    Raises:
        UserError: images without masks, or masks without images.
    """
    pairs = {}
    for split, (folder, masks) in _find_mask_folders(root).items():
        for name in list_files(masks, MASK_SUFFIXES):
            if _MORE_TAIL.search(Path(name).stem):
                raise UserError(
                    f'{masks / name} is one of several masks of an image, and a mask of classes '
                    'holds all of its objects; write them into one',
                    code='data.ambiguous',
                )
        found = name_masks(masks, marked=folder == masks)
        taken = set(found.values())
        images = name_files(
            (image.relative_to(folder).with_suffix('').as_posix(), image)
            for image in list_images(folder)
            if image not in taken
        )
        pairs[split] = _pair_names(images, found, folder, masks)
    rows = [pair for some in pairs.values() for pair in some]
    return MaskData(order_splits(pairs), find_class_list(root), _read_class_dict(root, rows))


def _read_class_dict(root: Path, pairs: Sequence[Pair]) -> MaskMapping | None:
    """Return the colors of a list: ``class_dict.csv`` beside CamVid and DeepGlobe, or CVAT's.

    The one has ``name,r,g,b`` in a line, ``label_colors.txt`` of the other ``r g b name``.

    Raises:
        UserError: a line that is no name and color.
    """
    paths = (root / 'class_dict.csv', root / 'label_colors.txt')
    path = next((path for path in paths if path.is_file()), None)
    if path is None or read_label_file(pairs[0].mask).fault != 'colours':
        return None
    entries = []
    table = path.suffix == '.csv'
    for number, line in enumerate(read_lines(path), start=1):
        if table and number == 1:
            continue
        if table:
            name, *color = (word.strip() for word in line.split(','))
        else:
            *color, name = (*line.split(maxsplit=3), '')[:4]
        if name and not (len(color) == 3 and all(one.isdecimal() for one in color)):
            raise UserError(
                f'{path}:{number}: {line!r} is no name and color; write '
                + ('name,r,g,b' if table else 'r g b name'),
                code='data.label-line',
            )
        if name:
            entries.append(((int(color[0]), int(color[1]), int(color[2])), name))
    return MaskMapping(tuple(entries)) if entries else None


def _find_mask_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return for each split, or for WHOLE, the folder of images and that of masks."""
    inner = [path for path in sorted(root.iterdir()) if path.is_dir()]
    found: dict[str, tuple[Path, Path]] = {}
    exact = find_split_folders(root)
    for folder in inner:
        split = name_split(folder.name)
        pair = (_find_mask_folder(folder) or _find_sibling(folder)) if split else None
        if pair is None or folder != exact[split] and _is_split_word(exact[split].name):
            continue
        if split in found:
            raise refuse_rivals(found[split][0], pair[0], split)
        found[split] = pair
    if found:
        return found
    pair = _find_mask_folder(root) or next(filter(None, map(_find_sibling, inner)), None)
    if pair is None:
        return {}
    images, masks = pair
    ones, others = (find_split_folders(one, strict=True) for one in (images, masks))
    if images != masks and ones and set(ones) == set(others):
        return {split: (ones[split], others[split]) for split in ones}
    return {WHOLE: pair}


def _is_split_word(name: str) -> bool:
    return name.lower() in (word for words in SPLIT_WORDS.values() for word in words)


def _find_sibling(folder: Path) -> tuple[Path, Path] | None:
    """Return a folder of images and the one beside it that is called after it: its masks."""
    stem = re.sub('[-_ ]?(?:images?|imgs?)$', '', folder.name, flags=re.I)
    for path in sorted(folder.parent.iterdir()):
        tail = path.name.removeprefix(stem)
        if (
            stem
            and tail != path.name
            and _SIBLING.fullmatch(tail)
            and path.is_dir()
            and has_masks(path)
        ):
            return folder, path
    return None


def _find_mask_folder(folder: Path) -> tuple[Path, Path] | None:
    inner = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    images = next((inner[name] for name in _IMAGE_FOLDERS if name in inner), None)
    masks = next(
        (inner[name] for name in MASK_FOLDERS if name in inner and has_masks(inner[name])), None
    )
    if images is not None and masks is not None:
        return images, masks
    for place in filter(None, (images, folder)):
        stems = (
            path.stem for path in sorted(place.iterdir()) if path.suffix.lower() in MASK_SUFFIXES
        )
        marked = [TAIL.sub('', stem) for stem in stems if TAIL.search(stem)]
        names = {compose_name(path.stem) for path in place.iterdir()} if marked else set()
        if any(f'{compose_name(stem)}{tail}' in names for stem in marked[:1] for tail in _TAILS):
            return place, place
    return None


def name_masks(folder: Path, marked: bool = False) -> dict[str, Path]:
    """Return the masks of a folder by the name of their image.

    Args:
        folder: where they are.
        marked: only those whose name ends as a mask's does.

    Raises:
        UserError: two are of one image.
    """
    names = list_files(folder, MASK_SUFFIXES)
    stems = ((Path(name).with_suffix('').as_posix(), folder / name) for name in names)
    if marked:
        stems = ((TAIL.sub('', stem), path) for stem, path in stems if TAIL.search(stem))
    return name_files(stems)


def name_files(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return files by the names that images and masks have in common.

    Raises:
        UserError: two have the same.
    """
    found: dict[str, Path] = {}
    for name, path in named:
        other = found.setdefault(compose_name(name), path)
        if other != path:
            raise UserError(
                f'{other} and {path} differ in their endings alone, and images and masks belong '
                'together by the rest of their names; rename one of the two, or take it away',
                code='data.ambiguous',
            )
    return found


def _pair_folders(images: Path, masks: Path) -> dict[str, list[Pair]]:
    """Return the pairs of the folders of splits, and refuse one without the other."""
    ones = find_split_folders(images, strict=True)
    others = find_split_folders(masks, strict=True)
    pairs = {}
    for split, folder in ones.items():
        if split not in others:
            if split == 'test':
                continue
            raise UserError(
                f'{folder} has no folder of masks in {masks}; put it there', code='data.no-masks'
            )
        named = name_files(
            (image.relative_to(folder).with_suffix('').as_posix(), image)
            for image in list_images(folder)
        )
        pairs[split] = _pair_names(named, name_masks(others[split]), folder, others[split])
    return order_splits(pairs)


def _strip_words(files: dict[str, Path], words: str) -> dict[str, Path]:
    """Return files without the words at the beginning or the end of their names."""
    pattern = re.compile(rf'(^|/){words}[-_. ]|[-_. ]{words}$', re.I)
    return name_files((pattern.sub(r'\1', name), path) for name, path in files.items())


def _pair_names(
    images: dict[str, Path], masks: dict[str, Path], folder: Path, where: Path
) -> list[Pair]:
    """Return images with the masks of the same name, with or without what marks a mask."""
    for tail in (TAIL, _SMALL_TAIL):
        if not set(images) & set(masks):
            masks = name_files((tail.sub('', name), path) for name, path in masks.items())
    if not set(images) & set(masks):
        images, masks = (_strip_words(*pair) for pair in zip((images, masks), _WORDS))
    if not images:
        raise UserError(f'no images in {folder}; put them there', code='data.no-images')
    lost = [name for name in images if name not in masks]
    if lost:
        raise UserError(
            f'{len(lost)} of {len(images)} images in {folder} have no mask in {where}, such as '
            f'{images[lost[0]]}; a mask is named as its image, put it there, or take the image '
            'away',
            code='data.label-missing',
        )
    alone = [name for name in masks if name not in images]
    if alone:
        raise UserError(
            f'{len(alone)} of {len(masks)} masks in {where} have no image in {folder}, such as '
            f'{masks[alone[0]]}; put the image there, or take the mask away',
            code='data.image-missing',
        )
    return [Pair(images[name], masks[name]) for name in images]
