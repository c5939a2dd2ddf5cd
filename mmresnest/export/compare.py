"""Compare the results of an exported file with those of its graph, and of the framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..inference.results import Detections, Result, Segmentation
from ..utils.matching import greedy_pairs

Arrays = Sequence[np.ndarray]
Objects = dict[str, np.ndarray]
"""Boxes N 4, scores N, labels N and perhaps masks N M M."""


@dataclass(frozen=True)
class Limits:
    """The differences up to which results are equal but for rounding.

    Attributes:
        maps: largest difference of maps, as a fraction of their largest value.
        pixels: share of pixels of another class.
        scores: difference of the scores of an object.
        boxes: of the sides of its box, in pixels.
        masks: of the probabilities of its mask.
        unmatched: share of the objects that only one of both finds, weighted by score. Where it
            is not 0, objects that differ by more than the limits above count as not matched.
        edges: share of the pixels of a mask in the picture, or of 1000 pixels if it has fewer.
    """

    maps: float
    pixels: float
    scores: float
    boxes: float
    masks: float
    unmatched: float
    edges: float


LIMITS = {
    # Sums are taken in another order.
    'float32': Limits(
        maps=1e-4, pixels=1e-3, scores=1e-4, boxes=0.05, masks=1e-3, unmatched=0, edges=0.01
    ),
    # 11 bits: every product is off by up to a thousandth, and NMS may choose another box.
    'float16': Limits(
        maps=2e-2, pixels=2e-2, scores=2e-2, boxes=2, masks=0.1, unmatched=0.1, edges=0.1
    ),
}
MIN_MASK_PIXELS = 1000


@dataclass(frozen=True)
class Selection:
    """Which objects a model keeps; those near the border may be kept by one of both only.

    Attributes:
        score_thr: with at least this score.
        max_per_img: and at most so many.
    """

    score_thr: float
    max_per_img: int


@dataclass(frozen=True)
class Difference:
    """The difference of one output.

    Attributes:
        what: the output, and what of it.
        value: the difference.
        limit: up to which it is rounding.
    """

    what: str
    value: float
    limit: float

    @property
    def passes(self) -> bool:
        """Tell whether it is rounding; NaN is not."""
        return self.value <= self.limit


def compare_outputs(
    names: Sequence[str], expected: Arrays, found: Arrays, limits: Limits, score_thr: float = 0.0
) -> list[Difference]:
    """Compare outputs.

    Args:
        names: of the outputs; ``boxes``, ``scores``, ``labels`` and ``masks`` are of objects.
        expected: of the graph.
        found: of the file.
        limits: of what is rounding.
        score_thr: of objects.

    Returns:
        the differences, of each output or of all objects.
    """
    shapes = [(one.shape, other.shape) for one, other in zip(expected, found)]
    if len(expected) != len(found) or any(one != other for one, other in shapes):
        return [Difference('shapes', np.inf, 0)]
    if 'boxes' in names:
        return _compare_objects(
            dict(zip(names, expected)),
            dict(zip(names, found)),
            limits,
            Selection(score_thr, expected[0].shape[1]),
        )
    result = []
    for name, one, other in zip(names, expected, found):
        if name == 'labels':
            result.append(
                Difference('pixels of another class', float((one != other).mean()), limits.pixels)
            )
        else:
            largest = float(np.abs(one).max()) or 1.0
            result.append(Difference(name, float(np.abs(one - other).max()) / largest, limits.maps))
    return result


def _compare_objects(
    expected: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    limits: Limits,
    selection: Selection,
) -> list[Difference]:
    """Compare objects, image by image: each with the one of its class that is nearest."""
    unmatched, matched = 0.0, 0.0
    worst = {name: np.float64(0) for name in ('scores', 'boxes', 'masks') if name in expected}
    for image in range(len(expected['scores'])):
        one, other = (
            {name: values[image] for name, values in outputs.items()}
            for outputs in (expected, found)
        )
        pairs, lone = match_objects(one, other, limits, selection)
        unmatched += lone
        matched += sum(float(one['scores'][left] + other['scores'][right]) for left, right in pairs)
        for name in worst:
            for left, right in pairs:  # np.maximum keeps NaN, max does not
                worst[name] = np.maximum(
                    worst[name], np.abs(one[name][left] - other[name][right]).max()
                )
    limit = dict(scores=limits.scores, boxes=limits.boxes, masks=limits.masks)
    return [
        Difference(
            'objects that only one finds',
            unmatched and unmatched / (unmatched + matched),
            limits.unmatched,
        ),
        *(
            Difference('boxes, in pixels' if name == 'boxes' else name, float(value), limit[name])
            for name, value in worst.items()
        ),
    ]


def match_objects(
    one: Objects, other: Objects, limits: Limits, selection: Selection
) -> tuple[list[tuple[int, int]], float]:
    """Pair the objects of two results.

    Returns:
        the pairs of indices; and the sum of the scores of objects without a partner, those left
        out that only one result kept, since they are near the border of the selection.
    """
    rows, columns = (np.flatnonzero(result['labels'] >= 0) for result in (one, other))
    distance = _object_distances(one, other, rows, columns)
    near = distance <= matching_radius(limits)
    usable = near.copy()
    if limits.unmatched:
        for row, column in np.argwhere(near):
            usable[row, column] = _within_limits(one, other, rows[row], columns[column], limits)
    nearness = np.where(usable, -distance, -np.inf)
    pairs = list(greedy_pairs(nearness, -matching_radius(limits)))
    lone_rows, lone_columns = (
        np.setdiff1d(np.arange(count), [pair[side] for pair in pairs]).astype(int)
        for side, count in enumerate(near.shape)
    )
    # None is left out that both found, in other places; nor any if less than half was matched.
    moved = near[np.ix_(lone_rows, lone_columns)]
    few = 2 * len(pairs) < min(near.shape)
    unmatched = 0.0
    for result, indices, is_moved, lacking in (
        (one, rows[lone_rows], moved.any(1), other),
        (other, columns[lone_columns], moved.any(0), one),
    ):
        scores = result['scores'][indices].astype(float)
        at_border = scores <= _score_tolerance(lacking, limits, selection)
        unmatched += float(scores[few | is_moved | ~at_border].sum())
    return [(int(rows[row]), int(columns[column])) for row, column in pairs], unmatched


def matching_radius(limits: Limits) -> float:
    """Return how far two objects may be apart and still be the same one, in px plus score."""
    return 4 * limits.boxes + limits.scores


def _object_distances(
    one: Objects, other: Objects, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return the distance of every pair of objects, N M; infinite between different classes."""
    boxes = np.abs(one['boxes'][rows, None] - other['boxes'][None, columns]).max(2, initial=0)
    scores = np.abs(one['scores'][rows, None] - other['scores'][None, columns])
    same_class = one['labels'][rows, None] == other['labels'][None, columns]
    return np.where(same_class, boxes.astype(float) + scores.astype(float), np.inf)


def _within_limits(one: Objects, other: Objects, row: int, column: int, limits: Limits) -> bool:
    """Tell whether two objects differ by no more than rounding."""
    return all(
        np.abs(one[name][row] - other[name][column]).max() <= getattr(limits, name)
        for name in ('boxes', 'scores', 'masks')
        if name in one
    )


def _score_tolerance(lacking: Objects, limits: Limits, selection: Selection) -> float:
    """Return the score up to which a result may lack an object: its threshold, or its last score.

    A result that holds as many objects as it may dropped those below its last.
    """
    scores = lacking['scores'][lacking['labels'] >= 0]
    is_full = len(scores) >= selection.max_per_img
    return (float(scores.min()) if is_full else selection.score_thr) + limits.scores


def compare_results(
    one: Result, other: Result, limits: Limits, selection: Selection
) -> list[Difference]:
    """Compare two results on one image."""
    if isinstance(one, Segmentation) and isinstance(other, Segmentation):
        return [
            Difference(
                'pixels of another class', float((one.labels != other.labels).mean()), limits.pixels
            )
        ]
    assert isinstance(one, Detections) and isinstance(other, Detections)
    left, right = (
        {name: getattr(result, name) for name in ('boxes', 'scores', 'labels')}
        for result in (one, other)
    )
    found = _compare_objects(
        {name: value[None] for name, value in left.items()},
        {name: value[None] for name, value in right.items()},
        limits,
        selection,
    )
    if one.masks is not None and other.masks is not None:
        wrong = [
            _mask_difference(one.masks[at], other.masks[to])
            for at, to in match_objects(left, right, limits, selection)[0]
        ]
        found.append(Difference('pixels of a mask', max(wrong, default=0.0), limits.edges))
    return found


def _mask_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share of pixels in which two masks differ."""
    return float((one != other).sum() / max((one | other).sum(), MIN_MASK_PIXELS))


def check_differences(found: Mapping[str, list[Difference]]) -> None:
    """Refuse differences beyond rounding.

    Args:
        found: what was compared -> its differences.

    Raises:
        UserError: one is not.
    """
    for where, each in found.items():
        wrong = [one for one in each if not one.passes]
        if wrong:
            raise UserError(
                f'{where} differ beyond rounding: '
                + ', '.join(
                    f'{one.what} by {one.value:.2g} (at most {one.limit:g})' for one in wrong
                )
                + '; nothing was written. Export in float32, in another format, or --part neck',
                code='export.differs',
            )
