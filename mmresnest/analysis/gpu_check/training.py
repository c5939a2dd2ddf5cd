"""Train a detector in mixed precision for two minutes, as ``mmresnest train --amp`` does.

A short run tells how long a step takes; the long one has as many as fit, under a schedule of that
length, and ends with a validation.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from ...config.demo import DETECTION
from ...config.options import PrintOptions, TrainOptions
from ...data.shapes.dataset import draw_dataset
from ...engine.prepare import configure
from ...engine.train import train
from ...utils.run_logs import read_runs
from .items import CheckPlan, Item, ItemRun
from .steps import shrink_backbone

CONFIG = 'faster_rcnn_resnest50_fpn'
SECONDS = 120.0  # of training, at most
SCORING = 25.0  # seconds for a validation and the start of a run
BATCH, WORKERS = 16, 4
PROBE = 60  # steps
TOY = dict(batch_size=2, workers=0, img_size=64, arch='resnest14')


def list_items(plan: CheckPlan) -> list[Item]:
    """Return the one training."""
    return [Item('faster_rcnn, mixed precision', lambda run: train_detector(plan, run))]


def train_detector(plan: CheckPlan, run: ItemRun) -> dict[str, Any]:
    """Train and validate; return images a second, waiting time and scores."""
    folder = plan.out / 'training'
    data = plan.data
    if data is None:
        sizes: dict[str, Any] = dict(train=8, val=2, test=0, size=(64, 64)) if plan.toy else {}
        data = str(draw_dataset(folder / 'shapes', layouts=['coco'], progress=False, **sizes))
    probe = 2 if plan.toy else PROBE
    pace = run_training(plan, data, folder / 'probe', probe, scored=False)
    values: dict[str, Any] = dict(config=CONFIG, data=plan.data or 'drawn shapes', probe=pace)
    run.note_values(values)
    seconds = min(SECONDS, run.left - 2 * SCORING)
    steps = probe if plan.toy else max(probe, int(seconds / pace['step']))
    start = time.monotonic()
    values['training'] = run_training(plan, data, folder / 'run', steps, scored=True)
    values['seconds'] = time.monotonic() - start
    return values


def run_training(
    plan: CheckPlan, data: str, folder: Path, steps: int, scored: bool
) -> dict[str, Any]:
    """Train for so many steps by the recipe of ``--demo``, and validate at the end if asked to."""
    given: dict[str, Any] = dict(TOY if plan.toy else dict(batch_size=BATCH, workers=WORKERS))
    cfg = configure(CONFIG, PrintOptions(demo=True, data=data, **given))
    interval, warm_up = max(1, min(20, steps // 3)), min(DETECTION.warm_up, steps // 2)
    cfg.train_cfg.update(max_iters=steps, val_interval=steps)
    cfg.param_scheduler[0].update(end=warm_up)
    cfg.param_scheduler[1].update(begin=warm_up, end=steps)
    cfg.default_hooks.logger.interval = interval
    cfg.default_hooks.checkpoint.interval = steps
    cfg.log_processor.window_size = interval
    if plan.toy:
        shrink_backbone(cfg.model)
        cfg.custom_hooks = []  # the statistics of norms are measured by ten steps more
    if not scored:
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    result = train(cfg, TrainOptions(amp=True, work_dir=folder, progress=False))
    for weights in folder.glob('*.pth*'):
        weights.unlink()  # hundreds of MB that nobody asked for
    logged = [step.numbers for log in read_runs(folder) for step in log.steps]
    steady = logged[1:] or logged  # the first steps choose algorithms and start workers
    middle = lambda name: statistics.median(numbers[name] for numbers in steady)
    return dict(
        steps=steps,
        batch=given['batch_size'],
        workers=given['workers'],
        step=middle('time'),
        data_time=middle('data_time'),
        images_per_second=given['batch_size'] / middle('time'),
        memory_mib=max((numbers.get('memory', 0.0) for numbers in logged), default=0.0),
        wrapper=read_wrapper(folder),
        scores=result.metrics,
    )


def read_wrapper(folder: Path) -> str:
    """Return the optimizer wrapper of the config that was run: which mixed precision it was."""
    from mmengine.config import Config

    (path,) = list(folder.glob('*.py'))[:1]
    return str(Config.fromfile(path).optim_wrapper.type)
