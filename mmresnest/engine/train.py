"""Training, as one function."""

from __future__ import annotations

import copy
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from ..report.progress import on_terminal
from . import checkpoints, processes
from .annotations import check_annotations
from .building import build_runner, building, check_compiler, compile_parts, running
from .config import (
    KINDS,
    check_paths,
    from_scratch,
    load_config,
    merge,
    register,
    settle_loaders,
    settle_norms,
    task_of,
    use_data,
)
from .hooks import LastScores
from .live import settle_live
from .metrics import settle_evaluators
from .progress import ProgressBar
from .safety import TYPES, settle_safety
from .signals import StopOnSignal
from .strategies import OURS, settle_strategy, strategy_of, whole_model


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        work_dir: the folder of checkpoints, logs and the config as it was run.
        metrics: scores on the validation split after the last step; empty if there is none.
        seconds: wall time of the whole call.
        checkpoint: the last checkpoint written, if any.
        pictures: pictures drawn at the end, if asked for.
        report: the page with all of it, if it was asked for and could be made.
    """

    work_dir: Path
    metrics: dict[str, float]
    seconds: float
    checkpoint: Path | None = None
    pictures: list[Path] = field(default_factory=list)
    report: Path | None = None


def train(
    config: str | os.PathLike | Config,
    *,
    work_dir: str | os.PathLike | None = None,
    amp: bool = False,
    resume: str | None = None,
    auto_scale_lr: bool = False,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    data: str | os.PathLike | None = None,
    demo: bool = False,
    scratch: bool = False,
    seed: int | None = None,
    deterministic: bool = False,
    compile: bool = False,
    fast_eval: bool = False,
    accept_changes: bool = False,
    live: Sequence[str] = (),
    progress: bool = True,
) -> TrainResult:
    """Trains the model of a config and scores it on the validation split.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        work_dir: where checkpoints and logs go; by default the config's ``work_dir``, or
            ``work_dirs/<name of the config>``.
        amp: automatic mixed precision; float16 with loss scaling on a GPU, bfloat16 on a CPU and
            where ``mmresnest.FSDPStrategy`` divides the model.
        resume: a checkpoint to go on from; ``'auto'`` for the last whole one in ``work_dir``;
            ``'if-any'`` for that one, or from the beginning if there is none.
        accept_changes: go on though number of processes, batch size or data are others than those
            of the checkpoint.
        auto_scale_lr: scale the learning rate by the batch size over the config's base batch size.
        options: settings to override, dotted names to values; after ``data`` and ``demo``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``: who started the processes.
        data: a folder in COCO or ADE20K layout to train on instead of the config's data.
        demo: train at a size and schedule for a laptop's CPU, on the embedded data set unless
            ``data`` is given; from random weights.
        scratch: start from random weights: fetch none, freeze nothing.
        seed: for everything random.
        deterministic: use deterministic algorithms only.
        compile: have ``torch.compile`` compile backbone and neck, once for all image sizes.
        fast_eval: compute COCO's scores by faster-coco-eval, see :mod:`mmresnest.engine.metrics`.
        live: where the run can be watched as it goes: of ``'tensorboard'``, ``'wandb'`` and
            ``'mlflow'``, see :mod:`mmresnest.engine.live`.
        progress: show a bar, where stdout and stderr are a terminal.

    Returns:
        scores, files and wall time.

    Raises:
        UserError: if config, data or checkpoint cannot be used; before the first step, where
            that can be known.
        Stopped: a signal ended the training, whose state is saved; a ``SystemExit``.
    """
    start = time.monotonic()
    with processes.started(launcher):
        cfg = prepare(
            config,
            ('train', 'val'),
            work_dir=work_dir,
            resume=resume,
            options=options,
            launcher=launcher,
            data=data,
            demo=demo,
            scratch=scratch,
            fast_eval=fast_eval,
            compile=compile,
            live=live,
        )
        cfg.command = _command()
        if accept_changes:
            _accept_changes(cfg)
        if seed is not None or deterministic:
            cfg.randomness = {**cfg.get('randomness', {}), 'deterministic': deterministic}
            if seed is not None:
                cfg.randomness.seed = seed
        if amp:
            _use_amp(cfg)
        if auto_scale_lr:
            _use_scaled_rate(cfg)
        settle_strategy(cfg)
        from .report import report_at_end  # it uses what stands here

        shown = demo or data is not None
        runner, scores, collector = _run(cfg, compile, progress, collected=shown)
        pictures = _pictures(runner) if shown else []
        page = report_at_end(runner, collector) if collector is not None else None
        folder = Path(runner.work_dir)
        return TrainResult(
            folder,
            plain(scores.metrics),
            time.monotonic() - start,
            checkpoints.last(folder),
            pictures,
            page,
        )


def _run(
    cfg: Config, compile: bool, progress: bool = False, collected: bool = False
) -> tuple[Any, LastScores, Any]:
    """Builds a runner, and trains.

    Returns:
        the runner, its scores, and what the last validation predicted, if it is to be collected.
    """
    from .report import collect_at_end

    with building(cfg):
        runner = build_runner(cfg)
        if compile:
            compile_parts(runner.model)
        scores = LastScores()
        runner.register_hook(scores)
        watch(runner, progress)
        # The loops are built here rather than in runner.train(), so that data that cannot be used
        # is reported as such and not as a failure of the run.
        loops = runner.train_loop, runner.val_loop
    collector = collect_at_end(*loops) if collected else None
    with running(cfg), released(runner):
        runner.train()
    return runner, scores, collector


def watch(runner: Any, progress: bool) -> None:
    """Shows a bar to whoever may be watching; elsewhere not even the list of hooks is another."""
    if (
        progress
        and on_terminal()
        and not any(isinstance(hook, ProgressBar) for hook in runner.hooks)
    ):
        runner.register_hook(ProgressBar())


@contextmanager
def released(runner: Any) -> Iterator[None]:
    """Around a run: whatever ends it, signals, terminal and backends are let go."""
    try:
        yield
    except BaseException:
        # mmengine closes what scores are written to only where all goes well.
        try:
            runner.visualizer.close()
        except Exception as error:  # of a backend; what ended the run is what matters
            runner.logger.warning(f'the visualizer cannot be closed: {error}')
        raise
    finally:
        for hook in runner.hooks:
            if isinstance(hook, (StopOnSignal, ProgressBar)):
                hook.restore()


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
        from .demo import shrink

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
        from .metrics import use_fast_evaluation

        use_fast_evaluation(cfg, 'test' if splits == ('test',) else 'val')
    cfg.launcher = launcher
    if compile:
        check_compiler(cfg)
    check_annotations(cfg, splits)
    processes.settle_wrapper(cfg)
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
    from ..data.shapes import LAYOUTS, STAMP, draw

    folder, first = Path('data') / 'shapes', processes.numbers(launcher)[1] == 0
    drawn = (folder / STAMP).exists()
    return draw(folder, layouts=[layout] if drawn else LAYOUTS, progress=first)


def _command() -> str:
    """The command that runs, for the report."""
    program, *arguments = sys.argv
    path = Path(program)  # `python -m mmresnest` has the name of a file
    name = (
        'mmresnest'
        if (path.parent.name if path.stem == '__main__' else path.stem) == 'mmresnest'
        else program
    )
    return shlex.join([name, *arguments])


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
    from ..report.pictures import write_pictures

    with uncompiled(model):
        return write_pictures(runner, model, runner.val_loop.dataloader.dataset, runner.work_dir)
