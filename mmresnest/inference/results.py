"""What predictors return for an image: plain arrays.

Sizes are (height, width), boxes are x0 y0 x1 y1 in pixels of the image, labels are indices into
``names``, the classes that the model was trained on. COCO's category ids are labels + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import UserError
from ..utils.boxes import class_name
from ..utils.masks import encode_rle

VOID = -1
"""The label of pixels to which a panoptic model gives no class."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that a detector found, best first.

    Attributes:
        boxes: N 4.
        scores: N, from 0 to 1.
        labels: N.
        names: of all classes.
        masks: N H W, True where the object is; None from a model that has boxes only.
        size: of the image.
        ids: N, which object of a film it is, from 1; -1 of one that is not followed; None where
            none is.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None
    size: tuple[int, int]
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_names(self) -> list[str]:
        """Return the name of each object's class."""
        return [class_name(self.names, label) for label in self.labels]

    named = class_names  # its name before 0.2, kept for one version

    def filter_by_score(self, score: float) -> Detections:
        """Return the objects with at least this score, best first."""
        order = np.argsort(-self.scores, kind='stable')
        return self.take(order[self.scores[order] >= score])

    def take(self, order: np.ndarray) -> Detections:
        """Return the objects of these indices, in their order."""
        return replace(
            self,
            boxes=self.boxes[order],
            scores=self.scores[order],
            labels=self.labels[order],
            masks=None if self.masks is None else self.masks[order],
            ids=None if self.ids is None else self.ids[order],
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return rows of COCO's format of results; masks as run lengths, identities beside them."""
        rows = []
        for number, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            row = dict(
                image_id=image_id,
                category_id=int(self.labels[number]) + 1,
                bbox=[x0, y0, x1 - x0, y1 - y0],
                score=float(self.scores[number]),
            )
            if self.masks is not None:
                row['segmentation'] = encode_rle(self.masks[number])
            if self.ids is not None and self.ids[number] >= 0:
                row['track_id'] = int(self.ids[number])
            rows.append(row)
        return rows

    def to_supervision(self) -> Any:
        """Return the objects as ``supervision.Detections``.

        Raises:
            UserError: supervision is not installed.
        """
        found = _to_supervision(self.boxes, self.labels, self.class_names, self.masks, self.scores)
        if self.ids is not None:
            found.tracker_id = self.ids.astype(int)
        return found

    def draw(self, image: Any) -> np.ndarray:
        """Draw boxes, names and scores on the image, in the color of the class or the identity.

        Args:
            image: the one predicted on: a path, a PIL image or an array H W 3 in RGB.

        Returns:
            the picture, H' W' 3 in RGB: even sides, small images enlarged, large ones reduced.
        """
        from ..visualization.annotate import annotate_objects

        return annotate_objects(
            _load_matching_image(image, self.size),
            dict(
                boxes=self.boxes,
                labels=self.labels,
                scores=self.scores,
                masks=self.masks,
                ids=self.ids,
            ),
            self.names,
        )


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of every pixel.

    Attributes:
        labels: H W.
        names: of all classes.
        size: of the image.
        scores: C H W, of which the labels are the best; None unless a predictor keeps them.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    size: tuple[int, int]
    scores: np.ndarray | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Return class -> the share of the pixels it covers, for the classes that are found."""
        found, counts = np.unique(self.labels, return_counts=True)
        return {
            class_name(self.names, label): int(count) / self.labels.size
            for label, count in zip(found, counts)
        }

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return rows of COCO's format of stuff results: a mask for each class that is found."""
        return [
            dict(
                image_id=image_id,
                category_id=int(label) + 1,
                segmentation=encode_rle(self.labels == label),
            )
            for label in np.unique(self.labels)
        ]

    def to_supervision(self) -> Any:
        """Return a ``supervision.Detections`` with a mask for each class that is found.

        Raises:
            UserError: supervision is not installed.
        """
        found = np.unique(self.labels)
        masks = [self.labels == label for label in found]
        return _regions_to_supervision(masks, found, self.names, self.size)

    def draw(self, image: Any) -> np.ndarray:
        """Tint the image by class, with names; see :meth:`Detections.draw`."""
        from ..visualization.annotate import annotate_regions

        return annotate_regions(_load_matching_image(image, self.size), self.labels, self.names)


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
        ids: H W, the number of the segment, from 1; 0 where there is none.
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
        """Return the class of every pixel, H W; -1 where there is none."""
        table = np.array([VOID, *(segment.label for segment in self.segments)], np.int64)
        return table[self.ids]

    def to_coco(self, image_id: int) -> dict[str, Any]:
        """Return the annotation of COCO's panoptic format; its PNG is :meth:`to_rgb_ids`."""
        return dict(
            image_id=image_id,
            segments_info=[
                dict(id=one.id, category_id=one.label + 1, isthing=int(one.thing), area=one.area)
                for one in self.segments
            ],
        )

    def to_rgb_ids(self) -> np.ndarray:
        """Return the ids as COCO keeps them in a PNG: H W 3 in RGB, id = R + 256 G + 65536 B."""
        return np.stack([self.ids >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8)

    def to_supervision(self) -> Any:
        """Return a ``supervision.Detections`` with a mask for each segment.

        Raises:
            UserError: supervision is not installed.
        """
        masks = [self.ids == one.id for one in self.segments]
        labels = np.array([one.label for one in self.segments], np.int64)
        return _regions_to_supervision(masks, labels, self.names, self.size)

    def draw(self, image: Any) -> np.ndarray:
        """Tint the image by class, with names; see :meth:`Detections.draw`."""
        from ..visualization.annotate import annotate_regions

        return annotate_regions(
            _load_matching_image(image, self.size), self.labels, self.names, self.ids
        )


Result = Detections | Segmentation | PanopticSegmentation


def _regions_to_supervision(
    masks: Sequence[np.ndarray], labels: np.ndarray, names: tuple[str, ...], size: tuple[int, int]
) -> Any:
    """Return masks H W with the boxes around them; there may be none."""
    stacked = np.array(masks, bool).reshape(-1, *size)
    boxes = np.zeros((len(stacked), 4))
    for box, mask in zip(boxes, stacked):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    named = [class_name(names, label) for label in labels]
    return _to_supervision(boxes, labels, named, stacked, None)


def _to_supervision(
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
            'installed: pip install supervision',
            code='package.missing',
        ) from error
    return supervision.Detections(
        xyxy=boxes.astype(np.float32),
        class_id=labels.astype(int),
        confidence=scores,
        mask=masks,
        data=dict(class_name=np.array(named, dtype=str)),
    )


def _load_matching_image(image: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels of an image, if it has the size that was predicted on."""
    from .images import to_rgb_array

    array = to_rgb_array(image)
    if array.shape[:2] != size:
        raise UserError(
            f'draw: the image is {array.shape[1]} x {array.shape[0]} pixels, and the '
            f'result is of one of {size[1]} x {size[0]}; give the image that was '
            'predicted on',
            code='image.size',
        )
    return array
