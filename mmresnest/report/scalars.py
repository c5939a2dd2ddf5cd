"""What a training has logged: all its curves, and how far it has come."""
from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .pictures import _lines, _log_files, _numbers, read_scalars

Curve = tuple[list[float], list[float]]
POINTS = 800
"""Points of a curve that are kept: more than a screen shows."""


class Curves(NamedTuple):
    """Groups of curves, each by its name; the x of all are iterations."""

    losses: dict[str, Curve]
    scores: dict[str, Curve]
    rates: dict[str, Curve]
    seconds: dict[str, Curve]
    memory: dict[str, Curve]
    iteration: int          # the last that was logged
    epoch: int

    @property
    def empty(self) -> bool:
        """Whether nothing was logged."""
        return not (self.losses or self.scores)


#: what stands in a line of a training step, besides losses -> where it belongs
_GROUPS = {'lr': 'rates', 'time': 'seconds', 'data_time': 'seconds', 'memory': 'memory'}


def read_curves(work_dir: str | os.PathLike) -> Curves:
    """Reads the curves of a work folder; see :func:`~.pictures.read_scalars` for several runs."""
    losses, scores = read_scalars(work_dir)
    groups: dict[str, dict[str, Curve]] = {name: {} for name in _GROUPS.values()}
    last = epoch = 0
    for iteration, numbers in _steps(Path(work_dir)):
        last = max(last, int(iteration))
        epoch = max(epoch, int(numbers.get('epoch', 0)))
        for name, value in numbers.items():
            group = groups.get(_GROUPS.get(name.rsplit('/')[-1], ''))
            if group is not None and math.isfinite(value):
                line = group.setdefault(name, ([], []))
                line[0].append(iteration)
                line[1].append(value)
    groups.update(losses=losses, scores=scores)
    return Curves(**{group: {name: _thinned(curve) for name, curve in curves.items()}
                     for group, curves in groups.items()}, iteration=last, epoch=epoch)


def _steps(work_dir: Path) -> Iterator[tuple[float, dict[str, float]]]:
    """The lines of training steps, in order; a run that goes on replaces what it did again."""
    joined: list[tuple[float, dict[str, float]]] = []
    for path in _log_files(work_dir):
        run = [(numbers.get('iter', numbers.get('step', 0)), numbers)
               for numbers in map(_numbers, _lines(path)) if 'lr' in numbers]
        if run:
            joined = [line for line in joined if line[0] < run[0][0]] + run
    yield from joined


def _thinned(curve: Curve) -> Curve:
    """At most ``POINTS`` of a curve at equal steps, the last one always."""
    x, y = curve
    step = -(-len(x) // POINTS)
    if step <= 1:
        return curve
    return x[::-1][::step][::-1], y[::-1][::step][::-1]
