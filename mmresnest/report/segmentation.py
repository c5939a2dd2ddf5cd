"""The sections and pictures of segmentors: IoU, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.predictions import LabelMaps
from ..evaluation.scores import Overlap, class_mean, label_overlap
from . import figures, gallery
from .cases import Case, list_map_cases
from .sections import (
    Figure,
    Section,
    Table,
    comparison_table,
    confused_pairs,
    confusion_figures,
    format_compared,
    format_number,
)


@dataclass(frozen=True)
class SegmentationScores:
    """Label maps with all that was computed of them."""

    results: LabelMaps
    overlap: Overlap


def compute_scores(results: LabelMaps) -> SegmentationScores:
    """Compute what the sections show."""
    return SegmentationScores(results, label_overlap(results))


def build_sections(runs: Mapping[str, SegmentationScores], alone: bool) -> list[Section]:
    """Return all sections, of one run or several; ``alone`` if the page has no other."""
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
        comparison_table(
            'Over all classes', {run: _mean_scores(one.overlap) for run, one in runs.items()}, alone
        ),
        _class_table(runs, classes),
    ]
    scores.figures.append(_iou_bars({run: one.overlap.iou for run, one in runs.items()}, classes))
    return [scores, _mistakes_section(runs, classes, alone)]


def _iou_bars(runs: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Return IoU by class; of many classes, those of the lowest."""
    # nan is sorted behind all numbers
    order = np.argsort(next(iter(runs.values())), kind='stable')
    shown = sorted(order[: figures.SHOWN].tolist())
    note = ''
    if len(shown) < len(classes):
        note = f'The {figures.SHOWN} of {len(classes)} classes with the lowest IoU.'
    return Figure(
        'iou',
        'IoU by class',
        figures.score_bars(
            {run: values[shown] for run, values in runs.items()},
            [classes[one] for one in shown],
            'IoU',
        ),
        note,
    )


def _mistakes_section(
    runs: Mapping[str, SegmentationScores], classes: Sequence[str], alone: bool
) -> Section:
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


def _mean_scores(one: Overlap) -> dict[str, float]:
    return {
        'mIoU': class_mean(one.iou),
        'mean recall': class_mean(one.recall),
        'mean precision': class_mean(one.precision),
        'right pixels': one.accuracy,
    }


def _class_table(runs: Mapping[str, SegmentationScores], classes: Sequence[str]) -> Table:
    several = [one.overlap for one in runs.values()]
    first = several[0]
    if len(several) == 1:
        columns = ['IoU', 'recall', 'precision']
        cells = [
            list(map(format_number, line)) for line in zip(first.iou, first.recall, first.precision)
        ]
    else:
        columns = [f'IoU {run}' for run in runs]
        cells = [format_compared(values) for values in zip(*(one.iou for one in several))]
    return Table(
        'By class',
        ['class', 'pixels', *columns],
        [[name, f'{share:.1%}', *line] for name, share, line in zip(classes, first.share, cells)],
    )


def list_cases(one: SegmentationScores) -> dict[str, list[Case]]:
    """Return all cases that could be shown."""
    return list_map_cases(one.results)


def draw_cases(
    one: SegmentationScores, cases: Sequence[Case]
) -> tuple[list[gallery.GalleryItem], int]:
    """Draw some of them; return the pictures, and how many images could not be read."""
    return gallery.draw_map_cases(one.results, cases)


GALLERY = (
    'From left to right: what is there, what was predicted, and in red the pixels where the two '
    'differ about the class that a picture is about; white is not counted, or of no class. Best '
    'and worst are by IoU, the others by the number of pixels.'
)
