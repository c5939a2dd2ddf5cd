"""What mmdet's ``CocoMetric`` evaluates with, for as long as it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
