"""What the sections of a report are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..evaluation.predictions import Results
from ..utils.run_logs import Curves
from . import figures

NOTHING = '–'


@dataclass(frozen=True)
class Run:
    """A run, with all that a page tells of it.

    Attributes:
        name: as it is called on the page.
        facts: what it was and where it came from, word to value.
        notes: what a reader must know before believing the page.
        config: as it was run, as text.
        curves: what it logged.
        results: predictions and truth; None while there is no checkpoint.
    """

    name: str
    facts: Mapping[str, str]
    notes: Sequence[str]
    config: str
    curves: Curves
    results: Results | None


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first of a row is its head."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A figure in plotly's json; with ``choice``, a class can be chosen whose lines it shows."""

    id: str
    caption: str
    json: str
    note: str = ''
    choice: bool = False

    @property
    def height(self) -> int:
        """In px, so that the page does not jump when it is drawn."""
        return int(json.loads(self.json)['layout']['height'])


@dataclass
class Section:
    """A part of the page."""

    id: str
    title: str
    texts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    below: list[Table] = field(default_factory=list)  # tables that belong under the figures


def format_number(value: float, digits: int = 3) -> str:
    """Return a score as text; a dash where there is none."""
    return NOTHING if math.isnan(value) else f'{value:.{digits}f}'


def format_compared(values: Sequence[float], digits: int = 3) -> list[str]:
    """Return scores of several runs as text, the others with their difference to the first."""
    first = values[0]
    return [
        format_number(value, digits)
        + ('' if not number or math.isnan(value - first) else f' ({value - first:+.{digits}f})')
        for number, value in enumerate(values)
    ]


def column_titles(runs: Iterable[str], word: str, alone: bool) -> list[str]:
    """Return the titles of columns: the names of the runs, or what they hold if a run is alone.

    Its page has its name as the title; over figures of a few digits it would push them off a
    phone's screen.
    """
    return [word] if alone else list(runs)


def comparison_table(caption: str, runs: Mapping[str, Mapping[str, float]], alone: bool) -> Table:
    """Return scores by name, a column for each run; see :func:`format_compared`."""
    rows = [
        [name, *format_compared([scores[name] for scores in runs.values()])]
        for name in next(iter(runs.values()))
    ]
    return Table(caption, ['', *column_titles(runs, 'value', alone)], rows)


def confusion_figures(
    tables: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], unit: str
) -> list[Figure]:
    """Return the confusion matrix of each run; of many classes, those that are confused most.

    Args:
        tables: by run: counts, true by predicted; behind the last class perhaps what is of none.
        rows: names of their rows.
        columns: names of their columns.
        unit: what is counted.
    """
    shown = figures.most_confused_rows(_sum_tables(tables)).tolist()
    note = 'The darker a cell, the larger its share of the row.'
    if len(shown) < len(rows):
        note += f' Of {len(rows)} rows these {len(shown)} are confused most; shares are among them.'
    names = [[given[one] for one in shown] for given in (rows, columns)]
    return [
        Figure(
            f'confusion-{place}',
            f'Confusion, {unit}: {run}',
            figures.confusion_heatmap(table[np.ix_(shown, shown)], *names),
            note,
        )
        for place, (run, table) in enumerate(tables.items())
    ]


def confused_pairs(
    tables: Mapping[str, np.ndarray],
    classes: Sequence[str],
    caption: str,
    alone: bool,
    count: int = 12,
) -> Table:
    """Return the pairs of classes that all runs together confuse most, as text."""
    wrong = _sum_tables(tables)[: len(classes), : len(classes)].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:count]
    lines = []
    for row, column in zip(*np.unravel_index(order, wrong.shape)):
        if wrong[row, column]:
            cells = [
                f'{one[row, column]} ({one[row, column] / max(one[row].sum(), 1):.1%})'
                for one in tables.values()
            ]
            lines.append([classes[row], classes[column], *cells])
    return Table(
        caption,
        ['true', 'predicted', *column_titles(tables, 'count', alone)],
        lines or [['none', *[NOTHING] * (1 + len(tables))]],
    )


def _sum_tables(tables: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.sum(list(tables.values()), axis=0)
