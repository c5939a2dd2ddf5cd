"""The scores of a report: COCO's average precision with its curves, and IoU of label maps."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from .coco_eval import faster_cocoeval_class
from .predictions import Detections, LabelMaps, Objects

SIZES = ('all', 'small', 'medium', 'large')
RECALLS = np.linspace(0, 1, 101)


class Precision(NamedTuple):
    """COCO's precisions: nan where there is no truth to be found.

    ``overall``, by the names that COCO's table has; ``by_class`` K 7: AP, AP50, AP75, small,
    medium, large, and average recall; ``curves`` 2 K 101: precision over recall at IoU .5 and .75.
    """

    overall: dict[str, float]
    by_class: np.ndarray
    curves: np.ndarray


#: column -> IoU (None: mean over all), size of objects
COLUMNS: dict[str, tuple[float | None, str]] = {
    'AP': (None, 'all'),
    'AP50': (0.5, 'all'),
    'AP75': (0.75, 'all'),
    'AP small': (None, 'small'),
    'AP medium': (None, 'medium'),
    'AP large': (None, 'large'),
}


def coco_precision(results: Detections, kind: str = 'bbox') -> Precision:
    """Return COCO's scores of boxes (``bbox``) or masks (``segm``)."""
    with redirect_stdout(io.StringIO()):  # pycocotools tells its progress
        evaluation = _run_cocoeval(results, kind)
    precision = evaluation.eval['precision'][..., -1]  # T R K A
    recall = evaluation.eval['recall'][:, :, 0, -1]  # T K
    ious = list(evaluation.params.iouThrs.round(2))
    columns = []
    for iou, size in COLUMNS.values():
        chosen = precision[..., SIZES.index(size)]
        chosen = chosen if iou is None else chosen[[ious.index(iou)]]
        columns.append(_mean_over(chosen, (0, 1)))
    columns.append(_mean_over(recall, (0,)))
    by_class = np.stack(columns, axis=1)
    overall = dict(zip((*COLUMNS, 'AR100'), map(_nan_mean, by_class.T)))
    picked = precision[[ious.index(0.5), ious.index(0.75)], :, :, 0]
    curves = np.where(picked < 0, np.nan, picked).transpose(0, 2, 1)
    return Precision(overall, by_class, curves)


def _mean_over(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return means of what is not -1, which is COCO's word for nothing to be found."""
    there = values >= 0
    sums = np.where(there, values, 0).sum(axis=axes)
    numbers = there.sum(axis=axes)
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)


def _nan_mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')


def mean_curve(curves: np.ndarray) -> np.ndarray:
    """Return 2 101: precision over recall, the mean over the classes that have any truth."""
    return _mean_over(np.nan_to_num(curves, nan=-1), (1,))


def _run_cocoeval(results: Detections, kind: str) -> Any:
    from pycocotools.cocoeval import COCOeval

    evaluator: Callable[..., Any] = (
        faster_cocoeval_class() if find_spec('faster_coco_eval') is not None else COCOeval
    )
    evaluation = evaluator(
        _to_coco(results, results.truth, kind), _to_coco(results, results.found, kind), kind
    )
    # The order of the classes, and those too that nothing in the file is of.
    evaluation.params.catIds = list(range(len(results.classes)))
    evaluation.params.imgIds = list(range(len(results.pictures)))
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _to_coco(results: Detections, objects: Objects, kind: str) -> Any:
    """Return objects as pycocotools holds them; ids begin with 1, since 0 means unmatched there."""
    from pycocotools.coco import COCO

    corners, sides = objects.box[:, :2], objects.box[:, 2:] - objects.box[:, :2]
    boxes = np.concatenate([corners, sides], axis=1).tolist()
    area = objects.area
    if kind == 'segm' and objects is results.found:
        from pycocotools import mask

        area = mask.area(objects.masks or [])
    columns = zip(
        objects.picture.tolist(),
        objects.label.tolist(),
        boxes,
        objects.score.tolist(),
        np.asarray(area, float).tolist(),
        objects.crowd.tolist(),
    )
    rows = [
        dict(
            id=number,
            image_id=picture,
            category_id=label,
            bbox=box,
            score=score,
            area=area,
            iscrowd=int(crowd),
        )
        for number, (picture, label, box, score, area, crowd) in enumerate(columns, 1)
    ]
    if kind == 'segm':
        for row, mask in zip(rows, objects.masks or ()):
            row['segmentation'] = mask
    api = COCO()
    api.dataset = dict(
        images=[
            dict(id=number, width=one.width, height=one.height)
            for number, one in enumerate(results.pictures)
        ],
        categories=[dict(id=number, name=name) for number, name in enumerate(results.classes)],
        annotations=rows,
    )
    api.createIndex()
    return api


class Overlap(NamedTuple):
    """Scores of label maps by class, from 0 to 1; nan where a class is nowhere."""

    iou: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    share: np.ndarray  # of all counted pixels
    accuracy: float


def label_overlap(results: LabelMaps) -> Overlap:
    """Return IoU and what goes with it, from all pixels of the split."""
    right = np.diag(results.pixels).astype(float)
    there, said = results.pixels.sum(axis=1), results.pixels.sum(axis=0)[:-1]
    total = max(float(there.sum()), 1.0)

    def divide_hits(part: np.ndarray) -> np.ndarray:
        return np.where(part > 0, right / np.maximum(part, 1), np.nan)

    return Overlap(
        divide_hits(there + said - right),
        divide_hits(there),
        divide_hits(said),
        there / total,
        float(right.sum()) / total,
    )


def class_mean(values: np.ndarray) -> float:
    """Return the mean over the classes that are anywhere."""
    return _nan_mean(values)
