"""Training, as one function."""

from __future__ import annotations

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

from ..config.hardware import settle_strategy
from ..utils.console import on_terminal
from . import checkpoints, distributed
from .hooks.progress_bar import ProgressBar
from .hooks.scores import LastScores
from .hooks.signals import StopOnSignal
from .prepare import _accept_changes, _pictures, _use_amp, _use_scaled_rate, plain, prepare
from .runner import build_runner, building, compile_parts, running


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
        fast_eval: compute COCO's scores by faster-coco-eval, see :mod:`mmresnest.config.defaults`.
        live: where the run can be watched as it goes: of ``'tensorboard'``, ``'wandb'`` and
            ``'mlflow'``, see :mod:`mmresnest.visualization.backends`.
        progress: show a bar, where stdout and stderr are a terminal.

    Returns:
        scores, files and wall time.

    Raises:
        UserError: if config, data or checkpoint cannot be used; before the first step, where
            that can be known.
        Stopped: a signal ended the training, whose state is saved; a ``SystemExit``.
    """
    start = time.monotonic()
    with distributed.started(launcher):
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
