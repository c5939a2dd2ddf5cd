"""Train, as one function."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config.options import TrainOptions, build_options
from . import checkpoints, distributed
from .fine_tuning import TakeOver
from .hooks.scores import LastMetrics
from .prepare import prepare
from .quiet_start import hide_start, log_threads, report_start
from .report import collect_at_end, report_at_end
from .run_lock import lock_work_dir
from .runner import (
    build_runner,
    compile_parts,
    explain_build_errors,
    explain_run_errors,
    release_on_exit,
    save_memory,
    show_progress,
    to_floats,
)
from .strategies import whole_model


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
    config: str | os.PathLike | Config, options: TrainOptions | None = None, /, **given: Any
) -> TrainResult:
    """Train the model of a config and score it on the validation split.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        options: what is asked for, see :class:`~mmresnest.config.options.TrainOptions`.
        **given: options by keyword, such as ``demo=True``.

    Returns:
        scores, files and wall time.

    Raises:
        UserError: if config, data or checkpoint cannot be used; before the first step, where
            that can be known.
        Stopped: a signal ended the training, whose state is saved; a ``SystemExit``.
    """
    start = time.monotonic()
    options = build_options(TrainOptions, options, given)
    with distributed.process_group(options.launcher), ExitStack() as held:
        cfg = prepare(config, options)
        if distributed.rank_and_world_size(options.launcher)[0] == 0:
            held.enter_context(lock_work_dir(cfg.work_dir))
        for_user = options.demo or options.data is not None
        runner, scores, collector = _run_training(cfg, options, collected=for_user)
        pictures = _draw_pictures(runner) if for_user else []
        page = report_at_end(runner, collector) if collector is not None else None
        folder = Path(runner.work_dir)
        return TrainResult(
            folder,
            to_floats(scores.metrics),
            time.monotonic() - start,
            checkpoints.find_last(folder),
            pictures,
            page,
        )


def _run_training(
    cfg: Config, options: TrainOptions, collected: bool
) -> tuple[Any, LastMetrics, Any]:
    """Build a runner, and train.

    Returns:
        the runner, its scores, and what the last validation predicted, if it is to be collected.
    """
    with explain_build_errors(cfg):
        with hide_start(ends=True) as shown:
            runner = build_runner(cfg)
            log_threads()
        if options.compile:
            compile_parts(runner.model)
        if options.save_memory:
            save_memory(runner.model)
        if options.load_from is not None:
            runner.register_hook(TakeOver(str(cfg.load_from)))
        scores = LastMetrics()
        runner.register_hook(scores)
        show_progress(runner, options.progress)
        # The loops are built here rather than in runner.train(), so that data that cannot be used
        # is reported as such and not as a failure of the run.
        loops = runner.train_loop, runner.val_loop
        report_start(runner, shown)
    collector = collect_at_end(*loops) if collected else None
    with explain_run_errors(cfg), release_on_exit(runner):
        runner.train()
    return runner, scores, collector


def _draw_pictures(runner: Any) -> list[Path]:
    """Draw, on the first process, what the trained model predicts and how it learned."""
    model = None if runner.val_loop is None else whole_model(runner)
    if model is None:
        return []
    from ..deploy import compile_disabled
    from ..visualization.pictures import write_pictures

    with compile_disabled():
        return write_pictures(runner, model, runner.val_loop.dataloader.dataset, runner.work_dir)
