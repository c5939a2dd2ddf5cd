"""How far a file's results are from those of the graph it was written from, or of the framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..inference.results import Detections, Result, Segmentation

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What is still rounding.

    Attributes:
        maps: largest difference of maps, of their largest value.
        pixels: share of pixels of another class.
        scores: difference of the scores of an object.
        boxes: of its sides, in pixels.
        masks: of the probabilities of its mask.
        unmatched: share of the objects of both that only one of them finds, each by its score.
            Where it is not 0, an object that is further off than this counts as not found.
        edges: share of the pixels of a mask in the picture, or of 1000 if it has fewer.
    """

    maps: float
    pixels: float
    scores: float
    boxes: float
    masks: float
    unmatched: float
    edges: float


LIMITS = {
    # Sums in another order.
    'float32': Limits(
        maps=1e-4, pixels=1e-3, scores=1e-4, boxes=0.05, masks=1e-3, unmatched=0, edges=0.01
    ),
    # 11 bits: a thousandth in every product, and choices that fall otherwise behind them.
    'float16': Limits(
        maps=2e-2, pixels=2e-2, scores=2e-2, boxes=2, masks=0.1, unmatched=0.1, edges=0.1
    ),
}
LEAST_MASK = 1000  # px, of which a share is taken


@dataclass(frozen=True)
class Cut:
    """Which objects are kept; what lies within rounding of that may be kept by one of both only.

    Attributes:
        lowest: the score of the least certain.
        most: how many.
    """

    lowest: float
    most: int


@dataclass(frozen=True)
class Difference:
    """Of one output.

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
        """Whether it is rounding; what is not a number is none."""
        return self.value <= self.limit


def differences(
    names: Sequence[str], expected: Arrays, found: Arrays, limits: Limits, lowest: float = 0.0
) -> list[Difference]:
    """Compares outputs.

    Args:
        names: of the outputs; ``boxes``, ``scores``, ``labels`` and ``masks`` are of objects.
        expected: of the graph.
        found: of the file.
        limits: of what is rounding.
        lowest: score of an object.
    """
    shapes = [(one.shape, other.shape) for one, other in zip(expected, found)]
    if len(expected) != len(found) or any(one != other for one, other in shapes):
        return [Difference('shapes', np.inf, 0)]
    if 'boxes' in names:
        return _objects(
            dict(zip(names, expected)),
            dict(zip(names, found)),
            limits,
            Cut(lowest, expected[0].shape[1]),
        )
    result = []
    for name, one, other in zip(names, expected, found):
        if name == 'labels':
            result.append(
                Difference('pixels of another class', float((one != other).mean()), limits.pixels)
            )
        else:
            most = float(np.abs(one).max()) or 1.0
            result.append(Difference(name, float(np.abs(one - other).max()) / most, limits.maps))
    return result


def _objects(
    expected: dict[str, np.ndarray], found: dict[str, np.ndarray], limits: Limits, cut: Cut
) -> list[Difference]:
    """Compares objects, image by image: each with the one of its class that is nearest."""
    lonely, paired = 0.0, 0.0
    worst = {name: np.float64(0) for name in ('scores', 'boxes', 'masks') if name in expected}
    for image in range(len(expected['scores'])):
        one, other = (
            {name: values[image] for name, values in outputs.items()}
            for outputs in (expected, found)
        )
        pairs, alone = matched(one, other, limits, cut)
        lonely += alone
        paired += sum(float(one['scores'][left] + other['scores'][right]) for left, right in pairs)
        for name in worst:
            for left, right in pairs:  # np.maximum keeps what is not a number, max does not
                worst[name] = np.maximum(
                    worst[name], np.abs(one[name][left] - other[name][right]).max()
                )
    limit = dict(scores=limits.scores, boxes=limits.boxes, masks=limits.masks)
    return [
        Difference(
            'objects that only one finds', lonely and lonely / (lonely + paired), limits.unmatched
        ),
        *(
            Difference('boxes, in pixels' if name == 'boxes' else name, float(value), limit[name])
            for name, value in worst.items()
        ),
    ]


def matched(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], limits: Limits, cut: Cut
) -> tuple[list[tuple[int, int]], float]:
    """Pairs of objects that are one, and the scores of those that are left alone, together."""
    left, right = (np.flatnonzero(each['labels'] >= 0).tolist() for each in (one, other))
    spared = [_spared(other, limits, cut), _spared(one, limits, cut)]
    pairs = []
    for at in left:
        near = [
            (_distance(one, other, at, to), to)
            for to in right
            if one['labels'][at] == other['labels'][to]
            and not (limits.unmatched and _off(one, other, at, to, limits))
        ]
        distance, to = min(near, default=(np.inf, -1))
        if distance <= reach(limits):
            pairs.append((at, to))
            right.remove(to)
    paired = {at for at, _ in pairs}
    lone = [at for at in left if at not in paired]
    moved = [
        (at, to)
        for at in lone
        for to in right
        if one['labels'][at] == other['labels'][to]
        and _distance(one, other, at, to) <= reach(limits)
    ]
    # None is spared that both have, elsewhere; nor any if less than half could be compared.
    few = 2 * len(pairs) < min(len(left), len(right) + len(pairs))
    alone = 0.0
    for places, each, elsewhere, most in (
        (lone, one, {at for at, _ in moved}, spared[0]),
        (right, other, {to for _, to in moved}, spared[1]),
    ):
        scores = {place: float(each['scores'][place]) for place in places}
        alone += sum(
            score
            for place, score in scores.items()
            if few or place in elsewhere or not score <= most
        )
    return pairs, alone


def reach(limits: Limits) -> float:
    """How far off an object may be and still be the same, in px and score together."""
    return 4 * limits.boxes + limits.scores


def _distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray], at: int, to: int) -> float:
    return float(np.abs(one['boxes'][at] - other['boxes'][to]).max()) + abs(
        float(one['scores'][at] - other['scores'][to])
    )


def _off(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], at: int, to: int, limits: Limits
) -> bool:
    """Whether two objects are further off each other than rounding."""
    return not all(
        np.abs(one[name][at] - other[name][to]).max() <= getattr(limits, name)
        for name in ('boxes', 'scores', 'masks')
        if name in one
    )


def _spared(lacking: dict[str, np.ndarray], limits: Limits, cut: Cut) -> float:
    """Up to which score an object may be lacking: the threshold, or the last of a full list."""
    scores = lacking['scores'][lacking['labels'] >= 0]
    full = len(scores) >= cut.most
    return (float(scores.min()) if full else cut.lowest) + limits.scores


def result_differences(one: Result, other: Result, limits: Limits, cut: Cut) -> list[Difference]:
    """Compares two results on one image."""
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
    found = _objects(
        {name: value[None] for name, value in left.items()},
        {name: value[None] for name, value in right.items()},
        limits,
        cut,
    )
    if one.masks is not None and other.masks is not None:
        wrong = [
            _edge(one.masks[at], other.masks[to]) for at, to in matched(left, right, limits, cut)[0]
        ]
        found.append(Difference('pixels of a mask', max(wrong, default=0.0), limits.edges))
    return found


def _edge(one: np.ndarray, other: np.ndarray) -> float:
    """The share of a mask's pixels that another does not have, or has beyond it."""
    return float((one != other).sum() / max((one | other).sum(), LEAST_MASK))


def refuse_differences(found: Mapping[str, list[Difference]]) -> None:
    """Makes sure that all differences are rounding.

    Args:
        found: by what was compared.

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
                + '; nothing was written. Export in float32, in another format, or --part neck'
            )
