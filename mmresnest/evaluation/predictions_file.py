"""Predictions of a split as a file of compressed json."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import write_whole
from .predictions import Detections, ImageInfo, LabelMaps, Objects, Results

FORMAT = 2
"""Of the file; one of another number is made again."""


def save_results(path: str | os.PathLike, results: Results, about: Mapping[str, Any]) -> None:
    """Write results, as compressed json, with what they are of.

    Raises:
        OSError: see :func:`mmresnest.utils.files.write_whole`.
    """
    content = dict(
        format=FORMAT,
        about=dict(about),
        classes=results.classes,
        pictures=[[one.path, one.width, one.height] for one in results.pictures],
    )
    if isinstance(results, Detections):
        content.update(truth=_objects_to_json(results.truth), found=_objects_to_json(results.found))
    else:
        content.update(
            pixels=results.pixels.tolist(),
            counts=_sparse_counts(results.counts),
            maps=[[base64.b64encode(one).decode() for one in pair] for pair in results.maps],
        )
    packed = io.BytesIO()
    # Without a time in its head the same results are the same file.
    with gzip.GzipFile(fileobj=packed, mode='wb', compresslevel=4, mtime=0) as out:
        out.write(json.dumps(content, separators=(',', ':')).encode())
    write_whole(path, lambda file: file.write(packed.getvalue()))


def load_results(path: str | os.PathLike) -> tuple[Results, dict[str, Any]] | None:
    """Read what :func:`save_results` wrote: results, and what they are of.

    Returns:
        None where there is no such file, or it is damaged.
    """
    try:
        content = json.loads(gzip.decompress(Path(path).read_bytes()))
        if content['format'] != FORMAT:
            return None
        return _results_from_json(content), dict(content['about'])
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
        return None  # of another version, or damaged: it is only there to save time


def _results_from_json(content: Mapping[str, Any]) -> Results:
    classes = [str(name) for name in content['classes']]
    pictures = [
        ImageInfo(str(path), int(width), int(height)) for path, width, height in content['pictures']
    ]
    if 'found' in content:
        return Detections(
            classes,
            pictures,
            _objects_from_json(content['truth']),
            _objects_from_json(content['found']),
        )
    counts = np.zeros((len(pictures), len(classes), 3), np.int64)
    for picture, label, *three in content['counts']:
        counts[picture, label] = three
    pixels = np.array(content['pixels'], np.int64).reshape(len(classes), len(classes) + 1)
    maps = [(base64.b64decode(one), base64.b64decode(two)) for one, two in content['maps']]
    return LabelMaps(classes, pictures, pixels, counts, maps)


def _objects_to_json(objects: Objects) -> dict[str, Any]:
    columns: dict[str, Any] = dict(
        picture=objects.picture.tolist(),
        label=objects.label.tolist(),
        box=objects.box.round(2).tolist(),
        area=objects.area.round(2).tolist(),
        score=[float(f'{score:.6g}') for score in objects.score],
        crowd=np.flatnonzero(objects.crowd).tolist(),
    )
    return columns if objects.masks is None else dict(columns, masks=objects.masks)


def _objects_from_json(columns: Mapping[str, Any]) -> Objects:
    crowd = np.zeros(len(columns['label']), bool)
    crowd[columns['crowd']] = True
    picture, label = (np.array(columns[name], int) for name in ('picture', 'label'))
    box, score, area = (np.array(columns[name], float) for name in ('box', 'score', 'area'))
    return Objects(picture, label, box.reshape(-1, 4), score, area, crowd, columns.get('masks'))


def _sparse_counts(counts: np.ndarray) -> list[list[int]]:
    """Return image, class and the three counts, of the classes that an image or prediction has."""
    where = np.argwhere(counts.any(axis=2))
    return [[*map(int, place), *map(int, counts[tuple(place)])] for place in where]
