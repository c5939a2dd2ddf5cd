"""What a model predicted on the validation split, with the ground truth: plain columns.

Detectors leave :class:`Detections`, segmentors :class:`LabelMaps`.  Neither knows the model or the
data set it is from, so that :mod:`.predictions_file` can keep them, and a page is made again in
seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SIDE = 480  # px: the longer side of the label maps that are kept, for pictures only


@dataclass(frozen=True)
class ImageInfo:
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
    def from_rows(cls, rows: Sequence[Sequence[Any]], masks: list[dict] | None = None) -> Objects:
        """Build from rows of picture, label, x0, y0, x1, y1, score, area, crowd."""
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

    def select_labels(self, labels: Sequence[int]) -> Objects:
        """Return the objects of some classes, which are numbered anew in the order given."""
        rows = np.flatnonzero(np.isin(self.label, labels))
        order = {label: number for number, label in enumerate(labels)}
        return Objects(
            self.picture[rows],
            np.array([order[label] for label in self.label[rows].tolist()], int),
            self.box[rows],
            self.score[rows],
            self.area[rows],
            self.crowd[rows],
            None if self.masks is None else [self.masks[row] for row in rows],
        )

    def split_by_image(self, count: int) -> Iterator[np.ndarray]:
        """Return the rows of each of that many pictures."""
        order = np.argsort(self.picture, kind='stable')
        edges = np.searchsorted(self.picture[order], np.arange(count + 1))
        return (order[start:end] for start, end in zip(edges, edges[1:]))


@dataclass(frozen=True)
class Detections:
    """What a detector found, and what there is."""

    classes: list[str]
    pictures: list[ImageInfo]
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
    pictures: list[ImageInfo]
    pixels: np.ndarray
    counts: np.ndarray
    maps: list[tuple[bytes, bytes]]


Results = Detections | LabelMaps


def select_classes(results: Results, names: Sequence[str]) -> Results:
    """Return results of some of their classes, in the order given.

    Of label maps, pixels of other true classes are no longer counted.
    """
    labels = [results.classes.index(name) for name in names]
    if isinstance(results, Detections):
        return replace(
            results,
            classes=list(names),
            truth=results.truth.select_labels(labels),
            found=results.found.select_labels(labels),
        )
    rows = results.pixels[labels]
    elsewhere = rows.sum(axis=1, keepdims=True) - rows[:, labels].sum(axis=1, keepdims=True)
    numbers = np.full(ignore_label(len(results.classes)) + 1, -1)
    numbers[labels] = np.arange(len(labels))

    def renumber(data: bytes) -> bytes:
        return encode_label_map(numbers[decode_label_map(data)], len(labels))

    return LabelMaps(
        list(names),
        results.pictures,
        np.concatenate([rows[:, labels], elsewhere], axis=1),
        results.counts[:, labels],
        [(renumber(truth), renumber(said)) for truth, said in results.maps],
    )


def ignore_label(classes: int) -> int:
    """Return the label of pixels that do not count, in kept maps of that many classes."""
    return 255 if classes <= 255 else 65535


def count_pixels(truth: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """Return K K+1: the pixels of a true class (row) taken for a class (column) or for none."""
    said = np.where((said >= 0) & (said < classes), said, classes)
    counted = (truth >= 0) & (truth < classes)
    flat = truth[counted].astype(np.int64) * (classes + 1) + said[counted]
    return np.bincount(flat, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def encode_label_map(labels: np.ndarray, classes: int) -> bytes:
    """Return labels H W as PNG, no side longer than ``SIDE``."""
    import cv2

    kind = np.uint8 if classes <= 255 else np.uint16
    outside = (labels < 0) | (labels >= classes)
    small = np.where(outside, ignore_label(classes), labels).astype(kind)
    scale = SIDE / max(small.shape)
    if scale < 1:
        size = tuple(max(round(side * scale), 1) for side in reversed(small.shape))
        small = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
    return cv2.imencode('.png', small)[1].tobytes()


def decode_label_map(data: bytes) -> np.ndarray:
    """Return labels H W of :func:`encode_label_map`."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.int64)
