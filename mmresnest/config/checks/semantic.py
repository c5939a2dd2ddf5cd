"""Check the label images of a segmentor's data against the config that reads them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, DefaultScope

from ...data.checks.findings import KINDS, Finding, make_finding
from ...data.checks.images import find_mismatch, get_shown_size, read_headers
from ...data.checks.labels import scan_labels
from ...errors import nearest
from ...utils.text import format_count
from ..inspect import model_of
from .classes import check_class_list, check_heads, write_classes
from .part import SAMPLED, Part


def check_label_images(part: Part) -> Iterator[Finding]:
    """Yield what is wrong with a data set of label images, by a sample of them."""
    dataset = yield from check_settings(part)
    if dataset is None:
        return
    rows = read_rows(dataset, range(0, len(dataset), max(1, len(dataset) // SAMPLED)))
    lost = [row['img_path'] for row in rows if not os.path.isfile(row['img_path'])]
    yield from report_lost_files(part, 'image-missing', lost, len(rows))
    masks = yield from find_masks(part, dataset, rows)
    lost = [mask for mask in masks if not mask.is_file()]
    yield from report_lost_files(part, 'label-missing', lost, len(masks))
    there = [mask for mask in masks if mask.is_file()]
    scan = scan_labels(there, Path(part.leaf.get('data_root') or '.'))
    yield from scan.check()
    yield from _check_sizes(part, dict(zip(map(Path, (row['img_path'] for row in rows)), masks)))
    yield from check_values(part, dataset, scan.values)


def _check_sizes(part: Part, pairs: Mapping[Path, Path]) -> Iterator[Finding]:
    """Yield masks of another size than their image, and images that are read otherwise."""
    files = [*pairs, *pairs.values()]
    headers = dict(zip(files, read_headers(files)))
    found: dict[str, list[str]] = defaultdict(list)
    for image, mask in pairs.items():
        one, other = headers[image], headers[mask]
        if one.fault or other.fault:
            continue  # a training passes over single files that cannot be used
        size = get_shown_size(one, part.follows_exif)
        if other.size != size:
            why = f'{mask} (is {format_size(other.size)}, its image {format_size(size)})'
            found['label-size'].append(why)
        else:
            kind, why = find_mismatch(one, other.size, part.follows_exif)
            if kind:
                found[kind].append(f'{image} ({why})')
    yield from report_files(part, found, len(pairs))


def format_size(size: tuple[int, int]) -> str:
    """Return a width and height for a message."""
    return f'{size[0]} x {size[1]}'


def report_files(part: Part, found: Mapping[str, Sequence[str]], total: int) -> Iterator[Finding]:
    """Yield findings about files: kind -> what is wrong with each of them."""
    for kind, files in found.items():
        words = KINDS[kind]
        noun = 'masks' if kind.startswith(('label', 'segment')) else 'images'
        yield make_finding(
            kind,
            f'{len(files)} of {total} {noun} of {part.where} {words.says or "cannot be used"}, '
            f'such as {files[0]}',
            words.remedy or 'a mask is a png named like its image',
            count=len(files),
            example=files[0],
        )


def read_rows(dataset: Any, indices: Iterable[int]) -> list[dict]:
    """Return what a data set of mmseg says of some of its images."""
    return [dataset.get_data_info(index) for index in indices]


def check_settings(part: Part) -> Generator[Finding, None, Any]:
    """Yield what is wrong with the settings; return the data set, or None without one."""
    cfg, names = part.cfg, part.names
    fault = check_class_list(part)
    if fault:
        yield fault
        return None
    unknown = [name for name in names.classes if names.known and name not in names.known]
    if unknown:
        yield make_finding(
            'class-unknown',
            where=part.where,
            type=part.type.__name__,
            names=format_count(unknown),
            known=format_count(names.known),
            near=nearest(unknown[0], names.known),
            count=len(unknown),
            example=unknown[0],
        )
        return None
    count, reason = len(names.classes), f'{part.where} reads {format_count(names.classes)}'
    yield from check_heads(cfg, count, count, reason, write_classes(names.classes, part))
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            # Serializing collects all garbage first, half a second of it.
            dataset = DATASETS.build({**part.leaf, 'pipeline': [], 'serialize_data': False})
    except (ValueError, OSError, AssertionError) as error:
        yield make_finding('dataset-settings', where=part.where, error=error)
        return None
    except TypeError:
        return None  # a wrong argument, or a class that does not take these: told later
    if not len(dataset):
        yield make_finding(
            'images-none',
            folder=part.join(dataset.data_prefix.get('img_path') or ''),
            suffix=repr(dataset.img_suffix),
            setting=f'data_prefix or img_suffix of {part.where}{part.or_folder}',
        )
        return None
    return dataset


def report_lost_files(part: Part, kind: str, lost: Sequence[Any], total: int) -> Iterator[Finding]:
    """Yield that images or masks are not there."""
    if lost:
        images = kind == 'image-missing'
        yield make_finding(
            kind,
            f'{len(lost)} of {total} {"images" if images else "masks"} looked for do not exist, '
            f'such as {lost[0]}',
            'put them there, or correct data_prefix, '
            f'{"img_suffix or ann_file" if images else "seg_map_suffix"} of {part.where}',
            count=len(lost),
            example=lost[0],
        )


def find_masks(
    part: Part, dataset: Any, rows: Sequence[Mapping]
) -> Generator[Finding, None, list[Path]]:
    """Yield what is wrong with the loading of masks; return those of the rows."""
    load = part.find_step('LoadAnnotations')
    if not load or not all('seg_map_path' in row for row in rows):
        return []  # images to be submitted elsewhere, or a reader of the user's own
    asked = load.get('reduce_zero_label')
    if asked is not None and bool(asked) != bool(dataset.reduce_zero_label):
        yield make_finding(
            'label-reduce', data=dataset.reduce_zero_label, where=part.where, step=asked
        )
    return [Path(row['seg_map_path']) for row in rows]


def check_values(part: Part, dataset: Any, values: Mapping[int, Path]) -> Iterator[Finding]:
    """Yield pixels that become labels that the heads do not know.

    Args:
        part: the data set in the words of the config.
        dataset: the same, built.
        values: what pixels hold -> a mask that holds it.
    """
    head = model_of(part.cfg).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    count = head.get('num_classes', len(part.names.classes))
    ignored = head.get('ignore_index', 255)
    beyond = []
    for value, mask in sorted(values.items()):
        label = read_label(value, bool(dataset.reduce_zero_label), dataset.label_map or {})
        if label != ignored and (label >= count or (value > 255 and label != 255)):
            became = f', which is read as label {label}' if label != value else ''
            beyond.append(f'the mask {mask} holds the value {value}{became}')
    if beyond:
        yield make_finding(
            'label-value',
            f'{beyond[0]}, and model.decode_head.num_classes is {count}: labels run from '
            f'0 to {count - 1}, and {ignored} is left out',
            f'correct the mask, or reduce_zero_label of {part.where}, or set '
            'metainfo=dict(classes=(...)) of the data set and num_classes of the heads '
            f'to what the data have{part.or_folder}',
            count=len(beyond),
            example=beyond[0],
        )


def read_label(value: int, reduced: bool, label_map: Mapping[int, int]) -> int:
    """Return the label that mmseg's LoadAnnotations makes of a mask's value."""
    label = value & 255  # it keeps eight bits
    if reduced:
        label = 255 if label in (0, 255) else label - 1
    return label_map.get(label, label)
