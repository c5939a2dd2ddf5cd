"""What mmdet's ``CocoMetric`` evaluates with, for as long as it does.

Of faster-coco-eval, in the place where it looks for pycocotools' evaluation, only matching and
accumulation are used. What is summed up of them is left to pycocotools, whose mAP counts 100
detections an image where mmdet allows for 1000; faster-coco-eval's counts all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any


@contextmanager
def faster_evaluation() -> Iterator[None]:
    """Has ``CocoMetric`` of mmdet match and accumulate by faster-coco-eval."""
    from mmdet.evaluation.metrics import coco_metric

    before = coco_metric.COCOeval
    coco_metric.COCOeval = faster_coco_eval()
    try:
        yield
    finally:
        coco_metric.COCOeval = before


@contextmanager
def evaluation_of_nothing() -> Iterator[None]:
    """Has an empty list of detections be evaluated as it is.

    pycocotools looks at the first one to see what they are, and fails where there is none.
    """
    from mmdet.datasets.api_wrappers import COCO

    theirs = COCO.loadRes

    def load(self: Any, detections: Any) -> Any:
        if not isinstance(detections, list) or detections:
            return theirs(self, detections)
        nothing = type(self)()
        nothing.dataset = dict(self.dataset, annotations=[])
        nothing.createIndex()
        return nothing

    COCO.loadRes = load
    try:
        yield
    finally:
        COCO.loadRes = theirs


@cache
def faster_coco_eval() -> type:
    """Pycocotools' ``COCOeval`` with the two slow steps replaced."""
    from faster_coco_eval import COCOeval_faster
    from pycocotools.cocoeval import COCOeval

    class FasterCOCOeval(COCOeval):
        """``evaluate`` computes all; ``accumulate`` has it at hand."""

        def evaluate(self) -> None:
            """Matches and accumulates, on a copy of the truth: derived values are noted there."""
            truth = copy(self.cocoGt)
            truth.anns = {key: dict(annotation) for key, annotation in self.cocoGt.anns.items()}
            faster = COCOeval_faster(truth, self.cocoDt, self.params.iouType)
            for name in (
                'imgIds',
                'catIds',
                'iouThrs',
                'recThrs',
                'maxDets',
                'areaRng',
                'areaRngLbl',
                'useCats',
            ):
                setattr(faster.params, name, getattr(self.params, name))
            faster.evaluate()
            faster.accumulate()
            self.found = faster.eval

        def accumulate(self, p: Any = None) -> None:
            """Takes over precision, recall and scores."""
            self.eval = self.found

    return FasterCOCOeval
