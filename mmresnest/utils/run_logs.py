"""What a training has logged: all its curves, and how far it has come.

Each run writes one file, a JSON object a line. :func:`parse_record` reads a line,
:func:`read_run` a file, and :func:`join_runs` joins the runs of a work folder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Curve = tuple[list[float], list[float]]
POINTS = 800
"""Points of a curve that are kept: more than a screen shows."""
MAIN_SCORES = ('bbox_mAP', 'mIoU', 'PQ', 'segm_mAP', 'mAP', 'AP50')
"""The score that a run is judged by, first found first."""

#: what stands in a line of a training step, besides losses -> where it belongs
_GROUPS = {'lr': 'rates', 'time': 'seconds', 'data_time': 'seconds', 'memory': 'memory'}
# Bookkeeping in mmengine's lines that is neither a loss nor a score.
_NO_SCORE = {*_GROUPS, 'step', 'iter', 'epoch', 'base_lr', 'momentum', 'grad_norm'}


def main_score(names: Iterable[str]) -> str | None:
    """Return of names such as ``coco/bbox_mAP`` the score that a run is judged by, if any is."""
    last = {short_name(name): name for name in reversed(list(names))}
    return next((last[score] for score in MAIN_SCORES if score in last), None)


def short_name(name: str) -> str:
    """Return the last part of the name of a score or loss, such as ``coco/bbox_mAP``."""
    return name.rsplit('/')[-1]


class Point(NamedTuple):
    """A value of a curve."""

    iteration: float
    name: str
    value: float

    @property
    def is_loss(self) -> bool:
        """Whether it is of a loss, and not of a score."""
        return 'loss' in self.name


class Step(NamedTuple):
    """The numbers that were logged of a training step."""

    iteration: float
    numbers: dict[str, float]


@dataclass
class RunLog:
    """What one run has logged.

    Attributes:
        points: of losses and scores.
        steps: of training.
        iteration: the last one that a training step has told.
    """

    points: list[Point] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    iteration: float = 0.0

    @property
    def has_losses(self) -> bool:
        """Whether it trained; a run without has only scored a checkpoint."""
        return any(point.is_loss for point in self.points)


class Scalars(NamedTuple):
    """What a run has logged: name -> (iterations, values)."""

    losses: dict[str, Curve]
    scores: dict[str, Curve]


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


def read_curves(work_dir: str | os.PathLike) -> Curves:
    """Read the curves of a work folder; see :func:`read_scalars` for several runs."""
    runs = read_runs(work_dir)
    groups: dict[str, dict[str, Curve]] = {name: {} for name in _GROUPS.values()}
    steps = join_runs(run.steps for run in runs)
    for iteration, numbers in steps:
        for name, value in numbers.items():
            group = groups.get(_GROUPS.get(short_name(name), ''))
            if group is not None and math.isfinite(value):
                _add_point(group, name, iteration, value)
    groups.update(_join_scalars(runs)._asdict())
    return Curves(
        **{
            group: {name: _thin_curve(curve) for name, curve in curves.items()}
            for group, curves in groups.items()
        },
        iteration=max((int(step.iteration) for step in steps), default=0),
        epoch=max((int(step.numbers.get('epoch', 0)) for step in steps), default=0),
    )


def read_scalars(source: str | os.PathLike) -> Scalars:
    """Read losses and scores from what mmengine logs.

    Args:
        source: a work folder, the folder of one run, or a ``scalars.json``. Where a work folder
            holds several runs, a run that goes on from an earlier one is joined to it, and one that
            starts over replaces it.

    Returns:
        Curves over iterations; empty where nothing was logged.
    """
    return _join_scalars(read_runs(source))


def read_runs(source: str | os.PathLike) -> list[RunLog]:
    """Read all runs of a work folder, oldest first."""
    return [read_run(path) for path in _log_files(Path(source))]


def read_run(path: Path) -> RunLog:
    """Read the log of one run."""
    run = RunLog()
    for record in _read_records(path):
        parse_record(record, run)
    return run


def parse_record(record: Mapping[str, Any], run: RunLog) -> None:
    """Add a line of a log to a run."""
    numbers = _number_fields(record)
    iteration = numbers.get('iter', numbers.get('step', run.iteration))
    if 'lr' in numbers:
        run.steps.append(Step(numbers.get('iter', numbers.get('step', 0)), numbers))
    losses = {name: value for name, value in numbers.items() if 'loss' in short_name(name)}
    if losses or 'lr' in numbers:
        run.iteration = max(run.iteration, iteration)
        values = losses
    else:
        # The step of a score is the iteration or, where a run counts epochs, the epoch: then it is
        # smaller than the iteration before it.
        iteration = numbers.get('step', iteration)
        values = {n: value for n, value in numbers.items() if short_name(n) not in _NO_SCORE}
    at = max(iteration, run.iteration)
    run.points += [Point(at, name, value) for name, value in values.items()]


Logged = TypeVar('Logged', Point, Step)


def join_runs(runs: Iterable[Sequence[Logged]]) -> list[Logged]:
    """Join runs, oldest first: one that goes on replaces what it did again."""
    joined: list[Logged] = []
    for run in filter(None, runs):
        first = min(each.iteration for each in run)
        joined = [each for each in joined if each.iteration < first] + list(run)
    return joined


def _join_scalars(runs: Sequence[RunLog]) -> Scalars:
    if any(run.has_losses for run in runs):
        # The iterations of a run that has only scored a checkpoint mean nothing.
        runs = [run for run in runs if run.has_losses]
    scalars = Scalars({}, {})
    for point in join_runs(run.points for run in runs):
        # COCO gives -1 to a size range without objects.
        if math.isfinite(point.value) and (point.is_loss or point.value >= 0):
            curves = scalars.losses if point.is_loss else scalars.scores
            _add_point(curves, point.name, point.iteration, point.value)
    return scalars


def _add_point(curves: dict[str, Curve], name: str, iteration: float, value: float) -> None:
    x, y = curves.setdefault(name, ([], []))
    x.append(iteration)
    y.append(value)


def _thin_curve(curve: Curve) -> Curve:
    """Return at most ``POINTS`` of a curve at equal steps, the last one always."""
    x, y = curve
    step = -(-len(x) // POINTS)
    if step <= 1:
        return curve
    return x[::-1][::step][::-1], y[::-1][::step][::-1]


def _read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file with one JSON object a line; a line cut short by a crash is skipped."""
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


def _number_fields(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _log_files(source: Path) -> list[Path]:
    """Return the logs of a work folder, oldest run first: its runs are folders named by time."""
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
