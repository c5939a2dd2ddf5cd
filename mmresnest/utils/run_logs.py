"""What a training has logged: all its curves, and how far it has come."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Curve = tuple[list[float], list[float]]
POINTS = 800
"""Points of a curve that are kept: more than a screen shows."""
MAIN_SCORES = ('bbox_mAP', 'mIoU', 'PQ', 'segm_mAP', 'mAP', 'AP50')
"""The score that a run is judged by, first found first."""


def main_score(names: Iterable[str]) -> str | None:
    """Of names of scores such as ``coco/bbox_mAP`` the one that a run is judged by, if any is."""
    last = {name.rsplit('/')[-1]: name for name in reversed(list(names))}
    return next((last[score] for score in MAIN_SCORES if score in last), None)


class Curves(NamedTuple):
    """Groups of curves, each by its name; the x of all are iterations."""

    losses: dict[str, Curve]
    scores: dict[str, Curve]
    rates: dict[str, Curve]
    seconds: dict[str, Curve]
    memory: dict[str, Curve]
    iteration: int  # the last that was logged
    epoch: int

    @property
    def empty(self) -> bool:
        """Whether nothing was logged."""
        return not (self.losses or self.scores)


#: what stands in a line of a training step, besides losses -> where it belongs
_GROUPS = {'lr': 'rates', 'time': 'seconds', 'data_time': 'seconds', 'memory': 'memory'}


def read_curves(work_dir: str | os.PathLike) -> Curves:
    """Reads the curves of a work folder; see :func:`read_scalars` for several runs."""
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
    return Curves(
        **{
            group: {name: _thinned(curve) for name, curve in curves.items()}
            for group, curves in groups.items()
        },
        iteration=last,
        epoch=epoch,
    )


def _steps(work_dir: Path) -> Iterator[tuple[float, dict[str, float]]]:
    """The lines of training steps, in order; a run that goes on replaces what it did again."""
    joined: list[tuple[float, dict[str, float]]] = []
    for path in _log_files(work_dir):
        run = [
            (numbers.get('iter', numbers.get('step', 0)), numbers)
            for numbers in map(_numbers, _lines(path))
            if 'lr' in numbers
        ]
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


class Scalars(NamedTuple):
    """What a run has logged: name -> (iterations, values)."""

    losses: dict[str, tuple[list[float], list[float]]]
    scores: dict[str, tuple[list[float], list[float]]]


# Bookkeeping in mmengine's lines that is neither a loss nor a score.
_NO_SCORE = {
    'step',
    'iter',
    'epoch',
    'time',
    'data_time',
    'memory',
    'lr',
    'base_lr',
    'momentum',
    'grad_norm',
}


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """The records of a file with one JSON object a line; a line cut short by a crash is skipped."""
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError:
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _log_files(source: Path) -> list[Path]:
    """The logs of a work folder, oldest run first: its runs are folders named by their time."""
    if source.is_file():
        return [source]
    files = []
    for folder in (source, *sorted(each for each in source.glob('*') if each.is_dir())):
        inner = folder / 'vis_data' if (folder / 'vis_data').is_dir() else folder
        if (inner / 'scalars.json').is_file():
            files.append(inner / 'scalars.json')
        elif inner.name == 'vis_data':
            files.extend(sorted(inner.glob('*.json'))[:1])
    # A vis_data folder named itself also turns up as a subfolder of its run.
    return list(dict.fromkeys(files))


def read_scalars(source: str | os.PathLike) -> Scalars:
    """Reads losses and scores from what mmengine logs.

    Args:
        source: a work folder, the folder of one run, or a ``scalars.json``. Where a work folder
            holds several runs, a run that goes on from an earlier one is joined to it, and one that
            starts over replaces it.

    Returns:
        Curves over iterations; empty where nothing was logged.
    """
    runs = []
    for path in _log_files(Path(source)):
        run: list[tuple[float, str, float]] = []
        iteration = 0.0
        for record in _lines(path):
            numbers = _numbers(record)
            step = numbers.get('step', numbers.get('iter', iteration))
            losses = {key: value for key, value in numbers.items() if 'loss' in key.rsplit('/')[-1]}
            if losses:
                iteration = max(iteration, numbers.get('iter', step))
                run += [(iteration, key, value) for key, value in losses.items()]
                continue
            if 'lr' in numbers:
                iteration = max(iteration, numbers.get('iter', step))
                continue
            # The step of a score is the iteration or, where a run counts epochs, the epoch: then it
            # is smaller than the iteration before it.
            run += [
                (max(step, iteration), key, value)
                for key, value in numbers.items()
                if key.rsplit('/')[-1] not in _NO_SCORE
            ]
        if run:
            runs.append(run)
    if any('loss' in key for run in runs for _, key, _ in run):
        # A run without losses has only scored a checkpoint; its iterations mean nothing.
        runs = [run for run in runs if any('loss' in key for _, key, _ in run)]
    joined: list[tuple[float, str, float]] = []
    for run in runs:
        first = min(iteration for iteration, _, _ in run)
        joined = [point for point in joined if point[0] < first] + run
    curves_of: tuple[dict, dict] = ({}, {})
    for iteration, key, value in joined:
        # COCO gives -1 to a size range without objects.
        if math.isfinite(value) and ('loss' in key or value >= 0):
            line = curves_of['loss' not in key].setdefault(key, ([], []))
            line[0].append(iteration)
            line[1].append(value)
    return Scalars(*curves_of)
