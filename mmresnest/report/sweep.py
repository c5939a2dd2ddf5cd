"""The page of a sweep: its trials, the score against each parameter, and the order they came in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import figures
from .sections import NOTHING, Figure, Section, Table

STATES = ('finished', 'pruned', 'failed', 'running', 'interrupted')


@dataclass(frozen=True)
class TrialRow:
    """A trial, as the table and the page tell of it.

    Attributes:
        number: counts from 0.
        state: one of ``STATES``.
        score: what it is judged by; of a trial that has not finished the best so far.
        values: parameter -> value, as it is typed.
        scores: of its validations.
        seconds: how long it ran.
        reason: why it failed, or was pruned.
        folder: its work folder, relative to that of the sweep.
    """

    number: int
    state: str
    score: float | None
    values: Mapping[str, str]
    scores: Sequence[float]
    seconds: float
    reason: str
    folder: str


def rank_trials(trials: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials best first: finished ones by score, then pruned ones, then the others."""
    return sorted(
        trials, key=lambda one: (STATES.index(one.state), -(one.score or 0.0), one.number)
    )


def build_sections(
    trials: Sequence[TrialRow], parameters: Mapping[str, str], score: str, root: Path
) -> list[Section]:
    """Return the sections of the page.

    Args:
        trials: at least one.
        parameters: parameter -> scale of its axis: ``log``, ``linear`` or ``category``.
        score: the name of the score.
        root: the folder of the page, from which reports of trials are linked.
    """
    table = Section('trials', 'Trials', tables=[_trial_table(trials, parameters, score, root)])
    drawn = [one for one in trials if one.score is not None]
    if not drawn:
        return [table]
    shapes = 'Full circles have finished, crosses were pruned; their score is the best they had.'
    effect = Section(
        'parameters',
        'Score against each parameter',
        [shapes],
        figures=[
            Figure(
                f'parameter-{place}',
                name,
                figures.parameter_scatter(
                    [(one.values[name], one.score or 0.0, one.state, one.number) for one in drawn],
                    scale,
                    name,
                    score,
                ),
            )
            for place, (name, scale) in enumerate(parameters.items())
        ],
    )
    history = Section(
        'history',
        'History',
        figures=[
            Figure(
                'scores-by-trial',
                'Score of each trial, and the best so far',
                figures.score_history(
                    [(one.number, one.score or 0.0, one.state) for one in drawn], score
                ),
            ),
            Figure(
                'scores-by-validation',
                'Score of each validation',
                figures.validation_lines(
                    [(one.number, one.scores, one.state) for one in rank_trials(drawn)], score
                ),
                'Dashed lines were pruned. Of many trials, the ten best.'
                if len(drawn) > figures.LINES
                else 'Dashed lines were pruned.',
            ),
        ],
    )
    return [table, effect, history]


def _trial_table(
    trials: Sequence[TrialRow], parameters: Mapping[str, str], score: str, root: Path
) -> Table:
    columns = ['trial', 'state', score, *parameters, 'validations', 'minutes', 'why']
    return Table(
        'All trials, best first',
        columns,
        [
            [
                _link_report(one, root),
                one.state,
                NOTHING if one.score is None else f'{one.score:.4f}',
                *(one.values.get(name, NOTHING) for name in parameters),
                str(len(one.scores)),
                f'{one.seconds / 60:.1f}',
                one.reason or NOTHING,
            ]
            for one in rank_trials(trials)
        ],
    )


def _link_report(one: TrialRow, root: Path) -> str:
    """Return the number of a trial, as a link where its training has left a report."""
    from markupsafe import Markup

    page = f'{one.folder}/report.html'
    if not os.path.isfile(root / page):
        return str(one.number)
    return Markup('<a href="{}">{}</a>').format(page, one.number)
