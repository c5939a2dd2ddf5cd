"""The cases that a report shows pictures of: found best, found worst, missed and false.

A case is an object or a detection; of a segmentor, a class in an image.  There are more of them
than a page can hold: classes take turns, each with its next best case, so that every class shows
what it has before one shows all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..evaluation.matching import Matches, find_false, find_missed
from ..evaluation.predictions import Detections, LabelMaps, Objects

KINDS = {'best': 'found best', 'worst': 'found worst', 'missed': 'missed', 'false': 'false'}


class Case(NamedTuple):
    """What one picture shows.

    ``label`` is the class it is filed under, ``rows`` the true object and the detection (-1: none);
    of a label map, ``rows`` is (-1, -1) and ``rank`` what the case was chosen by.
    """

    kind: str
    picture: int
    label: int
    rank: float
    rows: tuple[int, int] = (-1, -1)


def list_object_cases(results: Detections, matches: Matches) -> dict[str, list[Case]]:
    """Return all cases of a detector by kind, those to be shown first in front."""
    truth, found, confused = results.truth, results.found, matches.confused
    right = np.flatnonzero((matches.partner >= 0) & matches.shown)
    quality = found.score * matches.overlap
    lost = np.flatnonzero(find_missed(results, matches))
    false = np.flatnonzero(find_false(matches))

    def list_kind(
        kind: str, objects: Objects, rows: np.ndarray, ranks: np.ndarray, pairs: np.ndarray
    ) -> list[Case]:
        cases = [
            Case(kind, int(objects.picture[row]), int(objects.label[row]), float(ranks[row]), pair)
            for row, pair in zip(rows, map(tuple, pairs.tolist()))
        ]
        return sorted(cases, key=lambda case: case.rank)

    pairs = np.stack([matches.partner[right], right], axis=1)
    return {
        'best': list_kind('best', found, right, -quality, pairs),
        'worst': list_kind('worst', found, right, quality, pairs),
        'missed': list_kind(
            'missed', truth, lost, -truth.area, np.stack([lost, np.full_like(lost, -1)], axis=1)
        ),
        'false': list_kind(
            'false', found, false, -found.score, np.stack([confused[false], false], axis=1)
        ),
    }


def list_map_cases(results: LabelMaps) -> dict[str, list[Case]]:
    """Return the same of a segmentor: every class of every image, by IoU and by wrong pixels."""
    right, lost, made_up = (results.counts[..., number].astype(float) for number in range(3))
    iou = right / np.maximum(right + lost + made_up, 1)
    there = right + lost > 0
    ranks = {
        'best': (-iou, there & (right > 0)),
        'worst': (iou, there & (iou < 1)),
        'missed': (-lost, lost > 0),
        'false': (-made_up, made_up > 0),
    }
    cases = {
        kind: [
            Case(kind, int(picture), int(label), float(rank[picture, label]))
            for picture, label in np.argwhere(there)
        ]
        for kind, (rank, there) in ranks.items()
    }
    return {kind: sorted(several, key=lambda case: case.rank) for kind, several in cases.items()}


def select_cases(cases: Sequence[Case], count: int) -> list[Case]:
    """Return that many cases: in each round every class has its next one."""
    turn: dict[int, int] = {}
    rounds = []
    for case in cases:
        rounds.append(turn.setdefault(case.label, 0))
        turn[case.label] += 1
    order = np.argsort(np.array(rounds, int), kind='stable')
    return [cases[number] for number in order[:count]]
