"""Which objects a detector found, missed, made up and took for others.

Detections and objects are paired as COCO pairs them: the best score first, each object once, from
an overlap of ``IOU`` on and of the same class.  What is left on both sides is then paired without
regard to class: those are confusions.  A detection that lies in a crowd of its class is not judged.

What counts as a detection in all that is shown, but for average precision, is told by a threshold:
the score from which on F1, the harmonic mean of precision and recall over all classes, is best.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..utils.boxes import box_ious
from ..utils.matching import greedy_pairs, match_boxes
from .predictions import Detections, Objects

IOU = 0.5
SCORE = 0.3
"""The threshold where no detection is right about anything."""


class Matches(NamedTuple):
    """The pairs, by rows of the found (M) and of the true (N) objects; -1 for none."""

    partner: np.ndarray  # M: the true object of the same class
    overlap: np.ndarray  # M: with the partner
    confused: np.ndarray  # M: the true object of another class
    judged: np.ndarray  # M, bool: not in a crowd
    finder: np.ndarray  # N: the detection that it is the partner of
    shown: np.ndarray  # M, bool: judged, and of a score from the threshold on
    score: float  # the threshold


def match_detections(results: Detections) -> Matches:
    """Pair detections with objects, picture by picture."""
    truth, found = results.truth, results.found
    matches = Matches(
        np.full(len(found), -1),
        np.zeros(len(found)),
        np.full(len(found), -1),
        np.ones(len(found), bool),
        np.full(len(truth), -1),
        np.zeros(0, bool),
        0,
    )
    count = len(results.pictures)
    pictures = [
        pair
        for pair in zip(truth.split_by_image(count), found.split_by_image(count))
        if all(map(len, pair))
    ]
    for there, said in pictures:
        _match_image(truth, found, there, said, matches)
    score = best_threshold(
        found.score, matches.partner >= 0, matches.judged, int((~truth.crowd).sum())
    )
    matches = matches._replace(score=score, shown=matches.judged & (found.score >= score))
    for there, said in pictures:
        _pair_confusions(truth, found, there, said, matches)
    return matches


def best_threshold(
    scores: np.ndarray, right: np.ndarray, judged: np.ndarray, objects: int
) -> float:
    """Return the score from which on F1 is best, rounded down to hundredths."""
    order = np.argsort(-scores[judged], kind='stable')
    hits = right[judged][order].cumsum()
    if not len(hits) or not hits[-1]:
        return SCORE
    best = int((2 * hits / (np.arange(1, len(hits) + 1) + objects)).argmax())
    return float(np.floor(scores[judged][order][best] * 100) / 100)


def _match_image(
    truth: Objects, found: Objects, there: np.ndarray, said: np.ndarray, matches: Matches
) -> None:
    plain, crowds = there[~truth.crowd[there]], there[truth.crowd[there]]
    partner, overlap = match_boxes(
        found.box[said],
        found.label[said],
        found.score[said],
        truth.box[plain],
        truth.label[plain],
        IOU,
    )
    right = partner >= 0
    matches.partner[said[right]] = plain[partner[right]]
    matches.overlap[said] = overlap
    matches.finder[plain[partner[right]]] = said[right]
    if len(crowds):
        _skip_crowds(truth, found, crowds, said[~right], matches)


def _skip_crowds(
    truth: Objects, found: Objects, crowds: np.ndarray, said: np.ndarray, matches: Matches
) -> None:
    """Leave unjudged what lies, by ``IOU`` of its own area, in a crowd of its class."""
    boxes, regions = found.box[said], truth.box[crowds]
    corner = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    sides = np.clip(np.minimum(boxes[:, None, 2:], regions[None, :, 2:]) - corner, 0, None)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 1e-9, None), axis=1)
    inside = sides.prod(axis=2) / areas[:, None] >= IOU
    inside &= found.label[said][:, None] == truth.label[crowds]
    matches.judged[said[inside.any(axis=1)]] = False


def _pair_confusions(
    truth: Objects, found: Objects, there: np.ndarray, said: np.ndarray, matches: Matches
) -> None:
    """Pair what is left, of whatever class, among the detections that are shown."""
    said = said[matches.shown[said] & (matches.partner[said] < 0)]
    said = said[np.argsort(-found.score[said], kind='stable')]
    finder = matches.finder[there]
    # An object that only a detection below the threshold found is free to be taken for another.
    free = there[~truth.crowd[there] & ((finder < 0) | ~matches.shown[finder])]
    if len(said) and len(free):
        for row, column in greedy_pairs(box_ious(found.box[said], truth.box[free]), IOU):
            matches.confused[said[row]] = free[column]


def confusion_matrix(results: Detections, matches: Matches) -> np.ndarray:
    """Return K+1 K+1 counts: rows are true classes and nothing, columns found ones and missed."""
    truth, found, shown = results.truth, results.found, matches.shown
    last = len(results.classes)
    partner = np.where(matches.partner >= 0, matches.partner, matches.confused)
    paired = shown & (partner >= 0)
    rows = np.full(len(found), last)
    rows[paired] = truth.label[partner[paired]]
    table = np.zeros((last + 1, last + 1), np.int64)
    np.add.at(table, (rows[shown], found.label[shown]), 1)
    alone = ~truth.crowd
    alone[partner[paired]] = False
    np.add.at(table, (truth.label[alone], last), 1)
    return table


def find_missed(results: Detections, matches: Matches) -> np.ndarray:
    """Return N, bool: the objects that no detection shown is right about."""
    found = matches.finder >= 0
    found[found] = matches.shown[matches.finder[found]]
    return ~found & ~results.truth.crowd


def find_false(matches: Matches) -> np.ndarray:
    """Return M, bool: the detections shown that are right about no object."""
    return (matches.partner < 0) & matches.shown
