"""What a model predicted on the validation split, with the truth: plain columns, as json too.

Detectors leave :class:`Detections`, segmentors :class:`LabelMaps`.  Neither knows the model or the
data set it is from, so that a page is made anew from a file of them, in seconds.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import write_whole

FORMAT = 2
"""Of the file; one of another number is made anew."""
SIDE = 480  # px: the longer side of the label maps that are kept, for pictures only


@dataclass(frozen=True)
class Picture:
    """An image that was predicted on: its file, and its size in pixels."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class Objects:
    """Objects of all pictures, one row each.

    Attributes:
        picture: N, positions in the list of pictures.
        label: N, positions in the list of classes.
        box: N 4, x0 y0 x1 y1 in pixels of the file.
        score: N, 1 for the truth.
        area: N, in pixels; what small, medium and large are told by.
        crowd: N, bool: regions that count neither as found nor as missed.
        masks: run lengths as pycocotools has them, their counts as text; None without masks.
    """

    picture: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    masks: list[dict] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], masks: list[dict] | None = None) -> Objects:
        """From rows of picture, label, x0, y0, x1, y1, score, area, crowd."""
        table = np.array(rows, np.float64).reshape(-1, 9)
        return cls(
            table[:, 0].astype(int),
            table[:, 1].astype(int),
            table[:, 2:6],
            table[:, 6],
            table[:, 7],
            table[:, 8] > 0,
            masks,
        )

    def by_picture(self, count: int) -> Iterator[np.ndarray]:
        """The rows of each of that many pictures."""
        order = np.argsort(self.picture, kind='stable')
        edges = np.searchsorted(self.picture[order], np.arange(count + 1))
        return (order[start:end] for start, end in zip(edges, edges[1:]))


@dataclass(frozen=True)
class Detections:
    """What a detector found, and what there is."""

    classes: list[str]
    pictures: list[Picture]
    truth: Objects
    found: Objects


@dataclass(frozen=True)
class LabelMaps:
    """What a segmentor said of every pixel, summed up.

    Attributes:
        classes: K names.
        pictures: N of them.
        pixels: K K+1, how many of a true class (row) were taken for a class (column); the last
            column is of no class, which a panoptic model may say.
        counts: N K 3, for each picture and class: right, missed and false pixels.
        maps: for each picture the true and the predicted labels as PNG, scaled down to ``SIDE``;
            255 (from 256 classes on 65535) is not counted.
    """

    classes: list[str]
    pictures: list[Picture]
    pixels: np.ndarray
    counts: np.ndarray
    maps: list[tuple[bytes, bytes]]


Results = Detections | LabelMaps


def ignored(classes: int) -> int:
    """The label of pixels that do not count, in kept maps of that many classes."""
    return 255 if classes <= 255 else 65535


def counts_of(truth: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """K K+1: how many pixels of a true class (row) were taken for a class (column) or for none."""
    said = np.where((said >= 0) & (said < classes), said, classes)
    counted = (truth >= 0) & (truth < classes)
    flat = truth[counted].astype(np.int64) * (classes + 1) + said[counted]
    return np.bincount(flat, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def small_png(labels: np.ndarray, classes: int) -> bytes:
    """Labels H W as PNG, no side longer than ``SIDE``."""
    import cv2

    kind = np.uint8 if classes <= 255 else np.uint16
    outside = (labels < 0) | (labels >= classes)
    small = np.where(outside, ignored(classes), labels).astype(kind)
    scale = SIDE / max(small.shape)
    if scale < 1:
        size = tuple(max(round(side * scale), 1) for side in reversed(small.shape))
        small = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
    return cv2.imencode('.png', small)[1].tobytes()


def read_png(data: bytes) -> np.ndarray:
    """Labels H W of :func:`small_png`."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.int64)


# ---- as a file -----------------------------------------------------------------------------------


def save(path: str | os.PathLike, results: Results, about: Mapping[str, Any]) -> None:
    """Writes results, as compressed json, with what they are of.

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
        content.update(truth=_rows(results.truth), found=_rows(results.found))
    else:
        content.update(
            pixels=results.pixels.tolist(),
            counts=_sparse(results.counts),
            maps=[[base64.b64encode(one).decode() for one in pair] for pair in results.maps],
        )
    packed = io.BytesIO()
    # Without a time in its head the same results are the same file.
    with gzip.GzipFile(fileobj=packed, mode='wb', compresslevel=4, mtime=0) as out:
        out.write(json.dumps(content, separators=(',', ':')).encode())
    write_whole(path, lambda file: file.write(packed.getvalue()))


def load(path: str | os.PathLike) -> tuple[Results, dict[str, Any]] | None:
    """Reads what :func:`save` wrote: results and what they are of; None where that cannot be."""
    try:
        content = json.loads(gzip.decompress(Path(path).read_bytes()))
        if content['format'] != FORMAT:
            return None
        return _results(content), dict(content['about'])
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
        return None  # of another version, or damaged: it is only there to save time


def _results(content: Mapping[str, Any]) -> Results:
    classes = [str(name) for name in content['classes']]
    pictures = [
        Picture(str(path), int(width), int(height)) for path, width, height in content['pictures']
    ]
    if 'found' in content:
        return Detections(classes, pictures, _objects(content['truth']), _objects(content['found']))
    counts = np.zeros((len(pictures), len(classes), 3), np.int64)
    for picture, label, *three in content['counts']:
        counts[picture, label] = three
    pixels = np.array(content['pixels'], np.int64).reshape(len(classes), len(classes) + 1)
    maps = [(base64.b64decode(one), base64.b64decode(two)) for one, two in content['maps']]
    return LabelMaps(classes, pictures, pixels, counts, maps)


def _rows(objects: Objects) -> dict[str, Any]:
    columns: dict[str, Any] = dict(
        picture=objects.picture.tolist(),
        label=objects.label.tolist(),
        box=objects.box.round(2).tolist(),
        area=objects.area.round(2).tolist(),
        score=[float(f'{score:.6g}') for score in objects.score],
        crowd=np.flatnonzero(objects.crowd).tolist(),
    )
    return columns if objects.masks is None else dict(columns, masks=objects.masks)


def _objects(columns: Mapping[str, Any]) -> Objects:
    crowd = np.zeros(len(columns['label']), bool)
    crowd[columns['crowd']] = True
    picture, label = (np.array(columns[name], int) for name in ('picture', 'label'))
    box, score, area = (np.array(columns[name], float) for name in ('box', 'score', 'area'))
    return Objects(picture, label, box.reshape(-1, 4), score, area, crowd, columns.get('masks'))


def _sparse(counts: np.ndarray) -> list[list[int]]:
    """Picture, class, and the three counts, of the classes that a picture or prediction has."""
    where = np.argwhere(counts.any(axis=2))
    return [[*map(int, place), *map(int, counts[tuple(place)])] for place in where]
