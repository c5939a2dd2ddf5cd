"""Which evaluators a run has: ours in the place of mmdet's and mmseg's.

See :mod:`.coco_metric` and :mod:`.iou_metric` for what they do otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from ..errors import UserError
from .config import type_of

OURS = {'mmdet': 'CocoMetric', 'mmseg': 'IoUMetric'}
"""Package -> its metric of which we have a stricter one, by the same name."""

FAST = 'mmresnest.FastCocoMetric'


def settle_evaluators(cfg: Config) -> None:
    """Puts our metrics in the place of mmdet's ``CocoMetric`` and mmseg's ``IoUMetric``.

    Args:
        cfg: its ``default_scope`` set; changed in place.
    """
    for split in ('val', 'test'):
        for one in _metrics(cfg.get(f'{split}_evaluator')):
            for package, name in OURS.items():
                if _is(cfg, one, package, name):
                    one['type'] = f'mmresnest.{name}'


def use_fast_evaluation(cfg: Config, split: str) -> None:
    """Puts ``FastCocoMetric`` in the place of each ``CocoMetric`` of a config.

    Args:
        cfg: changed in place.
        split: ``val`` or ``test``, whose evaluator is meant.

    Raises:
        UserError: that has none, or faster-coco-eval is not installed.
    """
    if find_spec('faster_coco_eval') is None:
        raise UserError(
            '--fast-eval needs the package faster-coco-eval: pip install '
            '"mmresnest[fast-eval]", or leave --fast-eval out'
        )
    found = [
        one
        for one in _metrics(cfg.get(f'{split}_evaluator'))
        if _is(cfg, one, 'mmdet', 'CocoMetric') or one.get('type') in ('mmresnest.CocoMetric', FAST)
    ]
    for one in found:
        one['type'] = FAST
        one.pop('use_mp_eval', None)
    if not found:
        raise UserError(
            f'--fast-eval: the {split}_evaluator of {cfg.filename or "the config"} is '
            'not CocoMetric, and faster-coco-eval computes scores of boxes and masks '
            'only; leave --fast-eval out'
        )


def _metrics(evaluator: Any) -> Iterator[dict]:
    """The settings of all metrics of an evaluator: one, several, or those that it holds."""
    if isinstance(evaluator, (list, tuple)):
        for one in evaluator:
            yield from _metrics(one)
    elif isinstance(evaluator, dict):
        if 'metrics' in evaluator:
            yield from _metrics(evaluator['metrics'])
        else:
            yield evaluator


def _is(cfg: Config, metric: dict, package: str, name: str) -> bool:
    """Whether a metric is a package's: by full name, by the config's scope, or as the class."""
    type_ = metric.get('type')
    if isinstance(type_, str):
        return type_ == f'{package}.{name}' or (
            type_ == name and cfg.get('default_scope') in (None, package)
        )
    return type_of(metric) == name and type_.__module__.partition('.')[0] == package
