"""The sections and pictures of detectors: average precision, mistakes, scores and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.matching import (
    IOU,
    Matches,
    confusion_matrix,
    find_false,
    find_missed,
    match_detections,
)
from ..evaluation.predictions import Detections
from ..evaluation.scores import COLUMNS, Precision, coco_precision, mean_curve
from . import figures, gallery
from .cases import Case, list_object_cases
from .sections import (
    Figure,
    Section,
    Table,
    column_titles,
    comparison_table,
    confused_pairs,
    confusion_figures,
    format_compared,
    format_number,
)

KINDS = {'bbox': 'boxes', 'segm': 'masks'}


@dataclass(frozen=True)
class DetectionScores:
    """Detections with all that was computed of them."""

    results: Detections
    matches: Matches
    precision: dict[str, Precision]


def compute_scores(results: Detections) -> DetectionScores:
    """Compute what the sections show."""
    kinds = ['bbox']
    if results.found.masks is not None and results.truth.masks is not None:
        kinds.append('segm')
    return DetectionScores(
        results, match_detections(results), {kind: coco_precision(results, kind) for kind in kinds}
    )


def build_sections(runs: Mapping[str, DetectionScores], alone: bool) -> list[Section]:
    """Return all sections, of one run or several; ``alone`` if the page has no other."""
    return [
        _precision_section(runs, alone),
        _mistakes_section(runs, alone),
        _histogram_section(runs),
    ]


def _precision_section(runs: Mapping[str, DetectionScores], alone: bool) -> Section:
    first = next(iter(runs.values()))
    section = Section(
        'precision',
        'Average precision',
        [
            'As COCO computes it, on the validation split. Small objects are below 32 x 32 px, '
            'large ones above 96 x 96 px.'
        ],
    )
    for kind, what in KINDS.items():
        found = {run: one.precision[kind] for run, one in runs.items() if kind in one.precision}
        if not found:
            continue
        section.tables.append(
            comparison_table(f'Of {what}', {run: one.overall for run, one in found.items()}, alone)
        )
        section.tables.append(_class_table(what, found, first.results))
    section.figures.append(
        Figure(
            'precision-recall',
            'Precision over recall, of boxes',
            figures.precision_recall(
                {run: mean_curve(one.precision['bbox'].curves) for run, one in runs.items()}
            ),
            choice=True,
        )
    )
    return section


def curve_data(runs: Mapping[str, DetectionScores]) -> str:
    """Return the curves of every class, for the figure above."""
    classes = next(iter(runs.values())).results.classes
    return figures.curves_as_json(
        {run: one.precision['bbox'].curves for run, one in runs.items()}, classes
    )


def _class_table(what: str, found: Mapping[str, Precision], results: Detections) -> Table:
    objects = np.bincount(results.truth.label[~results.truth.crowd], minlength=len(results.classes))
    tables = [one.by_class for one in found.values()]
    if len(tables) == 1:
        columns = [*COLUMNS, 'AR100']
        cells = [list(map(format_number, line)) for line in tables[0]]
    else:
        columns = [f'{name} {run}' for name in ('AP', 'AP50') for run in found]
        cells = [
            [text for column in (0, 1) for text in format_compared([one[column] for one in lines])]
            for lines in zip(*tables)
        ]
    return Table(
        f'Of {what}, by class',
        ['class', 'objects', *columns],
        [[name, str(count), *line] for name, count, line in zip(results.classes, objects, cells)],
    )


def _mistakes_section(runs: Mapping[str, DetectionScores], alone: bool) -> Section:
    section = Section(
        'mistakes',
        'Mistakes',
        [
            f'Detections from a score of {_format_thresholds(runs)} on, where F1 is best; paired '
            f'with objects from an IoU of {IOU:g} on, first those of the same class, then what is '
            'left of both, whatever its class.'
        ],
    )
    classes = next(iter(runs.values())).results.classes
    rows, columns = [*classes, '(nothing there)'], [*classes, '(missed)']
    tables = {run: confusion_matrix(one.results, one.matches) for run, one in runs.items()}
    section.tables += [
        _counts_table(runs, alone),
        confused_pairs(
            tables, classes, 'Classes taken for others, and the share of their objects', alone
        ),
    ]
    section.figures += confusion_figures(tables, rows, columns, 'objects')
    return section


def _format_thresholds(runs: Mapping[str, DetectionScores]) -> str:
    scores = [f'{one.matches.score:.2f}' for one in runs.values()]
    return (
        scores[0]
        if len(scores) == 1
        else ', '.join(f'{score} ({run})' for run, score in zip(runs, scores))
    )


def _counts_table(runs: Mapping[str, DetectionScores], alone: bool) -> Table:
    rows: dict[str, list[str]] = {}
    for one in runs.values():
        results, matches = one.results, one.matches
        objects = int((~results.truth.crowd).sum())
        lost, wrong = int(find_missed(results, matches).sum()), int(find_false(matches).sum())
        for name, value in (
            ('images', len(results.pictures)),
            ('objects', objects),
            ('found', objects - lost),
            ('missed', lost),
            ('false detections', wrong),
        ):
            rows.setdefault(name, []).append(str(value))
    return Table(
        'Counts',
        ['', *column_titles(runs, 'count', alone)],
        [[name, *cells] for name, cells in rows.items()],
    )


def _histogram_section(runs: Mapping[str, DetectionScores]) -> Section:
    scores, sizes = {}, {}
    for run, one in runs.items():
        found, judged = one.results.found, one.matches.judged
        right, shown = one.matches.partner >= 0, one.matches.shown
        scores[run] = found.score[right], found.score[~right & judged]
        sides = _box_sides(found.box)
        sizes[run] = sides[right & shown], sides[~right & shown]
    truth = next(iter(runs.values())).results.truth
    return Section(
        'histograms',
        'Scores and sizes',
        figures=[
            Figure(
                'score-histogram',
                'Scores of right and false detections',
                figures.score_histogram(scores),
                f'Of all detections; right from an IoU of {IOU:g} on.',
            ),
            Figure(
                'size-histogram',
                'Sizes of boxes',
                figures.size_histogram(sizes, _box_sides(truth.box[~truth.crowd])),
                f'Of detections from a score of {_format_thresholds(runs)} on. 32 and 96 px part '
                'small, medium and large.',
            ),
        ],
    )


def _box_sides(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1))


def list_cases(one: DetectionScores) -> dict[str, list[Case]]:
    """Return all cases that could be shown."""
    return list_object_cases(one.results, one.matches)


def draw_cases(
    one: DetectionScores, cases: Sequence[Case]
) -> tuple[list[gallery.GalleryItem], int]:
    """Draw some of them; return the pictures, and how many images could not be read."""
    return gallery.draw_object_cases(one.results, one.matches, cases)


GALLERY = (
    'At the left what is there, at the right what was detected, around the object that a picture '
    'is about. Best and worst are by score times IoU, missed objects by size, false detections by '
    'score.'
)
