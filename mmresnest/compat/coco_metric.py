"""What mmdet's ``CocoMetric`` evaluates with, for as long as it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def use_coco_eval(evaluation: type) -> Iterator[None]:
    """Have ``CocoMetric`` of mmdet match and accumulate by another class than its ``COCOeval``."""
    from mmdet.evaluation.metrics import coco_metric

    before = coco_metric.COCOeval
    coco_metric.COCOeval = evaluation
    try:
        yield
    finally:
        coco_metric.COCOeval = before


@contextmanager
def allow_empty_detections() -> Iterator[None]:
    """Have an empty list of detections be evaluated as it is.

    pycocotools looks at the first one to see what they are, and fails where there is none.
    """
    from mmdet.datasets.api_wrappers import COCO

    theirs = COCO.loadRes

    def load_results(self: Any, detections: Any) -> Any:
        if not isinstance(detections, list) or detections:
            return theirs(self, detections)
        nothing = type(self)()
        nothing.dataset = dict(self.dataset, annotations=[])
        nothing.createIndex()
        return nothing

    COCO.loadRes = load_results
    try:
        yield
    finally:
        COCO.loadRes = theirs
