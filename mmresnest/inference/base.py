"""The common part of predictors: one image, a list, or a stream of images, whatever runs the model.

Only images that have the same size after preparation share a batch: none is padded to the size of
another, so that a result depends on its image alone, up to the rounding of larger products.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from ..errors import UserError
from .images import BadImage, to_rgb_array
from .results import Result

if TYPE_CHECKING:
    from PIL.Image import Image

Key = TypeVar('Key')

MAX_WAITING_BATCHES = 8
"""How many batches' worth of prepared images wait at most for others of the same size."""


def check_score(score_thr: float) -> None:
    """Refuse a threshold that is no score.

    Raises:
        UserError: it is not from 0 to 1.
    """
    if not 0 <= score_thr <= 1:
        raise UserError(f'score_thr {score_thr}: scores are from 0 to 1', code='option.value')


class StreamPredictor(ABC):
    """What predicts on images as they come.

    Attributes:
        names: of the classes.
        num_things: how many of them, from the first on, are countable, for a panoptic model.
        task: ``detection``, ``instance``, ``panoptic`` or ``semantic``.
    """

    names: tuple[str, ...]
    num_things: int
    task: str

    @overload
    def __call__(self, images: list | tuple, batch_size: int = 1) -> list[Result]: ...

    @overload
    def __call__(
        self, images: str | os.PathLike | np.ndarray | Image, batch_size: int = 1
    ) -> Result: ...

    def __call__(self, images: Any, batch_size: int = 1) -> Result | list[Result]:
        """Predict on an image, or on each of a list.

        Args:
            images: a path, a PIL image or an array H W 3 in RGB, 8 bits; or a list of these.
            batch_size: images of one size that go through the model together.

        Returns:
            the result of the image, or a list of those of the list, in its order:
            :class:`~.results.Detections`, :class:`~.results.Segmentation` or
            :class:`~.results.PanopticSegmentation`.

        Raises:
            UserError: an image cannot be used.
        """
        single = not isinstance(images, (list, tuple))
        results = dict(
            self.stream(enumerate(map(to_rgb_array, [images] if single else images)), batch_size)
        )
        return results[0] if single else [results[at] for at in range(len(results))]

    @abstractmethod
    def stream(
        self,
        images: Iterable[tuple[Key, np.ndarray]],
        batch_size: int = 1,
        bad: Callable[[Key, str], None] | None = None,
    ) -> Iterator[tuple[Key, Result]]:
        """Predict on a stream of images; see :meth:`BasePredictor.stream`."""


class BasePredictor(StreamPredictor):
    """A predictor; a kind of model defines ``prepare`` and ``predict_batch``.

    Attributes:
        keeps_scores: give the scores of all classes with the result of a semantic model.
    """

    keeps_scores: bool = False

    @abstractmethod
    def prepare(self, image: np.ndarray) -> tuple[tuple[int, ...], Any]:
        """Prepare an image H W 3 in RGB; return its size in the model, and the prepared sample.

        Samples of one size may share a batch.

        Raises:
            BadImage: it cannot be brought to the model's size.
        """

    @abstractmethod
    def predict_batch(self, samples: list[Any]) -> list[Result]:
        """Return the results of prepared samples of one size."""

    def choose_classes(self, scores: np.ndarray) -> np.ndarray:
        """Return the class of each pixel, H W, from the scores of a semantic model, C H W."""
        return scores.argmax(0)

    def stream(
        self,
        images: Iterable[tuple[Key, np.ndarray]],
        batch_size: int = 1,
        bad: Callable[[Key, str], None] | None = None,
    ) -> Iterator[tuple[Key, Result]]:
        """Predict on a stream of images, of which a few are held at a time.

        Args:
            images: pairs of a key and the pixels of an image, H W 3 in RGB.
            batch_size: images of one size that go through the model together.
            bad: is called with the key of an image that is too thin or too large, and why; by
                default such an image raises.

        Yields:
            the key of an image and its result; images of one size in the order they came.
        """
        if batch_size < 1:
            raise UserError(
                f'batch size {batch_size}: a batch has at least one image', code='option.value'
            )
        waiting: dict[tuple[int, ...], list[tuple[Key, Any]]] = {}
        for key, image in images:
            try:
                size, sample = self.prepare(image)
            except BadImage as error:
                if bad is None:
                    raise
                bad(key, error.reason)
                continue
            waiting.setdefault(size, []).append((key, sample))
            if len(waiting[size]) == batch_size:
                yield from self._predict_pairs(waiting.pop(size), bad)
            elif sum(map(len, waiting.values())) >= MAX_WAITING_BATCHES * batch_size:
                yield from self._predict_pairs(
                    waiting.pop(next(iter(waiting))), bad
                )  # of the oldest
        for batch in waiting.values():
            yield from self._predict_pairs(batch, bad)

    def _predict_pairs(
        self, batch: list[tuple[Key, Any]], bad: Callable[[Key, str], None] | None
    ) -> Iterator[tuple[Key, Result]]:
        try:
            results = self.predict_batch([sample for _, sample in batch])
        except BadImage as error:
            if bad is None:
                raise
            if len(batch) == 1:
                bad(batch[0][0], error.reason)
                return
            for pair in batch:  # one of them is too large: the others are predicted
                yield from self._predict_pairs([pair], bad)
            return
        yield from zip([key for key, _ in batch], results)
