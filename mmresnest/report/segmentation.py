"""The sections and pictures of segmentors: IoU, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.predictions import LabelMaps
from ..evaluation.scores import Overlap, mean_of, overlap
from . import figures, gallery
from .sections import (
    Figure,
    Section,
    Table,
    compared,
    confused_pairs,
    confusion_figures,
    difference,
    number,
)


@dataclass(frozen=True)
class Judged:
    """Label maps with all that was computed of them."""

    results: LabelMaps
    overlap: Overlap


def judge(results: LabelMaps) -> Judged:
    """Computes what the sections show."""
    return Judged(results, overlap(results))


def sections(runs: Mapping[str, Judged], alone: bool) -> list[Section]:
    """All sections, of one run or two; ``alone`` if the page has no other."""
    classes = next(iter(runs.values())).results.classes
    scores = Section(
        'overlap',
        'Intersection over union',
        [
            'Over all pixels of the validation split; means are over the classes that are anywhere '
            'in truth or prediction.'
        ],
    )
    scores.tables += [
        compared(
            'Over all classes', {run: _means(one.overlap) for run, one in runs.items()}, alone
        ),
        _by_class(runs, classes),
    ]
    scores.figures.append(_bars({run: one.overlap.iou for run, one in runs.items()}, classes))
    return [scores, _mistakes(runs, classes, alone)]


def _bars(runs: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """IoU by class; of many classes, those of the lowest."""
    # nan is sorted behind all numbers
    order = np.argsort(next(iter(runs.values())), kind='stable')
    shown = sorted(order[: figures.SHOWN].tolist())
    note = ''
    if len(shown) < len(classes):
        note = f'The {figures.SHOWN} of {len(classes)} classes with the lowest IoU.'
    return Figure(
        'iou',
        'IoU by class',
        figures.bars(
            {run: values[shown] for run, values in runs.items()},
            [classes[one] for one in shown],
            'IoU',
        ),
        note,
    )


def _mistakes(runs: Mapping[str, Judged], classes: Sequence[str], alone: bool) -> Section:
    # A row for what is nothing makes the matrix square, as it is for detectors.
    tables = {run: np.pad(one.results.pixels, ((0, 1), (0, 0))) for run, one in runs.items()}
    rows, columns = [*classes, '(nothing)'], [*classes, '(none)']
    if not any(table[:, -1].any() for table in tables.values()):
        tables = {run: table[:-1, :-1] for run, table in tables.items()}
        rows, columns = list(classes), list(classes)
    return Section(
        'mistakes',
        'Mistakes',
        tables=[
            confused_pairs(
                tables, classes, 'Classes taken for others, and the share of their pixels', alone
            )
        ],
        figures=confusion_figures(tables, rows, columns, 'pixels'),
    )


def _means(one: Overlap) -> dict[str, float]:
    return {
        'mIoU': mean_of(one.iou),
        'mean recall': mean_of(one.recall),
        'mean precision': mean_of(one.precision),
        'right pixels': one.accuracy,
    }


def _by_class(runs: Mapping[str, Judged], classes: Sequence[str]) -> Table:
    several = [one.overlap for one in runs.values()]
    first = several[0]
    if len(several) == 1:
        columns = ['IoU', 'recall', 'precision']
        cells = [list(map(number, line)) for line in zip(first.iou, first.recall, first.precision)]
    else:
        columns = [*(f'IoU {run}' for run in runs), 'difference']
        cells = [
            [number(one), number(two), difference(one, two)]
            for one, two in zip(first.iou, several[1].iou)
        ]
    return Table(
        'By class',
        ['class', 'pixels', *columns],
        [[name, f'{share:.1%}', *line] for name, share, line in zip(classes, first.share, cells)],
    )


def cases(one: Judged) -> dict[str, list[gallery.Case]]:
    """All cases that could be shown."""
    return gallery.map_cases(one.results)


def draw(one: Judged, chosen: Sequence[gallery.Case]) -> tuple[list[gallery.Shown], int]:
    """The pictures of some of them, and how many could not be read."""
    return gallery.draw_maps(one.results, chosen)


GALLERY = (
    'From left to right: what is there, what was predicted, and in red the pixels where the two '
    'differ about the class that a picture is about; white is not counted, or of no class. Best '
    'and worst are by IoU, the others by the number of pixels.'
)
