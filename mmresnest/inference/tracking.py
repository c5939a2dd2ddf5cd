"""Follow the objects of films from frame to frame: ``predict --track``.

By ByteTrack (Zhang et al., ECCV 2022), in the package trackers, which supervision's authors moved
it to. Objects with a score of at least ``score_thr`` begin a track; those with a lower one only
continue it, so that an object that is half hidden keeps its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..utils.boxes import box_ious
from ..utils.packages import import_optional
from .inputs import Item, Source
from .results import Detections, Result

LOW = 0.1
"""The score from which on an object may continue a track: ByteTrack's."""
LOST = 30
"""How long an object may be out of sight, in frames of a film of 30 a second: ByteTrack's."""

SAME = 0.5
"""The overlap from which on two objects are at one place, as models have it within a class."""


def import_tracker() -> Any:
    """Import the package that follows objects.

    Raises:
        UserError: it is not installed.
    """
    return import_optional('trackers', 'track')


class FilmTracker:
    """The objects of one film.

    Args:
        rate: of the frames that are given, a second.
        score_thr: the score from which on an object begins a track.
    """

    def __init__(self, rate: float, score_thr: float) -> None:
        self._tracker = import_tracker().ByteTrackTracker(
            lost_track_buffer=LOST,
            frame_rate=rate,
            track_activation_threshold=score_thr,
            high_conf_det_threshold=score_thr,
        )
        self._detections = import_optional('supervision', 'track').Detections

    def follow(self, found: Detections) -> Detections:
        """Return the objects of the next frame with their identities, from 1 up.

        An object has none, -1, until it is seen a second time. Of several at one place, as a model
        gives them that is not sure of the class, the best is followed.
        """
        index = find_places(found)
        given = self._detections(
            xyxy=found.boxes[index].astype(np.float64),
            confidence=found.scores[index],
            class_id=found.labels[index],
            data=dict(index=index),
        )
        ids = np.full(len(found), -1)
        followed = self._tracker.update(given)
        if len(followed):
            ids[followed.data['index']] = followed.tracker_id
        return replace(found, ids=np.where(ids < 0, -1, ids + 1))


def find_places(found: Detections) -> np.ndarray:
    """Return the indices of the objects that lie at no better one's place, whatever its class."""
    overlaps = box_ious(found.boxes, found.boxes)
    kept: list[int] = []
    for at in np.argsort(-found.scores, kind='stable'):
        if not (overlaps[at, kept] >= SAME).any():
            kept.append(int(at))
    return np.array(kept, np.int64)


def follow_objects(
    results: Iterable[tuple[Item, Result]], rate_of: Callable[[Source], float], score_thr: float
) -> Iterator[tuple[Item, Result]]:
    """Give the objects of each film their identities, and leave out those of low scores.

    Args:
        results: frames of each film in their order, with objects from :data:`LOW` up.
        rate_of: the frames of a film a second, as they are given.
        score_thr: objects with a lower score only continue a track.
    """
    films: dict[str, FilmTracker] = {}
    for item, result in results:
        assert isinstance(result, Detections)
        name = item.source.name
        if name not in films:
            films[name] = FilmTracker(rate_of(item.source), score_thr)
        yield item, films[name].follow(result).filter_by_score(score_thr)
