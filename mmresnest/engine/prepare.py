"""Prepare a config for a run: everything that happens before the runner is built."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..config import hardware
from ..config.checks import check_annotations
from ..config.defaults import TYPES, settle_evaluators, settle_live, settle_safety
from ..config.hardware import OURS, check_compiler, settle_loaders, settle_norms, strategy_of
from ..config.inspect import register, task_of
from ..config.load import load_config, merge
from ..config.paths import check_paths
from ..config.retarget import KINDS, from_scratch, use_data
from ..errors import UserError
from . import checkpoints, distributed
from .strategies import whole_model


def configure(
    config: str | os.PathLike | Config,
    *,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    data: str | os.PathLike | None = None,
    demo: bool = False,
    scratch: bool = False,
) -> Config:
    """A config with its data and options set; see :func:`train` for the arguments."""
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    if demo or data is not None:
        use_data(cfg, data_for(cfg, data, launcher))
    if demo:
        from ..config.demo import shrink

        shrink(cfg)
    if scratch:
        from_scratch(cfg)
    merge(cfg, options)
    return cfg


def prepare(
    config: str | os.PathLike | Config,
    splits: tuple[str, ...],
    *,
    work_dir: str | os.PathLike | None = None,
    resume: str | None = None,
    launcher: str = 'none',
    demo: bool = False,
    fast_eval: bool = False,
    compile: bool = False,
    live: Sequence[str] = (),
    **more: Any,
) -> Config:
    """Everything between a config's name and a config that can be run.

    What can be wrong is looked at from cheap to dear, and the work folder is made last, so that a
    refused run leaves nothing behind.

    ``splits`` are the parts of the data that will be read; for the rest see :func:`train`.

    Raises:
        UserError: if config, data or checkpoint cannot be used.
    """
    cfg = configure(config, launcher=launcher, demo=demo, **more)
    for split in splits[:1]:
        if cfg.get(f'{split}_dataloader') is None or cfg.get(f'{split}_cfg') is None:
            raise UserError(
                f'the config {cfg.filename or ""} has no {split}_dataloader or '
                f'{split}_cfg: there is nothing to {split}'
            )
    check_paths(cfg, splits)
    name = (Path(cfg.filename).stem if cfg.filename else 'run') + ('_demo' if demo else '')
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', name)
    settle_start(cfg, resume)
    register(cfg)
    settle_safety(cfg)
    settle_evaluators(cfg)
    settle_live(cfg, live)
    if fast_eval:
        from ..config.defaults import use_fast_evaluation

        use_fast_evaluation(cfg, 'test' if splits == ('test',) else 'val')
    cfg.launcher = launcher
    if compile:
        check_compiler(cfg)
    check_annotations(cfg, splits)
    hardware.settle_wrapper(cfg)
    settle_norms(cfg, distributed=launcher != 'none')
    settle_loaders(cfg)
    if cfg.get('visualizer') is not None:
        # mmengine keeps visualizers by name for as long as the process lives, so that a second run
        # would write its curves into the folder of the first.
        cfg.visualizer.name = f'{name}_{time.time_ns()}'
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'the work folder {cfg.work_dir} cannot be made: {error.strerror}; choose '
            'another with --work-dir'
        ) from error
    return cfg


def plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Scores as Python's own numbers; mmseg's are numpy's."""
    return {name: float(value) for name, value in metrics.items()}


def data_for(
    cfg: Config, data: str | os.PathLike | None, launcher: str = 'none'
) -> str | os.PathLike:
    """The folder given, or the embedded data set in the layout of the config's task."""
    return drawn_data(KINDS[task_of(cfg)], launcher) if data is None else data


def drawn_data(layout: str, launcher: str = 'none') -> Path:
    """The embedded data set under ``data/shapes``, drawn if it is not there yet.

    It is drawn in all layouts, and one drawn with fewer serves where it has the one that is needed.
    """
    from ..data.shapes.dataset import LAYOUTS, STAMP, draw

    folder, first = Path('data') / 'shapes', distributed.numbers(launcher)[1] == 0
    drawn = (folder / STAMP).exists()
    return draw(folder, layouts=[layout] if drawn else LAYOUTS, progress=first)


def _use_amp(cfg: Config) -> None:
    import torch

    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            f'--amp replaces the OptimWrapper, and {cfg.filename or "the config"} has '
            f'a {wrapper.type}; set mixed precision there'
        )
    # Scaled losses need all shards of a gradient looked at before any of them is used.
    if torch.cuda.is_available() and strategy_of(cfg) != OURS:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        wrapper.pop('loss_scale', None)
        wrapper.pop('dtype', None)
        from . import amp  # noqa: F401  registers the wrapper

        wrapper.type = 'Bfloat16OptimWrapper'
        print_log('mixed precision: bfloat16, without loss scaling', 'current')


def _accept_changes(cfg: Config) -> None:
    kind = cfg.train_cfg.get('type')
    if kind not in TYPES.values():
        raise UserError(
            f'--accept-changes is of our loops, and train_cfg.type is {kind}; set it '
            'to mmresnest.EpochBasedTrainLoop or mmresnest.IterBasedTrainLoop'
        )
    cfg.train_cfg.accept_changes = True


def _use_scaled_rate(cfg: Config) -> None:
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs the batch size that the learning rate of '
            f'{cfg.filename or "the config"} is meant for: add auto_scale_lr = '
            'dict(base_batch_size=16), or what it is'
        )
    cfg.auto_scale_lr.enable = True


def settle_start(cfg: Config, resume: str | None) -> None:
    """Settles what the run starts from, and looks at the file before anything is built."""
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume in ('auto', 'if-any') else resume
    if cfg.get('resume') and not cfg.get('load_from'):
        _find_last(cfg, needed=resume != 'if-any')
    source = cfg.get('load_from')
    flexible = cfg.get('runner_type') == 'FlexibleRunner'
    if source and '://' not in source and not (flexible and checkpoints.is_sharded(Path(source))):
        content = checkpoints.read(source)
        if cfg.get('resume') and 'optimizer' not in content:
            raise UserError(
                f'{source} holds weights only, and resuming needs the state of the '
                'optimiser too; to start a new run from these weights, give '
                f'--cfg-options load_from={source} without --resume'
            )


def _find_last(cfg: Config, needed: bool) -> None:
    """Has a run go on from the last whole checkpoint of its work folder."""
    folder = Path(cfg.work_dir)
    passed: list[str] = []
    found = checkpoints.last(folder, passed.append)
    for line in passed:
        print_log(line, 'current', logging.WARNING)
    if found is not None:
        print_log(f'goes on from {found}', 'current')
        cfg.load_from = str(found)
    elif passed:
        raise UserError(
            f'nothing to resume in {folder.absolute()}: none of its {len(passed)} '
            f'checkpoints is whole ({passed[0].partition("; ")[0]}); bring one back, '
            'or name another --work-dir to start from the beginning'
        )
    elif needed:
        raise UserError(
            f'nothing to resume in {folder.absolute()}: no checkpoint is there; leave '
            '--resume out to start from the beginning, or name another --work-dir'
        )
    else:
        print_log(
            f'{folder.absolute()} holds no checkpoint: the run starts from the beginning',
            'current',
            logging.WARNING,
        )
        cfg.resume = False


def _pictures(runner: Any) -> list[Path]:
    """Draws, on the first process, what the trained model predicts and how it learned."""
    model = None if runner.val_loop is None else whole_model(runner)
    if model is None:
        return []
    from ..deploy import uncompiled
    from ..visualization.pictures import write_pictures

    with uncompiled(model):
        return write_pictures(runner, model, runner.val_loop.dataloader.dataset, runner.work_dir)
