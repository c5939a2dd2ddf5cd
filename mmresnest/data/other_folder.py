"""Read a data folder of another format than this package's, which is recognized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from .ade20k_folder import check_index_masks
from .base import DataFolder, Reading, Split, describe_contents, make_relative
from .coco_folder import read_coco
from .formats.base import Format
from .formats.derive import Derived, find_common_folder, read_objects
from .formats.derive_masks import derive_masks, draw_masks
from .formats.recognize import recognize_format
from .formats.table import FORMATS
from .request import DataRequest


def read_format(root: Path, kind: str, asked: DataRequest) -> Reading:
    """Read a folder of any format of :data:`.formats.table.FORMATS`.

    Args:
        root: the folder.
        kind: ``coco`` or ``ade20k``, as the task wants it.
        asked: the format, if it was named, and how a validation part is made.

    Raises:
        UserError: the folder is of no format, or of several, or cannot be used.
    """
    row = recognize_format(root, kind, asked.format)
    if row.kind == 'ade20k' == kind:
        derived = derive_masks(root, row, asked.mapping, asked.division)
        return (yield from _read_masks(root, row, derived))
    if row.kind == 'ade20k':
        raise _refuse_classes(root, row)
    if asked.mapping is not None:
        raise UserError(
            f'--mask-values are for masks of classes, and {root} holds {row.title}; leave them out',
            code='option.conflict',
        )
    derived = yield from read_objects(root, row, asked.division)
    if kind == 'coco' and (derived.more or {}).get('of_classes'):
        raise _refuse_classes(root, row)
    folder = yield from read_coco(root, derived)
    notes = (derived.more or {}).get('notes', ())
    twins = _note_twins(folder.classes)
    folder = replace(folder, format=row.title, cache=derived.folder, notes=(*notes, *twins))
    if folder.maskless and FORMATS['voc-objects'].compare(root).is_whole:
        hint = '; --format voc-objects reads the masks in SegmentationObject/'
        folder = replace(folder, maskless=folder.maskless + hint)
    if kind == 'coco':
        return folder
    drawn = yield from draw_masks(folder)
    masks = yield from _read_masks(root, row, drawn)
    return replace(masks, notes=(*notes, *_note_twins(masks.classes)))


def _note_twins(classes: Sequence[str]) -> Iterator[str]:
    """Yield a note on two classes that are probably one, spelled in two ways."""
    known: dict[str, str] = {}
    for name in classes:
        other = known.setdefault(' '.join(name.lower().split()), name)
        if other != name:
            yield f'the classes {other!r} and {name!r} are two, though they sound alike'


def _refuse_classes(root: Path, row: Format) -> UserError:
    """Return the error that masks of classes do not serve a detector."""
    return UserError(
        f'no annotations for a detector in {root}: it holds masks for semantic segmentation '
        f'({row.title}), which a config for boxes or instance masks cannot use, since they do '
        'not say which pixels are one object, and two that touch would be one: choose a config '
        'of a segmentor, such as deeplabv3_resnest50_ade20k, or annotate boxes or polygons. '
        f'{describe_contents(root)}',
        code='data.no-annotations',
    )


def _read_masks(root: Path, row: Format, derived: Derived) -> Reading:
    """Read lists of images with index masks."""
    more = derived.more
    assert more is not None  # of derive_masks
    splits, masks = {}, {}
    for split, listing in derived.files.items():
        names = listing.read_text(encoding='utf-8').splitlines()
        folder = Path(more['masks'][split])
        masks[split] = [folder / (name + more['suffixes'][1]) for name in names]
        splits[split] = Split(
            split,
            make_relative(folder, root),
            make_relative(derived.images[split], root),
            len(names),
            listing=str(listing),
        )
    classes = tuple(more['classes'])
    if not more['mapped']:  # else the masks are made by what names the classes
        where = find_common_folder([mask for some in masks.values() for mask in some])
        classes = yield from check_index_masks(root, where, masks, classes)
    image, mask = more['suffixes']
    return DataFolder(
        'ade20k',
        root,
        classes,
        splits,
        img_suffix=image,
        seg_map_suffix=mask,
        format=row.title,
        cache=derived.folder,
    )
