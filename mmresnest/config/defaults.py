"""Put into a config what every run should have: safe hooks and loops, metrics, loggers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from ..errors import UserError, nearest
from .inspect import type_of
from .load import name_of

OURS = {'mmdet': 'CocoMetric', 'mmseg': 'IoUMetric'}
"""Package -> its metric of which we have a stricter one, by the same name."""

FAST = 'mmresnest.FastCocoMetric'


def configure_evaluators(cfg: Config) -> None:
    """Replace mmdet's ``CocoMetric`` and mmseg's ``IoUMetric`` by ours.

    Args:
        cfg: its ``default_scope`` set; changed in place.
    """
    for split in ('val', 'test'):
        for one in _list_metrics(cfg.get(f'{split}_evaluator')):
            for package, name in OURS.items():
                if _is_metric(cfg, one, package, name):
                    one['type'] = f'mmresnest.{name}'


def use_fast_evaluation(cfg: Config, split: str) -> None:
    """Replace each ``CocoMetric`` of a config by ``FastCocoMetric``.

    Args:
        cfg: changed in place.
        split: ``val`` or ``test``, whose evaluator is meant.

    Raises:
        UserError: that has none, or faster-coco-eval is not installed.
    """
    if find_spec('faster_coco_eval') is None:
        raise UserError(
            '--fast-eval needs the package faster-coco-eval: pip install '
            '"mmresnest[fast-eval]", or leave --fast-eval out',
            code='package.missing',
        )
    found = [
        one
        for one in _list_metrics(cfg.get(f'{split}_evaluator'))
        if _is_metric(cfg, one, 'mmdet', 'CocoMetric')
        or one.get('type') in ('mmresnest.CocoMetric', FAST)
    ]
    for one in found:
        one['type'] = FAST
        one.pop('use_mp_eval', None)
    if not found:
        raise UserError(
            f'--fast-eval: the {split}_evaluator of {name_of(cfg)} is '
            'not CocoMetric, and faster-coco-eval computes scores of boxes and masks '
            'only; leave --fast-eval out',
            code='option.conflict',
        )


def _list_metrics(evaluator: Any) -> Iterator[dict]:
    """Yield the settings of all metrics of an evaluator: one, several, or those that it holds."""
    if isinstance(evaluator, (list, tuple)):
        for one in evaluator:
            yield from _list_metrics(one)
    elif isinstance(evaluator, dict):
        if 'metrics' in evaluator:
            yield from _list_metrics(evaluator['metrics'])
        else:
            yield evaluator


def _is_metric(cfg: Config, metric: dict, package: str, name: str) -> bool:
    """Return whether a metric is a package's: by full name, by scope, or as the class."""
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


def configure_loggers(cfg: Config, live: Sequence[str] | None = ()) -> None:
    """Add logger backends to a config, and have those that are live get images, too.

    A backend of mmengine's is replaced by ours.

    Args:
        cfg: changed in place.
        live: of ``BACKENDS``, which to add to those that the config has.

    Raises:
        UserError: one of them is unknown, or its package is not installed.
    """
    for name in live or ():
        if name not in BACKENDS:
            raise UserError(
                f'--logger {name}: there is no such backend; {nearest(name, BACKENDS)}',
                code='option.unknown',
            )
    given = _list_backends(cfg)
    there = [_backend_name(one) for one in given]
    given += [
        dict(type=kind)
        for kind in (BACKENDS[name] for name in dict.fromkeys(live or ()))
        if kind not in there
    ]
    packages = [name for name, kind in BACKENDS.items() if kind in map(_backend_name, given)]
    if not packages:
        return
    _check_installed(packages, cfg)
    for one in given:
        if _backend_name(one) in BACKENDS.values():
            one['type'] = f'mmresnest.{_backend_name(one)}'
    cfg.visualizer = {'type': 'Visualizer', **(cfg.get('visualizer') or {}), 'vis_backends': given}
    hooks = dict(cfg.get('default_hooks') or {})
    pictures = hooks.pop(HOOK, {})
    if pictures is not None:  # mmengine lets nothing but its own be None
        hooks[HOOK] = {'type': 'mmresnest.LivePictures', **pictures}
    cfg.default_hooks = hooks


def disable_loggers(cfg: Config) -> None:
    """Have a config write nowhere but into its work folder."""
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type=LOCAL)]


def _list_backends(cfg: Config) -> list[dict[str, Any]]:
    """Return the backends of a config; mmengine's own where it names none."""
    given = (cfg.get('visualizer') or {}).get('vis_backends')
    given = given if given is not None else [dict(type=LOCAL)]
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _backend_name(backend: Mapping[str, Any]) -> str:
    """Return the name of a backend's type, if it may be one of those here."""
    kind = backend.get('type')
    if isinstance(kind, type):  # as new-style configs have it
        return kind.__name__ if kind.__module__.startswith('mmengine.') else ''
    return str(kind).removeprefix('mmengine.').removeprefix('mmresnest.')


def _check_installed(packages: Sequence[str], cfg: Config) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f'--logger, or the visualizer of {name_of(cfg)}, asks for '
            f'{" and ".join(missing)}, which is not installed: pip install '
            f'"mmresnest[{",".join(missing)}]", or leave it out',
            code='package.missing',
        )


HOOKS = {
    'signals': 'mmresnest.StopOnSignal',
    'numbers': 'mmresnest.CheckNumbers',
    'images': 'mmresnest.SkipBadImages',
}
"""Name in default_hooks -> the hook. What a config says of a name, also None, is left as it is."""
TYPES = {
    name: f'mmresnest.{name}'
    for name in (
        'CheckpointHook',
        'EpochBasedTrainLoop',
        'IterBasedTrainLoop',
        'ValLoop',
        'TestLoop',
    )
}
"""Types of mmengine -> ours, which takes the same arguments."""
CHECKED = {name: f'mmresnest.Checked{name}' for name in ('OptimWrapper', 'AmpOptimWrapper')}
"""Optimizer wrappers of mmengine -> ours, which the hook CheckNumbers needs."""
WORKER_INIT = 'mmresnest.init_worker'
"""What a worker calls first, so that only the hook StopOnSignal decides when it ends."""


def configure_safety(cfg: Config) -> None:
    """Put in our loops, hooks, optimizer wrappers and worker setup, where the config has
    mmengine's.

    Args:
        cfg: changed in place.
    """
    cfg.setdefault('default_hooks', {})
    hooks = cfg.default_hooks  # ConfigDict.setdefault stores a copy: fetch the stored object
    for name, kind in HOOKS.items():
        if name not in hooks:
            hooks[name] = dict(type=kind)
        elif hooks[name] is None:  # mmengine allows None for its own hooks only
            del hooks[name]
    hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    loop: Any = cfg.get('train_cfg') or {}
    if 'type' not in loop and 'by_epoch' in loop:
        loop['type'] = f'{"Epoch" if loop.pop("by_epoch") else "Iter"}BasedTrainLoop'
    scoring = [cfg.get(f'{stage}_cfg') or {} for stage in ('val', 'test')]
    for part, kind in zip(scoring, ('ValLoop', 'TestLoop')):
        if part:
            part.setdefault('type', kind)
    for part in (hooks['checkpoint'], loop, *scoring):
        _replace_type(part, TYPES)
    wrapper = cfg.get('optim_wrapper') or {}
    if 'optimizer' in wrapper:  # else it holds wrappers, one for each part of the model
        wrapper.setdefault('type', 'OptimWrapper')
        _replace_type(wrapper, CHECKED)
    if 'signals' in hooks:
        for split in ('train', 'val'):
            _shield_workers(cfg.get(f'{split}_dataloader'), hooks['signals'].get('signals'))


def _replace_type(part: Any, types: Mapping[str, str]) -> None:
    """Replace a type of mmengine's by ours, if there is one."""
    kind = (part or {}).get('type', '')
    if isinstance(kind, type) and kind.__module__.startswith('mmengine.'):
        kind = kind.__name__  # as new-style configs have it
    kind = str(kind).removeprefix('mmengine.')
    if kind in types:
        part['type'] = types[kind]


def _shield_workers(loader: Any, signals: Sequence[str] | None) -> None:
    """Have the workers of a loader leave signals to the process that they work for."""
    if not loader or not loader.get('num_workers'):
        return
    inner = loader.get('worker_init_fn')
    if inner is not None and str(inner.get('type')) == WORKER_INIT:
        return
    init: dict[str, Any] = dict(type=WORKER_INIT)
    if signals is not None:
        init['signals'] = tuple(signals)
    if inner is not None:
        init['inner'] = inner
    if 'disable_subprocess_warning' in loader:  # mmengine takes it beside no worker_init_fn
        init['disable_subprocess_warning'] = loader.pop('disable_subprocess_warning')
    loader['worker_init_fn'] = init
