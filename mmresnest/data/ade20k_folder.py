"""Read a folder of images and index masks in the layout of ADE20K."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..utils.text import format_some
from .base import (
    IGNORED,
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    SPLITS,
    DataFolder,
    Reading,
    Split,
    describe_contents,
    list_files,
)
from .checks.findings import ERROR, WARNING, Finding, make_finding
from .checks.labels import scan_labels
from .mask_mapping import FAR_APART, MaskMapping, count_values, suggest_mapping, write_index_masks
from .text_files import read_class_names

Suffixes = tuple[str, str]
"""How the names of images and of masks end."""


def read_ade20k(root: Path, mapping: MaskMapping | None = None) -> Reading:
    """Read a folder of images and masks.

    Args:
        root: the folder.
        mapping: what the values of the masks stand for, where they are no class indices; index
            masks are then written into the cache, and stand for those of the folder.
    """
    suffixes: Suffixes | None = None
    splits, pairs = {}, {}
    for split in SPLITS:
        images, masks = root / 'images' / split, root / 'annotations' / split
        if split == 'test' and not masks.is_dir():
            count = sum(1 for _ in list_files(images, IMAGE_SUFFIXES))
            if count:  # to be predicted on, and scored elsewhere
                splits[split] = Split(split, '', f'images/{split}', count, scored=False)
            continue
        if split == 'test' and not images.is_dir():
            continue
        for folder in (images, masks):
            if not folder.is_dir():
                _refuse_missing_folder(root, folder)
        found, pairs[split] = yield from _match_masks(images, masks)
        suffixes = suffixes or found
        if found != suffixes:
            yield make_finding(
                'label-suffixes',
                ours=' and '.join(suffixes),
                theirs=' and '.join(found),
                split=split,
                folder=images,
            )
        splits[split] = Split(split, f'annotations/{split}', f'images/{split}', len(pairs[split]))
    assert suffixes is not None  # train and val exist, or they were refused
    where = root / 'annotations'
    if mapping is not None:
        where = write_index_masks(
            [mask for masks in pairs.values() for mask in masks], where, mapping
        )
        suffixes = suffixes[0], str(Path('x' + suffixes[1]).with_suffix('.png'))[1:]
        splits = {
            name: replace(split, annotations=str(where / name)) if split.scored else split
            for name, split in splits.items()
        }
        return DataFolder(
            'ade20k',
            root,
            mapping.classes,
            splits,
            img_suffix=suffixes[0],
            seg_map_suffix=suffixes[1],
        )
    classes = yield from check_index_masks(root, where, pairs)
    return DataFolder(
        'ade20k', root, classes, splits, img_suffix=suffixes[0], seg_map_suffix=suffixes[1]
    )


def check_index_masks(
    root: Path, where: Path, masks: Mapping[str, Sequence[Path]], names: Sequence[str] = ()
) -> Generator[Finding, None, tuple[str, ...]]:
    """Yield what is wrong with index masks; return the classes.

    Args:
        root: the data folder, which may have a list of the classes.
        where: the folder of the masks, for the messages.
        masks: those of each split.
        names: the classes, if the format says so.
    """
    scored = [mask for split, some in masks.items() for mask in some if split != 'test']
    scan = scan_labels(scored, root)
    yield from scan.check()
    listed = (where, tuple(names)) if names else (yield from _read_class_names(root))
    classes = yield from _read_classes(where, scan.values, scored, *listed)
    if 'test' in masks:
        scan = scan_labels(masks['test'], root)
        yield from scan.check()
        yield from _check_range(scan.values, classes, where / 'test')
    return classes


def _refuse_missing_folder(root: Path, folder: Path) -> None:
    hint = ''
    if folder.name == 'val':
        hint = '; --split 0.2 puts a fifth of the images aside for validation'
    raise UserError(
        f'no annotations for a segmentor in {root}: the folder {folder} does not exist{hint}. '
        f'{describe_contents(root)}',
        code='data.no-annotations',
    )


def _match_masks(
    images: Path, masks: Path
) -> Generator[Finding, None, tuple[Suffixes, list[Path]]]:
    """Find how images and masks end, so that each image has its mask.

    Yields:
        images of several kinds, and images without masks.

    Returns:
        the two suffixes, and the masks in the order of the images.
    """
    pictures, maps = list(list_files(images, IMAGE_SUFFIXES)), set(list_files(masks, MASK_SUFFIXES))
    if not pictures:
        raise UserError(
            f'no images in {images} (looked for {" ".join(IMAGE_SUFFIXES)})', code='data.no-images'
        )
    if not maps:
        raise UserError(
            f'no masks in {masks} (looked for {" ".join(MASK_SUFFIXES)})', code='data.no-masks'
        )
    endings = Counter(Path(name).suffix for name in pictures).most_common()
    if len(endings) > 1:
        kinds = ', '.join(f'{count} {ending}' for ending, count in endings)
        yield make_finding('images-mixed', folder=images, kinds=kinds, example=kinds)
    image_suffix = _find_image_suffix(pictures, maps)
    stems = [name[: -len(image_suffix)] for name in pictures]
    tails = Counter(name[len(stems[0]) :] for name in maps if name.startswith(stems[0]))
    tails.update({'.png': 0})
    mask_suffix = max(
        tails, key=lambda tail: (sum(stem + tail in maps for stem in stems), -len(tail))
    )
    lost = [stem for stem in stems if stem + mask_suffix not in maps]
    if lost:
        yield make_finding(
            'label-missing',
            f'{len(lost)} of {len(stems)} images in {images} have no mask in {masks}, such as '
            f'{lost[0]}{image_suffix}, whose mask would be {lost[0]}{mask_suffix}',
            'masks are named like their images, up to the ending',
            count=len(lost),
            example=lost[0] + image_suffix,
        )
    found = [masks / (stem + mask_suffix) for stem in stems if stem + mask_suffix in maps]
    return (image_suffix, mask_suffix), found


def _find_image_suffix(pictures: list[str], maps: set[str]) -> str:
    """Return what image names have and mask names lack, such as ``_leftImg8bit.png``."""
    ending = Path(pictures[0]).suffix
    first = pictures[0][: -len(ending)]
    if any(name.startswith(first) for name in maps) or '_' not in first:
        return ending
    tail = '_' + first.rpartition('_')[2] + ending
    return tail if all(name.endswith(tail) for name in pictures) else ending


def _read_classes(
    where: Path,
    values: Mapping[int, Path],
    masks: Sequence[Path],
    path: Path | None,
    names: tuple[str, ...],
) -> Generator[Finding, None, tuple[str, ...]]:
    """Yield values that are no classes; return the names that a file lists, or numbers."""
    used = sorted(value for value in values if value != IGNORED)
    mapping = _find_mapping(values, masks, names)
    if mapping:
        yield make_finding(
            'label-pattern',
            folder=where,
            values=format_some([str(value) for value in sorted(values)], 4),
            mapping=mapping,
            example=values[max(values)],
        )
    elif not used and values:
        yield make_finding('labels-ignored', folder=where, value=IGNORED)
    elif used and used == list(range(1, len(used) + 1)) and len(names) in (0, len(used)):
        spelled = names or [f'class_{value}' for value in used]
        yield make_finding(
            'label-shifted',
            folder=where,
            last=used[-1],
            mapping=','.join(f'{value}={name}' for value, name in zip(used, spelled)),
            severity=ERROR if names else WARNING,
            example=values[1],
        )
    elif used == [0] and len(names) < 2:
        yield make_finding('label-single', folder=where, name=(names or ('class_0',))[0])
    elif path is not None:
        yield from _check_range(values, names, path)
    elif used and used[-1] >= 200 and len(used) < 20:
        yield make_finding('label-far', folder=where, values=used, example=values[used[-1]])
    if path is not None:
        return names
    return tuple(f'class_{index}' for index in range(max(used, default=0) + 1))


def _read_class_names(root: Path) -> Generator[Finding, None, tuple[Path | None, tuple[str, ...]]]:
    """Return the file of the classes' names, if there is one, and the names."""
    for path in (root / 'classes.txt', root / 'annotations' / 'classes.txt'):
        if path.is_file():
            return path, (yield from read_class_names(path))
    return None, ()


def _find_mapping(values: Mapping[int, Path], masks: Sequence[Path], names: Sequence[str]) -> str:
    """Return the mapping that masks need whose values are gray levels, empty for class indices."""
    if len(values) < 2 or max(values) < FAR_APART:
        return ''
    return suggest_mapping(count_values(masks), names)


def _check_range(
    values: Mapping[int, Path], classes: Sequence[str], where: Path
) -> Iterator[Finding]:
    """Yield the first value that is beyond the classes."""
    beyond = sorted(value for value in values if len(classes) <= value != IGNORED)
    if beyond:
        yield make_finding(
            'label-value',
            f'{where}: there are {len(classes)} classes, and the mask '
            f'{values[beyond[0]]} holds the label {beyond[0]}',
            f'labels run from 0 to {len(classes) - 1}, and {IGNORED} is left out',
            count=len(beyond),
            example=values[beyond[0]],
        )
