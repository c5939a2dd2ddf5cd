"""Predict on tiles of a large image, and merge what is found: ``predict --slice SIZE``.

A network sees an image scaled down to what it was trained with, where small objects are lost; of a
tile it sees more pixels. Tiles overlap, so that an object no larger than the overlap is whole in
one of them.

Objects are merged by suppression, class by class: a whole one goes where a better one of another
tile overlaps it by half (intersection over union), and one that the border of its tile cuts goes
where half of it lies in a whole one, whatever the scores. The image as a whole is predicted on,
too: what is larger than a tile is whole there. Objects of the same tile never suppress each other:
the model has done that.

The scores of a segmentor are averaged where tiles overlap, as mmseg averages those of its windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .base import BasePredictor, Key, StreamPredictor
from .images import BadImage
from .output_checks import MAX_WINDOWS, check_memory
from .rescale import window_starts
from .results import Detections, Result, Segmentation

OVERLAP = 0.2
LEAST = 32
"""Pixels of the smallest tile: one cell of the deepest map of most networks."""
SAME = 0.5
"""The share of an overlap from which on two objects are one."""
NEAR = 0.02
"""How near to a border an object is cut by it, in shares of the tile: boxes are not exact."""


class View(NamedTuple):
    """The part of an image that a prediction is of.

    Attributes:
        y0: its first row.
        x0: its first column.
        y1: the row behind its last.
        x1: the column behind its last.
    """

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the rows and columns."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def list_tiles(size: tuple[int, int], side: int, overlap: float) -> list[View]:
    """Return the tiles of an image, row by row; one if it is no larger than a tile.

    Args:
        size: of the image.
        side: of a tile; those of an image that is smaller in one direction are smaller there.
        overlap: of neighbors, as a share of the side, at least.

    Raises:
        BadImage: there are too many.
    """
    sides = [min(side, length) for length in size]
    stride = max(1, int(side * (1 - overlap)))
    rows, columns = (window_starts(length, of, stride) for length, of in zip(size, sides))
    if len(rows) * len(columns) > MAX_WINDOWS:
        raise BadImage(
            'the image',
            f'it is {size[1]} x {size[0]} pixels, {len(rows) * len(columns)} tiles, and at most '
            f'{MAX_WINDOWS} are predicted on; give a larger --slice, or less --overlap',
            code='image.too-large',
        )
    return [View(y, x, y + sides[0], x + sides[1]) for y in rows for x in columns]


class SlicedPredictor(StreamPredictor):
    """A predictor that looks at large images tile by tile.

    Args:
        predictor: of objects, or of the class of each pixel.
        side: of a tile in pixels of the image.
        overlap: of neighbors, as a share of the side.

    Raises:
        UserError: a value cannot be used, or the model is panoptic.
    """

    def __init__(self, predictor: BasePredictor, side: int, overlap: float = OVERLAP) -> None:
        check_tiles(side, overlap)
        if predictor.task == 'panoptic':
            raise UserError(
                'the segments of tiles cannot be joined: a panoptic model predicts on whole images',
                code='option.conflict',
            )
        self.predictor, self.side, self.overlap = predictor, side, overlap
        self.names, self.task = predictor.names, predictor.task
        self.num_things = predictor.num_things
        self._fits = False  # whether an object was found that fits a tile

    def stream(
        self,
        images: Iterable[tuple[Key, np.ndarray]],
        batch_size: int = 1,
        bad: Callable[[Key, str], None] | None = None,
    ) -> Iterator[tuple[Key, Result]]:
        """Predict on a stream of images; see :meth:`~.base.BasePredictor.stream`.

        Tiles of one size share a batch, also those of several images.

        Raises:
            UserError: every object of the first image that has any is larger than a tile.
        """
        open_images: dict[int, _OpenImage] = {}

        def iter_views() -> Iterator[tuple[tuple[int, View], np.ndarray]]:
            for number, (key, image) in enumerate(images):
                try:
                    views = self._list_views(image.shape[:2])
                except BadImage as error:
                    if bad is None:
                        raise
                    bad(key, error.reason)
                    continue
                open_images[number] = _OpenImage(key, image.shape[:2], len(views))
                for view in views:
                    yield (number, view), image[view.slices]

        def note_bad(place: tuple[int, View], reason: str) -> None:
            opened = open_images[place[0]]
            opened.views_left -= 1
            if bad is not None and not opened.reason:
                opened.reason = reason
                bad(opened.key, reason)
            if not opened.views_left:
                del open_images[place[0]]

        with self._keep_scores():
            for (number, view), result in self.predictor.stream(
                iter_views(), batch_size, None if bad is None else note_bad
            ):
                opened = open_images[number]
                opened.views_left -= 1
                if not opened.views_left:
                    del open_images[number]
                if opened.reason:
                    continue
                try:
                    merged = self._add_result(opened, view, result)
                except BadImage as error:
                    if bad is None:
                        raise
                    opened.reason = error.reason
                    bad(opened.key, error.reason)
                    continue
                if merged is not None:
                    yield opened.key, merged

    @contextmanager
    def _keep_scores(self) -> Iterator[None]:
        """Have a segmentor give the scores that are averaged."""
        before = self.predictor.keeps_scores
        self.predictor.keeps_scores = self.task == 'semantic'
        try:
            yield
        finally:
            self.predictor.keeps_scores = before

    def _list_views(self, size: tuple[int, int]) -> list[View]:
        """Return the views of an image: the whole, where it has objects, and the tiles."""
        tiles = list_tiles(size, self.side, self.overlap)
        if len(tiles) == 1 or self.task == 'semantic':
            return tiles
        return [View(0, 0, *size), *tiles]

    def _add_result(self, opened: _OpenImage, view: View, result: Result) -> Result | None:
        """Add the result of a view; return that of the image where it was the last."""
        if opened.merger is None:
            opened.merger = (
                RegionMerger(self.predictor, opened.size)
                if self.task == 'semantic'
                else ObjectMerger(opened.size)
            )
        opened.merger.add(view, result)
        if opened.views_left:
            return None
        merged = opened.merger.finish()
        self._check_fit(opened)
        return merged

    def _check_fit(self, opened: _OpenImage) -> None:
        """Refuse tiles that are too small for what is found, as soon as it is."""
        if self._fits or not isinstance(opened.merger, ObjectMerger):
            return
        sides = opened.merger.sides
        if not len(sides):
            return
        if sides.min() > self.side:
            least = int(sides.min())
            raise UserError(
                f'--slice {self.side}: no object fits a tile: the smallest found is {least} '
                f'pixels long; give at least --slice {2 * least}, or leave it out',
                code='option.value',
            )
        self._fits = True


@dataclass
class _OpenImage:
    """An image of which some views are still to come."""

    key: Any
    size: tuple[int, int]
    views_left: int
    merger: Any = None
    reason: str = ''


def check_tiles(side: int, overlap: float) -> None:
    """Refuse tiles that nothing can be found in.

    Raises:
        UserError: with the values that can be used.
    """
    if side < LEAST:
        raise UserError(
            f'--slice {side}: a tile has at least {LEAST} pixels a side, the least that networks '
            'make a map of; give several times the size of the objects',
            code='option.value',
        )
    if not 0 <= overlap < 1:
        raise UserError(
            f'--overlap {overlap}: a share of the tile, from 0 to less than 1, such as {OVERLAP}',
            code='option.value',
        )


class ObjectMerger:
    """Collect the objects of the views of an image.

    Args:
        size: of the image.

    Attributes:
        sides: the longer side of each object that no border cuts, when all views are merged.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.sides = np.zeros(0)
        self._found: list[tuple[View, Detections]] = []

    def add(self, view: View, found: Detections) -> None:
        """Add the objects of a view."""
        self._found.append((view, found))

    def finish(self) -> Detections:
        """Return the objects of the image, best score first.

        Raises:
            BadImage: their masks take too much memory.
        """
        if len(self._found) == 1:
            return self._found[0][1]
        shifted = [
            replace(found, boxes=found.boxes + np.array([view.x0, view.y0] * 2, np.float32))
            for view, found in self._found
        ]
        boxes, scores, labels = (
            np.concatenate([getattr(found, name) for found in shifted])
            for name in ('boxes', 'scores', 'labels')
        )
        counts = [len(found) for found in shifted]
        views = np.repeat(np.arange(len(shifted)), counts)
        cut = np.concatenate(
            [
                find_cut(found.boxes, view, self.size)
                for (view, _), found in zip(self._found, shifted)
            ]
        )
        kept = suppress_copies(boxes, scores, labels, views, cut)
        kept = kept[np.argsort(-scores[kept], kind='stable')]
        whole = boxes[kept[~cut[kept]]]
        self.sides = (whole[:, 2:] - whole[:, :2]).max(1)
        first = shifted[0]
        masks = None
        if first.masks is not None:
            check_memory('masks', len(kept), self.size)
            starts = np.cumsum([0, *counts])
            masks = np.zeros((len(kept), *self.size), bool)
            for mask, at in zip(masks, kept):
                view, found = self._found[views[at]]
                assert found.masks is not None
                mask[view.slices] = found.masks[at - starts[views[at]]]
        return Detections(boxes[kept], scores[kept], labels[kept], first.names, masks, self.size)


def find_cut(boxes: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    """Return which boxes N 4 end where a view does and the image does not: N."""
    margin = max(1.0, NEAR * max(view.y1 - view.y0, view.x1 - view.x0))
    cut = np.zeros(len(boxes), bool)
    for axis, (low, high, end) in enumerate(
        ((view.x0, view.x1, size[1]), (view.y0, view.y1, size[0]))
    ):
        if low > 0:
            cut |= boxes[:, axis] < low + margin
        if high < end:
            cut |= boxes[:, axis + 2] > high - margin
    return cut


def suppress_copies(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, views: np.ndarray, cut: np.ndarray
) -> np.ndarray:
    """Return the indices of the objects that are no copies of others in other views.

    Args:
        boxes: N 4 in pixels of the image.
        scores: N.
        labels: N.
        views: N, the number of the view that each was found in.
        cut: N, whether the border of the view cuts it.
    """
    kept = np.zeros(len(boxes), bool)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    order = np.lexsort((-scores, cut))
    for at in order:
        others = np.flatnonzero(kept & (labels == labels[at]) & (views != views[at]))
        corner = np.maximum(boxes[at, :2], boxes[others, :2])
        sides = np.minimum(boxes[at, 2:], boxes[others, 2:]) - corner
        common = np.prod(np.clip(sides, 0, None), axis=1)
        whole = areas[at] if cut[at] else areas[at] + areas[others] - common
        kept[at] = not (common >= SAME * np.maximum(whole, 1e-9)).any()
    return order[kept[order]]


class RegionMerger:
    """Average the scores of the tiles of an image, which come row by row.

    Rows of the image that no further tile reaches are decided at once, so that scores are held of
    the height of a tile only.

    Args:
        predictor: chooses classes by scores.
        size: of the image.
    """

    def __init__(self, predictor: BasePredictor, size: tuple[int, int]) -> None:
        self.predictor, self.size = predictor, size
        self.labels = np.zeros(size, np.int64)
        self._top = 0  # the first row that is not decided
        self._total: Any = None  # C h W from there on
        self._count: Any = None  # h W

    def add(self, view: View, found: Segmentation) -> None:
        """Add a tile; those of a row of tiles before those of the next.

        Raises:
            BadImage: the scores take too much memory.
        """
        scores = found.scores
        assert scores is not None
        if self._total is None:
            height = view.y1 - view.y0
            check_memory('scores', len(scores), (height, self.size[1]), 4)
            self._total = np.zeros((len(scores), height, self.size[1]), scores.dtype)
            self._count = np.zeros((height, self.size[1]), scores.dtype)
        if view.y0 > self._top:
            self._decide_rows(view.y0 - self._top)
        self._total[:, :, view.x0 : view.x1] += scores
        self._count[:, view.x0 : view.x1] += 1

    def finish(self) -> Segmentation:
        """Return the classes of the image."""
        self._decide_rows(len(self._count))
        return Segmentation(self.labels, self.predictor.names, self.size)

    def _decide_rows(self, rows: int) -> None:
        """Choose the classes of the first rows that are held, and take in as many below."""
        mean = self._total[:, :rows] / self._count[:rows]
        self.labels[self._top : self._top + rows] = self.predictor.choose_classes(mean)
        self._top += rows
        for held in (self._total, self._count):
            left = held[..., rows:, :].copy()
            held[...] = 0
            held[..., : left.shape[-2], :] = left
