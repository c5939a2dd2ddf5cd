"""Predict with an exported model, without torch and without an mm library.

    model = ExportedModel('detector.onnx')
    found = model('street.jpg')
    found.boxes, found.class_names, found.draw('street.jpg')

Beside its runtime this takes numpy and OpenCV. The file holds the network with what lies before and
behind it, except for the scaling of the image and the scaling back: see :mod:`.rescale`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from .base import BasePredictor, check_score
from .images import BadImage
from .output_checks import MAX_WINDOWS, check_memory, check_objects, check_segmentation
from .rescale import (
    best_classes,
    padded_size,
    paste_masks,
    resize_image,
    resize_logits,
    scaled_size,
    window_starts,
)
from .results import Detections, Result, Segmentation
from .runtimes import Session, first_line, open_session


class ExportedModel(BasePredictor):
    """A whole detector or segmentor in an exported file.

    Args:
        source: an ``.onnx`` or ``.xml`` that ``mmresnest export`` wrote; or an open session.
        score_thr: objects with a lower score are left out.
        device: ``cpu``; for an ``.onnx`` also ``cuda`` or ``cuda:1``, for an ``.xml`` also ``gpu``;
            or ``auto``, a CUDA device if there is one.

    Attributes:
        metadata: the description that the file holds.

    Raises:
        UserError: the file cannot be used, or holds a part of a model.
    """

    def __init__(
        self, source: str | os.PathLike | Session, score_thr: float = 0.3, device: str = 'auto'
    ) -> None:
        check_score(score_thr)
        self.score_thr = score_thr
        self.session = (
            open_session(source, device) if isinstance(source, (str, os.PathLike)) else source
        )
        self.metadata = self.session.metadata
        if self.metadata['part'] not in ('model', 'whole'):  # the latter before 0.2
            raise UserError(
                f'the file holds the {self.metadata["part"]} of a model, whose maps are '
                'not yet predictions; export --part model',
                code='exported.part',
            )
        if self.metadata['task'] == 'panoptic':
            raise UserError(
                'the file says that it holds a whole panoptic model, which is never exported; '
                'export it anew',
                code='exported.damaged',
            )
        self.task, self.names = self.metadata['task'], tuple(self.metadata['names'])
        self.num_things = len(self.names)

    def prepare(self, image: np.ndarray) -> tuple[tuple[int, ...], Any]:
        """Scale an image; return its size, and the scaled image with the original size."""
        original = image.shape[:2]
        size = scaled_size(original, self.metadata)
        if min(size) < 1:
            raise BadImage(
                'the image',
                f'it is {original[1]} x {original[0]} pixels, which the '
                'test pipeline cannot bring to its size',
                code='image.too-narrow',
            )
        return size, (resize_image(image, size), original)

    def predict_batch(self, samples: list[Any]) -> list[Result]:
        """Return the results of scaled images of one size."""
        images = np.stack([image for image, _ in samples]).transpose(0, 3, 1, 2)  # B 3 H W
        originals = [original for _, original in samples]
        if self.task == 'semantic':
            return [
                self._to_segmentation(logits, labels, original)
                for (logits, labels), original in zip(self._iter_logits(images), originals)
            ]
        return [
            self._to_detections([output[number] for output in outputs], images.shape[2:4], original)
            for outputs, number, original in self._iter_outputs(images, originals)
        ]

    def _iter_outputs(self, images: np.ndarray, originals: list) -> Iterator[tuple[list, int, Any]]:
        """Run the file; yield for each image the outputs and its index in them."""
        sizes = iter(originals)
        for outputs, count in self._run_chunks(images):
            for number in range(count):
                yield outputs, number, next(sizes)

    def _run_chunks(self, images: np.ndarray) -> Iterator[tuple[list[np.ndarray], int]]:
        """Run the file on as many images at once as it takes; yield outputs and their number."""
        limit = self.metadata['input']['batch'] or len(images)
        for start in range(0, len(images), limit):
            chunk = images[start : start + limit]
            yield self._run_session(*self.pad_batch(chunk)), len(chunk)

    def pad_batch(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pad scaled images B 3 H W to the file's input; return them and their sizes B 2.

        Where the file takes a fixed number of images, empty ones fill it up.
        """
        form = self.metadata['input']
        height, width = padded_size(images.shape[2:], form)
        batch = np.zeros((form['batch'] or len(images), 3, height, width), np.uint8)
        batch[: len(images), :, : images.shape[2], : images.shape[3]] = images
        return batch, np.tile(np.array([images.shape[2:]], np.int64), (len(batch), 1))

    def _run_session(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run the file on a batch, and check its outputs.

        Raises:
            UserError: the file cannot be run, or gives something else than it says.
        """
        try:
            found = self.session.run(*inputs)
        except Exception as error:  # each runtime raises its own kinds
            raise UserError(
                'the exported file cannot be run on '
                f'{"x".join(map(str, inputs[0].shape))}: {first_line(error)}; export it anew',
                code='exported.run',
            ) from error
        check = check_segmentation if self.task == 'semantic' else check_objects
        wrong = check(found, inputs[0].shape, len(self.names), self.task)
        if wrong:
            raise UserError(f'the exported file {wrong}; export it anew', code='exported.outputs')
        return found

    def _to_detections(
        self, outputs: list[np.ndarray], size: tuple[int, ...], original: tuple[int, int]
    ) -> Detections:
        """Return an image's outputs in pixels of the original image."""
        boxes, scores, labels = outputs[:3]
        kept = (labels >= 0) & (scores >= self.score_thr)
        scale = np.array([size[1] / original[1], size[0] / original[0]] * 2, np.float32)
        boxes = boxes[kept] / scale
        masks = None
        if len(outputs) > 3:
            check_memory('masks', len(boxes), original)
            masks = paste_masks(outputs[3][kept], boxes, original, self.metadata['mask_threshold'])
        return Detections(
            boxes.astype(np.float32).reshape(-1, 4),
            scores[kept],
            labels[kept].astype(np.int64),
            self.names,
            masks,
            original,
        ).filter_by_score(self.score_thr)

    def _iter_logits(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield logits C H W and labels H W of each image, in the size it was scaled to."""
        window = self.metadata['window']
        if window is not None and not self._fits_window(images.shape[2:], window):
            for image in images:
                logits = self._slide_window(image, window)
                yield logits, logits.argmax(0)
            return
        for (logits, labels), count in self._run_chunks(images):
            yield from (
                (
                    logits[number, :, : images.shape[2], : images.shape[3]],
                    labels[number, : images.shape[2], : images.shape[3]],
                )
                for number in range(count)
            )

    @staticmethod
    def _fits_window(size: tuple[int, ...], window: Mapping) -> bool:
        return size[0] <= window['size'][0] and size[1] <= window['size'][1]

    def _slide_window(self, image: np.ndarray, window: Mapping) -> np.ndarray:
        """Return the mean of the logits of windows that slide over an image, C H W."""
        sides = [min(pair) for pair in zip(image.shape[1:], window['size'])]
        places = [
            (y, x)
            for y in window_starts(image.shape[1], sides[0], window['stride'][0])
            for x in window_starts(image.shape[2], sides[1], window['stride'][1])
        ]
        if len(places) > MAX_WINDOWS:
            raise BadImage(
                'the image',
                f'it is {image.shape[2]} x {image.shape[1]} pixels when scaled, on which the model '
                f'slides {len(places)} windows; scale it down, or cut it into tiles',
                code='image.too-large',
            )
        total: Any = 0.0
        count = np.zeros(image.shape[1:], np.float32)
        for y, x in places:
            rows, columns = slice(y, y + sides[0]), slice(x, x + sides[1])
            (logits, _), _ = next(self._run_chunks(image[None, :, rows, columns]))
            if not count.any():
                check_memory('logits', logits.shape[1], image.shape[1:], 4)
                total = np.zeros((logits.shape[1], *image.shape[1:]), np.float32)
            total[:, rows, columns] += logits[0, :, : sides[0], : sides[1]]
            count[rows, columns] += 1
        return total / count

    def _to_segmentation(
        self, logits: np.ndarray, labels: np.ndarray, original: tuple[int, int]
    ) -> Segmentation:
        """Return the classes of the pixels of the original image."""
        if self.keeps_scores:
            check_memory('logits', len(logits), original, 4)
            logits = resize_logits(logits, original, self.metadata['align_corners'])
            return Segmentation(logits.argmax(0), self.names, original, logits)
        if labels.shape != original:
            labels = best_classes(logits, original, self.metadata['align_corners'])
        return Segmentation(labels.astype(np.int64), self.names, original)
