"""Check instance masks in COCO's two forms, polygons and run lengths.

pycocotools reads run lengths in C and believes them, so that they are unpacked here first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

MASK_KINDS = (
    'mask-type',
    'mask-odd',
    'mask-points',
    'mask-number',
    'mask-rle',
    'mask-size',
    'mask-empty',
    'mask-far',
)
"""Kinds of findings about the mask of an object."""
_CHUNK = 2**15
_FAR = 0.1
"""Share of a box's side by which its mask may leave it."""


def find_mask_faults(
    masks: Sequence[Any], sizes: np.ndarray, boxes: np.ndarray
) -> dict[str, list[int]]:
    """Return what is wrong with masks.

    Args:
        masks: of each object, what is not empty under ``segmentation``.
        sizes: N 2, width height of the images; NaN where that is not known.
        boxes: N 4, x y width height; NaN where they are not known.

    Returns:
        kind -> positions.
    """
    found: dict[str, list[int]] = {}
    extents = np.full((len(masks), 4), np.nan)
    for start in range(0, len(masks), _CHUNK):
        _check_polygons(masks[start : start + _CHUNK], start, found, extents)
    coded = [at for at, mask in enumerate(masks) if isinstance(mask, dict)]
    for at in coded:
        kind = _find_rle_fault(masks[at], sizes[at])
        if kind:
            found.setdefault(kind, []).append(at)
    wrong = set(chain.from_iterable(found.values()))
    sound = [at for at in coded if at not in wrong]
    if sound:
        extents[sound] = _measure_rles([masks[at] for at in sound])
    with np.errstate(invalid='ignore', over='ignore'):
        slack = np.maximum(2, _FAR * boxes[:, 2:].max(1, initial=0))[:, None]
        far = (
            (extents[:, :2] < boxes[:, :2] - slack)
            | (extents[:, 2:] > boxes[:, :2] + boxes[:, 2:] + slack)
        ).any(1)
    found['mask-far'] = [int(at) for at in np.flatnonzero(far) if at not in wrong]
    return found


def has_run_lengths(row: Any) -> bool:
    """Return whether an object, other than a crowd, has run lengths and no polygons."""
    return (
        isinstance(row, dict)
        and isinstance(row.get('segmentation'), dict)
        and not row.get('iscrowd')
    )


def find_polygon_fault(polygon: Any) -> str:
    """Return the kind of what is wrong with one polygon; empty if nothing is."""
    if not isinstance(polygon, list):
        return 'mask-type'
    if any(type(one) not in (int, float) for one in polygon):
        return 'mask-number'
    if len(polygon) % 2:
        return 'mask-odd'
    if len(polygon) < 6:
        return 'mask-points'
    return '' if _flatten([polygon]) is not None else 'mask-number'


def _flatten(polygons: Sequence[list]) -> np.ndarray | None:
    """Return all coordinates in a row, if they are finite numbers."""
    if not set(map(type, chain.from_iterable(polygons))) <= {int, float}:
        return None
    try:
        flat = np.fromiter(chain.from_iterable(polygons), float)
    except OverflowError:
        return None
    return flat if np.isfinite(flat).all() else None


def _check_polygons(
    masks: Sequence[Any], start: int, found: dict[str, list[int]], extents: np.ndarray
) -> None:
    """Check the polygons of a part of the masks, all together where they are sound."""
    owners, polygons = [], []
    for at, mask in enumerate(masks, start):
        if isinstance(mask, list):
            faults = [fault for fault in map(_find_length_fault, mask) if fault]
            if not faults:
                owners += [at] * len(mask)
                polygons += mask
        else:
            faults = [] if isinstance(mask, dict) else ['mask-type']
        for fault in faults[:1]:
            found.setdefault(fault, []).append(at)
    if not polygons:
        return
    flat = _flatten(polygons)
    if flat is None:
        bad = {owner for owner, polygon in zip(owners, polygons) if find_polygon_fault(polygon)}
        found.setdefault('mask-number', []).extend(sorted(bad))
        kept = [at for at, owner in enumerate(owners) if owner not in bad]
        owners, polygons = [owners[at] for at in kept], [polygons[at] for at in kept]
        flat = _flatten(polygons)
        if flat is None or not len(flat):
            return
    _measure_polygons(
        flat.reshape(-1, 2),
        np.array([len(one) // 2 for one in polygons]),
        np.array(owners),
        found,
        extents,
    )


def _find_length_fault(polygon: Any) -> str:
    """Return what the length of a polygon tells; its numbers are looked at together."""
    if type(polygon) is list and len(polygon) >= 6 and not len(polygon) % 2:
        return ''
    return find_polygon_fault(polygon)


def _measure_polygons(
    points: np.ndarray,
    counts: np.ndarray,
    owners: np.ndarray,
    found: dict[str, list[int]],
    extents: np.ndarray,
) -> None:
    """Measure areas and extents of polygons, joined for each owner."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    after = np.arange(1, len(points) + 1)
    after[np.cumsum(counts) - 1] = first  # the last point is joined to the first
    with np.errstate(over='ignore', invalid='ignore'):
        cross = points[:, 0] * points[after, 1] - points[after, 0] * points[:, 1]
        areas = np.abs(np.add.reduceat(cross, first))
    owned = np.concatenate([[0], np.flatnonzero(np.diff(owners)) + 1])
    who = owners[owned]
    blank = who[np.maximum.reduceat(areas, owned) <= 0]
    if len(blank):
        found.setdefault('mask-empty', []).extend(blank.tolist())
    low = np.minimum.reduceat(np.minimum.reduceat(points, first), owned)
    high = np.maximum.reduceat(np.maximum.reduceat(points, first), owned)
    extents[who] = np.concatenate([low, high], 1)


def _find_rle_fault(mask: Mapping[str, Any], size: np.ndarray) -> str:
    """Return the kind of what is wrong with run lengths; empty if nothing is."""
    own, counts = mask.get('size'), mask.get('counts')
    if not (
        isinstance(own, list)
        and len(own) == 2
        and all(type(side) is int and 0 < side < 2**16 for side in own)
    ):
        return 'mask-rle'
    if np.isfinite(size).all() and (own[1], own[0]) != tuple(size):
        return 'mask-size'
    if isinstance(counts, str):
        runs = list(unpack_counts(counts))
    elif isinstance(counts, list):
        runs = counts
    else:
        return 'mask-rle'
    if not all(type(run) is int and 0 <= run < 2**32 for run in runs) or (
        sum(runs) != own[0] * own[1]
    ):
        return 'mask-rle'
    return '' if any(runs[1::2]) else 'mask-empty'


def unpack_counts(text: str) -> Iterator[int]:
    """Yield the runs in COCO's text form: six bits a character; from the fourth run on, the
    difference to the run two before.

    A text that is none yields -1.
    """
    runs: list[int] = []
    value = bits = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or bits > 35:
            yield -1
            return
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:  # the last one of this number
            if code & 16:  # and its sign
                value -= 1 << bits
            if len(runs) > 2:
                value += runs[-2]
            runs.append(value)
            yield value
            value = bits = 0
    if bits:
        yield -1


def _measure_rles(masks: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return x0 y0 x1 y1 of masks that are sound: N 4."""
    from pycocotools import mask as coco

    coded = [
        coco.frPyObjects(mask, *mask['size']) if isinstance(mask['counts'], list) else mask
        for mask in masks
    ]
    found = np.stack([coco.toBbox(one) for one in coded]).astype(float)
    found[:, 2:] += found[:, :2]
    return found
