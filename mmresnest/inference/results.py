"""What a model says of an image, as plain arrays: :class:`~.predictor.Predictor` returns these.

Sizes are (height, width), boxes are x0 y0 x1 y1 in pixels of the image, labels are indices into
``names``, the classes that the model was trained on. COCO's category ids are labels + 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError

VOID = -1
"""The label of pixels of which a panoptic model says nothing."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that a detector found, best first.

    Attributes:
        boxes: N 4.
        scores: N, from 0 to 1.
        labels: N.
        names: of all classes.
        masks: N H W, True where the object is; None of a model that has boxes only.
        size: of the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def named(self) -> list[str]:
        """The name of each object's class."""
        return [name_of(self.names, label) for label in self.labels]

    def above(self, score: float) -> Detections:
        """Those with at least this score, best first."""
        order = np.argsort(-self.scores, kind='stable')
        order = order[self.scores[order] >= score]
        masks = None if self.masks is None else self.masks[order]
        return Detections(
            self.boxes[order], self.scores[order], self.labels[order], self.names, masks, self.size
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Rows of COCO's format of results; masks as run lengths."""
        rows = []
        for number, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            row = dict(
                image_id=image_id,
                category_id=int(self.labels[number]) + 1,
                bbox=[x0, y0, x1 - x0, y1 - y0],
                score=float(self.scores[number]),
            )
            if self.masks is not None:
                row['segmentation'] = run_lengths(self.masks[number])
            rows.append(row)
        return rows

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``.

        Raises:
            UserError: supervision is not installed.
        """
        return _supervise(self.boxes, self.labels, self.named, self.masks, self.scores)

    def draw(self, image: Any) -> np.ndarray:
        """The image with boxes, names and scores on it.

        Args:
            image: that was predicted on: a path, a PIL image or an array H W 3 in RGB.

        Returns:
            the picture, H' W' 3 in RGB: even sides, and a small image larger.
        """
        from ..visualization.annotate import annotated_objects

        return annotated_objects(
            _fitting(image, self.size),
            dict(boxes=self.boxes, labels=self.labels, scores=self.scores, masks=self.masks),
            self.names,
        )


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of every pixel.

    Attributes:
        labels: H W.
        names: of all classes.
        size: of the image.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    size: tuple[int, int]

    @property
    def shares(self) -> dict[str, float]:
        """Class -> the part of the pixels it covers, of those that are there."""
        found, counts = np.unique(self.labels, return_counts=True)
        return {
            name_of(self.names, label): int(count) / self.labels.size
            for label, count in zip(found, counts)
        }

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Rows of COCO's format of stuff results: a mask for each class that is there."""
        return [
            dict(
                image_id=image_id,
                category_id=int(label) + 1,
                segmentation=run_lengths(self.labels == label),
            )
            for label in np.unique(self.labels)
        ]

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` with a mask for each class that is there.

        Raises:
            UserError: supervision is not installed.
        """
        found = np.unique(self.labels)
        masks = _stacked((self.labels == label for label in found), self.size)
        return _supervise(
            boxes_of(masks), found, [name_of(self.names, one) for one in found], masks, None
        )

    def draw(self, image: Any) -> np.ndarray:
        """The image tinted by class, with names; see :meth:`Detections.draw`."""
        from ..visualization.annotate import annotated_regions

        return annotated_regions(_fitting(image, self.size), self.labels, self.names)


@dataclass(frozen=True)
class Segment:
    """A region of a panoptic result.

    Attributes:
        id: its number in :attr:`PanopticSegmentation.ids`.
        label: of its class.
        thing: whether objects of the class are told apart.
        area: in pixels.
    """

    id: int
    label: int
    thing: bool
    area: int


@dataclass(frozen=True, eq=False)
class PanopticSegmentation:
    """The class of every pixel, and the object where it can be counted.

    Attributes:
        ids: H W, the number of the segment, from 1; 0 where the model says nothing.
        segments: in the order of their numbers.
        names: of all classes.
        size: of the image.
    """

    ids: np.ndarray
    segments: tuple[Segment, ...]
    names: tuple[str, ...]
    size: tuple[int, int]

    @property
    def labels(self) -> np.ndarray:
        """The class of every pixel, H W; -1 where the model says nothing."""
        table = np.array([VOID, *(segment.label for segment in self.segments)], np.int64)
        return table[self.ids]

    def to_coco(self, image_id: int) -> dict[str, Any]:
        """The annotation of COCO's panoptic format; its PNG is :meth:`coloured`."""
        return dict(
            image_id=image_id,
            segments_info=[
                dict(id=one.id, category_id=one.label + 1, isthing=int(one.thing), area=one.area)
                for one in self.segments
            ],
        )

    def coloured(self) -> np.ndarray:
        """The numbers as COCO keeps them in a PNG: H W 3 in RGB, id = R + 256 G + 65536 B."""
        return np.stack([self.ids >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8)

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` with a mask for each segment.

        Raises:
            UserError: supervision is not installed.
        """
        masks = _stacked((self.ids == one.id for one in self.segments), self.size)
        labels = np.array([one.label for one in self.segments], np.int64)
        return _supervise(
            boxes_of(masks), labels, [name_of(self.names, one) for one in labels], masks, None
        )

    def draw(self, image: Any) -> np.ndarray:
        """The image tinted by class, with names; see :meth:`Detections.draw`."""
        from ..visualization.annotate import annotated_regions

        return annotated_regions(_fitting(image, self.size), self.labels, self.names, self.ids)


Result = Detections | Segmentation | PanopticSegmentation


def name_of(names: tuple[str, ...], label: int) -> str:
    """A class's name; a number where the checkpoint does not name it."""
    return names[label] if 0 <= label < len(names) else f'class {label}'


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask H W in COCO's compressed run lengths, as json can hold them."""
    from pycocotools import mask as coco

    coded = coco.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=[int(side) for side in coded['size']], counts=coded['counts'].decode('ascii'))


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The boxes around masks, N H W -> N 4."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _stacked(masks: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Masks in one array, also if there are none."""
    return np.concatenate([np.zeros((0, *size), bool), *(mask[None] for mask in masks)])


def _supervise(
    boxes: np.ndarray,
    labels: np.ndarray,
    named: list[str],
    masks: np.ndarray | None,
    scores: np.ndarray | None,
) -> Any:
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise UserError(
            f'to_supervision needs the package supervision, and {error.name} is not '
            'installed: pip install supervision'
        ) from error
    return supervision.Detections(
        xyxy=boxes.astype(np.float32),
        class_id=labels.astype(int),
        confidence=scores,
        mask=masks,
        data=dict(class_name=np.array(named, dtype=str)),
    )


def _fitting(image: Any, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an image, if it is of the size that was predicted on."""
    from .inputs import pixels

    array = pixels(image)
    if array.shape[:2] != size:
        raise UserError(
            f'draw: the image is {array.shape[1]} x {array.shape[0]} pixels, and the '
            f'result is of one of {size[1]} x {size[0]}; give the image that was '
            'predicted on'
        )
    return array
