"""Put into a config what every run should have: safe hooks and loops, metrics, loggers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from ..errors import UserError, nearest
from .inspect import type_of

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


BACKENDS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'WandbVisBackend',
    'mlflow': 'MLflowVisBackend',
}
"""Package, and extra of ours -> mmengine's type."""
LOCAL = 'LocalVisBackend'
"""What writes the scalars that curves and reports are made from."""
HOOK = 'live'
"""The key of default_hooks that has the pictures."""


def settle_live(cfg: Config, live: Sequence[str] = ()) -> None:
    """Adds backends to a config, and has those that are live get pictures, too.

    Where the config has mmengine's type, ours takes its place.

    Args:
        cfg: changed in place.
        live: of ``BACKENDS``, which to add to those that the config has.

    Raises:
        UserError: one of them is unknown, or its package is not installed.
    """
    for name in live:
        if name not in BACKENDS:
            raise UserError(f'--live {name}: there is no such backend; {nearest(name, BACKENDS)}')
    given = _backends(cfg)
    there = [_short(one) for one in given]
    given += [
        dict(type=kind)
        for kind in (BACKENDS[name] for name in dict.fromkeys(live))
        if kind not in there
    ]
    packages = [name for name, kind in BACKENDS.items() if kind in map(_short, given)]
    if not packages:
        return
    _check_installed(packages, cfg)
    for one in given:
        if _short(one) in BACKENDS.values():
            one['type'] = f'mmresnest.{_short(one)}'
    cfg.visualizer = {'type': 'Visualizer', **(cfg.get('visualizer') or {}), 'vis_backends': given}
    hooks = dict(cfg.get('default_hooks') or {})
    pictures = hooks.pop(HOOK, {})
    if pictures is not None:  # mmengine lets nothing but its own be None
        hooks[HOOK] = {'type': 'mmresnest.LivePictures', **pictures}
    cfg.default_hooks = hooks


def without_live(cfg: Config) -> None:
    """Has a config write nowhere but into its work folder."""
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type=LOCAL)]


def _backends(cfg: Config) -> list[dict[str, Any]]:
    """The backends of a config; mmengine's own where it names none."""
    given = (cfg.get('visualizer') or {}).get('vis_backends')
    given = given if given is not None else [dict(type=LOCAL)]
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _short(backend: Mapping[str, Any]) -> str:
    """The name of a backend's type, if it may be one of those here."""
    kind = backend.get('type')
    if isinstance(kind, type):  # as new-style configs have it
        return kind.__name__ if kind.__module__.startswith('mmengine.') else ''
    return str(kind).removeprefix('mmengine.').removeprefix('mmresnest.')


def _check_installed(packages: Sequence[str], cfg: Config) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f'--live, or the visualizer of {cfg.filename or "the config"}, asks for '
            f'{" and ".join(missing)}, which is not installed: pip install '
            f'"mmresnest[{",".join(missing)}]", or leave it out'
        )


#: name in default_hooks -> the hook; where a config has the key, as None too, it is as it says
HOOKS = {
    'signals': 'mmresnest.StopOnSignal',
    'numbers': 'mmresnest.CheckNumbers',
    'images': 'mmresnest.SkipBadImages',
}
#: types of mmengine -> ours, which takes the same arguments
TYPES = {
    name: f'mmresnest.{name}'
    for name in ('CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop')
}


def settle_safety(cfg: Config) -> None:
    """Puts our loop, checkpoint hook and further hooks in place, where the config has mmengine's.

    Args:
        cfg: changed in place.
    """
    # mmengine's setdefault keeps a copy and returns what it was given.
    cfg.setdefault('default_hooks', {})
    hooks = cfg.default_hooks
    for name, kind in HOOKS.items():
        if name not in hooks:
            hooks[name] = dict(type=kind)
        elif hooks[name] is None:  # mmengine lets nothing but its own be None
            del hooks[name]
    hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    checkpoint = hooks['checkpoint']
    loop: Any = cfg.get('train_cfg') or {}
    if 'type' not in loop and 'by_epoch' in loop:
        loop['type'] = f'{"Epoch" if loop.pop("by_epoch") else "Iter"}BasedTrainLoop'
    for part in (checkpoint, loop):
        kind = (part or {}).get('type', '')
        if isinstance(kind, type) and kind.__module__.startswith('mmengine.'):
            kind = kind.__name__  # as new-style configs have it
        kind = str(kind).removeprefix('mmengine.')
        if kind in TYPES:
            part['type'] = TYPES[kind]
