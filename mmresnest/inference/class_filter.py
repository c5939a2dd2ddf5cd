"""Keep the objects of some classes: ``predict --classes cat,dog``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from ..errors import UserError, nearest
from .results import Detections, PanopticSegmentation, Result


def find_labels(classes: str, names: Sequence[str]) -> frozenset[int]:
    """Return the labels of some classes.

    Args:
        classes: names, with commas between them.
        names: of all classes of the model.

    Raises:
        UserError: no name is given, or the model has no class of a name.
    """
    wanted = [name.strip() for name in classes.split(',') if name.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        name = (unknown or [classes])[0]
        known = nearest(name, names) if names else 'the model does not name its classes'
        raise UserError(
            f'--classes: the model has no class {name!r}; {known}', code='option.unknown'
        )
    return frozenset(label for label, name in enumerate(names) if name in wanted)


def filter_by_class(result: Result, labels: Collection[int]) -> Result:
    """Return a result with its objects of some classes; of a panoptic one, its segments."""
    if isinstance(result, Detections):
        return result.take(np.flatnonzero(np.isin(result.labels, list(labels))))
    if isinstance(result, PanopticSegmentation):
        kept = [one for one in result.segments if one.label in labels]
        numbers = np.zeros(1 + len(result.segments), np.int64)  # old -> new; 0 for none
        for new, one in enumerate(kept, 1):
            numbers[one.id] = new
        segments = tuple(replace(one, id=new) for new, one in enumerate(kept, 1))
        return replace(result, ids=numbers[result.ids], segments=segments)
    return result
