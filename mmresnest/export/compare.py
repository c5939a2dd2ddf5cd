"""How far a file's results are from those of the graph it was written from, or of the framework."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..engine.results import Detections, Result, Segmentation
from ..errors import UserError

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
        unmatched: share of the objects that only one of both finds.
    """
    maps: float
    pixels: float
    scores: float
    boxes: float
    masks: float
    unmatched: float


LIMITS = {
    # Sums in another order. What is found by one only must lie at the last place that is kept.
    'float32': Limits(maps=1e-4, pixels=1e-3, scores=1e-4, boxes=0.05, masks=1e-3, unmatched=0),
    # 11 bits: a thousandth in every product, and choices that fall otherwise behind them.
    'float16': Limits(maps=2e-2, pixels=2e-2, scores=2e-2, boxes=2, masks=0.1, unmatched=0.1),
}


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


def differences(names: Sequence[str], expected: Arrays, found: Arrays,
                limits: Limits) -> list[Difference]:
    """Compares outputs.

    Args:
        names: of the outputs; ``boxes``, ``scores``, ``labels`` and ``masks`` are of objects.
        expected: of the graph.
        found: of the file.
        limits: of what is rounding.
    """
    shapes = [(one.shape, other.shape) for one, other in zip(expected, found)]
    if len(expected) != len(found) or any(one != other for one, other in shapes):
        return [Difference('shapes', np.inf, 0)]
    if 'boxes' in names:
        return _objects(dict(zip(names, expected)), dict(zip(names, found)), limits)
    result = []
    for name, one, other in zip(names, expected, found):
        if name == 'labels':
            result.append(Difference('pixels of another class', float((one != other).mean()),
                                     limits.pixels))
        else:
            most = float(np.abs(one).max()) or 1.
            result.append(Difference(name, float(np.abs(one - other).max()) / most, limits.maps))
    return result


def _objects(expected: dict[str, np.ndarray], found: dict[str, np.ndarray],
             limits: Limits) -> list[Difference]:
    """Compares objects, image by image: each with the one of its class that is nearest."""
    scores, boxes, masks, lonely, total = 0., 0., 0., 0, 0
    for image in range(len(expected['scores'])):
        one, other = ({name: values[image] for name, values in outputs.items()}
                      for outputs in (expected, found))
        pairs, alone = matched(one, other, limits)
        total += int((one['labels'] >= 0).sum())
        lonely += alone
        for left, right in pairs:
            scores = max(scores, abs(float(one['scores'][left] - other['scores'][right])))
            boxes = max(boxes, float(np.abs(one['boxes'][left] - other['boxes'][right]).max()))
            if 'masks' in one:
                masks = max(masks, float(np.abs(one['masks'][left] - other['masks'][right]).max()))
    result = [Difference('objects that only one finds', lonely / max(total, 1), limits.unmatched),
              Difference('scores', scores, limits.scores),
              Difference('boxes, in pixels', boxes, limits.boxes)]
    if 'masks' in expected:
        result.append(Difference('masks', masks, limits.masks))
    return result


def matched(one: dict[str, np.ndarray], other: dict[str, np.ndarray],
            limits: Limits) -> tuple[list[tuple[int, int]], int]:
    """Pairs of objects that are one, and how many are left alone.

    What lies within rounding of the last score that is kept may be kept by one of both only.
    """
    left = [at for at in range(len(one['labels'])) if one['labels'][at] >= 0]
    right = [at for at in range(len(other['labels'])) if other['labels'][at] >= 0]
    pairs = []
    for at in left:
        near = [(float(np.abs(one['boxes'][at] - other['boxes'][to]).max())
                 + abs(float(one['scores'][at] - other['scores'][to])), to)
                for to in right if one['labels'][at] == other['labels'][to]]
        if near:
            distance, to = min(near)
            if distance <= 4 * limits.boxes + limits.scores:
                pairs.append((at, to))
                right.remove(to)
    paired = {at for at, _ in pairs}
    alone = [float(one['scores'][at]) for at in left if at not in paired]
    alone += [float(other['scores'][to]) for to in right]
    last = [float(scores[scores > 0].min(initial=np.inf))
            for scores in (one['scores'], other['scores'])]
    edge = max(value for value in last if np.isfinite(value)) + limits.scores if any(
        map(np.isfinite, last)) else 0.
    return pairs, sum(score > edge for score in alone)


def result_differences(one: Result, other: Result, limits: Limits) -> list[Difference]:
    """Compares two results on one image."""
    if isinstance(one, Segmentation) and isinstance(other, Segmentation):
        return [Difference('pixels of another class', float((one.labels != other.labels).mean()),
                           limits.pixels)]
    assert isinstance(one, Detections) and isinstance(other, Detections)
    left, right = ({name: getattr(result, name) for name in ('boxes', 'scores', 'labels')}
                   for result in (one, other))
    found = _objects({name: value[None] for name, value in left.items()},
                     {name: value[None] for name, value in right.items()}, limits)
    if one.masks is not None and other.masks is not None:
        wrong = [float((one.masks[at] != other.masks[to]).mean())
                 for at, to in matched(left, right, limits)[0]]
        found.append(Difference('pixels of a mask', max(wrong, default=0.), limits.pixels))
    return found


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
            raise UserError(f'{where} differ beyond rounding: ' + ', '.join(
                f'{one.what} by {one.value:.2g} (at most {one.limit:g})' for one in wrong)
                + '; nothing was written. Export in float32, in another format, or --part neck')
