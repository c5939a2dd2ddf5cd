"""How a model is asked about images, whatever runs it: one, a list, or as many as come.

Only images that come out of preparation in one size share a batch: none is padded to the size of
another, so that a result depends on its image alone, but for the rounding of larger products.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from ..errors import UserError
from .inputs import BadImage, pixels
from .results import Result

if TYPE_CHECKING:
    from PIL.Image import Image

Key = TypeVar('Key')

WAITING = 8
"""Batches' worth of images of many sizes that wait for others of theirs, at most."""


class Asked(ABC):
    """What answers; a kind of model says how an image is prepared and how a batch is answered.

    Attributes:
        names: of the classes.
        things: how many of them, from the first on, are countable, for a panoptic model.
        task: ``detection``, ``instance``, ``panoptic`` or ``semantic``.
    """

    names: tuple[str, ...]
    things: int
    task: str

    @abstractmethod
    def prepare(self, image: np.ndarray) -> tuple[tuple[int, ...], Any]:
        """A size, equal for what may share a batch, and what is made of an image H W 3 in RGB.

        Raises:
            BadImage: it cannot be brought to the model's size.
        """

    @abstractmethod
    def answer(self, samples: list[Any]) -> list[Result]:
        """The results of prepared images of one size."""

    @overload
    def __call__(self, images: list | tuple, batch_size: int = 1) -> list[Result]: ...

    @overload
    def __call__(
        self, images: str | os.PathLike | np.ndarray | Image, batch_size: int = 1
    ) -> Result: ...

    def __call__(self, images: Any, batch_size: int = 1) -> Result | list[Result]:
        """Predicts.

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
            self.stream(enumerate(map(pixels, [images] if single else images)), batch_size)
        )
        return results[0] if single else [results[at] for at in range(len(results))]

    def stream(
        self,
        images: Iterable[tuple[Key, np.ndarray]],
        batch_size: int = 1,
        bad: Callable[[Key, str], None] | None = None,
    ) -> Iterator[tuple[Key, Result]]:
        """Predicts on as many images as come, holding a few of them at a time.

        Args:
            images: pairs of whatever tells an image from others and its pixels, H W 3 in RGB.
            batch_size: images of one size that go through the model together.
            bad: is told of an image that the pipeline cannot scale, and why; by default one raises.

        Yields:
            what came with an image, and its result; images of one size in the order they came.
        """
        if batch_size < 1:
            raise UserError(f'batch size {batch_size}: a batch has at least one image')
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
                yield from self._answered(waiting.pop(size))
            elif sum(map(len, waiting.values())) >= WAITING * batch_size:
                yield from self._answered(waiting.pop(next(iter(waiting))))  # of the oldest
        for batch in waiting.values():
            yield from self._answered(batch)

    def _answered(self, batch: list[tuple[Key, Any]]) -> Iterator[tuple[Key, Result]]:
        yield from zip([key for key, _ in batch], self.answer([sample for _, sample in batch]))
