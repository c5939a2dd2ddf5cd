"""pycocotools' evaluation with the slow steps by faster-coco-eval.

Of faster-coco-eval only matching and accumulation are used. What is summed up of them is left to
pycocotools, whose mAP counts 100 detections an image where mmdet allows for 1000;
faster-coco-eval's counts all.
"""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any


@cache
def faster_cocoeval_class() -> type:
    """Return pycocotools' ``COCOeval`` with the two slow steps replaced."""
    from faster_coco_eval import COCOeval_faster
    from pycocotools.cocoeval import COCOeval

    class FasterCOCOeval(COCOeval):
        """``evaluate`` computes all; ``accumulate`` has it at hand."""

        def evaluate(self) -> None:
            """Match and accumulate, on a copy of the truth: derived values are noted there."""
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
            """Take over precision, recall and scores."""
            self.eval = self.found

    return FasterCOCOeval
