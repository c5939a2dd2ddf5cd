"""The section of curves, which all reports have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils.run_logs import Curve, main_score, short_name
from . import figures
from .sections import NOTHING, Figure, Run, Section, Table


def curves_section(runs: Sequence[Run]) -> Section | None:
    """Return losses, scores, rates, seconds and memory over iterations; None without a log."""
    if all(run.curves.empty for run in runs):
        return None
    section = Section('training', 'Training')
    scores = {run.name: _by_short_name(run.curves.scores) for run in runs}
    main = main_score(name for group in scores.values() for name in group) or ''  # drawn thicker
    parts: list[tuple[str, str, Mapping[str, Mapping[str, Curve]], str, str]] = [
        (
            'losses',
            'Training losses',
            {run.name: run.curves.losses for run in runs},
            'loss',
            'loss',
        ),
        ('scores', 'Scores on the validation split', scores, 'score', main),
        ('rate', 'Learning rate', {run.name: run.curves.rates for run in runs}, 'rate', 'lr'),
        (
            'seconds',
            'Time of a step, and what of it waited for data',
            {run.name: run.curves.seconds for run in runs},
            'seconds',
            'time',
        ),
        ('memory', 'Memory on the GPU', {run.name: run.curves.memory for run in runs}, 'MB', ''),
    ]
    for name, caption, groups, unit, thick in parts:
        if any(groups.values()):
            section.figures.append(
                Figure(f'curve-{name}', caption, figures.plot_curves(groups, unit, thick))
            )
    section.below.append(_last_values(runs))
    return section


def _by_short_name(scores: Mapping[str, Curve]) -> dict[str, Curve]:
    return {short_name(name): curve for name, curve in scores.items()}


def _last_values(runs: Sequence[Run]) -> Table:
    """Return the last value of each curve, and the best of each score."""
    logged = {
        run.name: {
            **run.curves.losses,
            **run.curves.rates,
            **run.curves.seconds,
            **run.curves.memory,
            **run.curves.scores,
        }
        for run in runs
    }
    scores = {name for run in runs for name in run.curves.scores}
    names = list(dict.fromkeys(name for group in logged.values() for name in group))
    rows: list[list[Any]] = []
    for name in names:
        cells = []
        for group in logged.values():
            x, y = group.get(name, ([], []))
            cells.append(f'{y[-1]:.4g}' if y else NOTHING)
            best = int(np.argmax(y)) if y else 0
            cells.append(f'{y[best]:.4g} at {x[best]:g}' if y and name in scores else NOTHING)
        rows.append([name, *cells])
    heads = [
        word if len(runs) == 1 else f'{run.name}: {word}'
        for run in runs
        for word in ('last', 'best')
    ]
    return Table('Last values', ['', *heads], rows)
