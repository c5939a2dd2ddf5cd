"""COCO's scores by faster-coco-eval: pycocotools' numbers from code in C++.

    val_evaluator = dict(type='mmresnest.FastCocoMetric', ann_file=..., metric='bbox')

``mmresnest train --fast-eval`` and ``test --fast-eval`` put it in the place of mmdet's
``CocoMetric``, whose arguments it takes. ``tests/test_metrics.py`` compares the two to 1e-6, with
crowds, images without objects and more detections than count.
"""
from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mmdet.evaluation.metrics import CocoMetric
from mmengine.config import Config

from ..compat.evaluation import faster_evaluation
from ..errors import ArgumentError, UserError
from ..registry import METRICS

FAST = 'mmresnest.FastCocoMetric'


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, whose matching and accumulation faster-coco-eval does.

    Args:
        **given: of ``CocoMetric``; but for ``use_mp_eval``, which is pycocotools' own way of
            being faster, and ``metric='proposal_fast'``, which neither of them computes.

    Raises:
        UserError: faster-coco-eval is not installed.
        ArgumentError: ``use_mp_eval``.
    """

    def __init__(self, **given: Any) -> None:
        if find_spec('faster_coco_eval') is None:
            raise UserError('FastCocoMetric needs the package faster-coco-eval: pip install '
                            '"mmresnest[fast-eval]", or evaluate with CocoMetric')
        if given.get('use_mp_eval'):
            raise ArgumentError('FastCocoMetric: use_mp_eval=True is not supported; legal: False, '
                                'one process is faster')
        super().__init__(**given)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores of all results, by name."""
        with faster_evaluation():
            return super().compute_metrics(results)


def use_fast_evaluation(cfg: Config, split: str) -> None:
    """Puts ``FastCocoMetric`` in the place of each ``CocoMetric`` of a config.

    Args:
        cfg: changed in place.
        split: ``val`` or ``test``, whose evaluator is meant.

    Raises:
        UserError: that has none, or faster-coco-eval is not installed.
    """
    if find_spec('faster_coco_eval') is None:
        raise UserError('--fast-eval needs the package faster-coco-eval: pip install '
                        '"mmresnest[fast-eval]", or leave --fast-eval out')
    given = cfg.get(f'{split}_evaluator') or ()
    found = [one for one in ([given] if isinstance(given, dict) else given)
             if one.get('type') in ('CocoMetric', 'mmdet.CocoMetric', FAST)]
    for one in found:
        one['type'] = FAST
        one.pop('use_mp_eval', None)
    if not found:
        raise UserError(f'--fast-eval: the {split}_evaluator of {cfg.filename or "the config"} is '
                        'not CocoMetric, and faster-coco-eval computes scores of boxes and masks '
                        'only; leave --fast-eval out')
