"""Show a person what a run begins with, in few lines; the rest goes to the log file alone.

mmengine writes the environment, the whole config and the list of hooks to terminal and log file.
Here the terminal gets what our own code says and a summary, until the first line of losses; then
everything. Warnings are held back and come last, in a frame.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.logging import MMLogger, print_log

from ..config.inspect import dataset_configs, iterate_dicts, type_of
from ..utils.text import printable
from ..utils.threads import describe_threads

FRAME = '-' * 80
MARKS = (' - WARNING - ', ' - ERROR - ', ' - CRITICAL - ')
RESUMED = ('resumed ', 'Auto resumed ')  # how mmengine says where a run goes on


class StartFilter(logging.Filter):
    """Let through what belongs to the start of a run, or to its losses.

    Args:
        ends: whether the first line of losses ends the quiet.
    """

    def __init__(self, ends: bool) -> None:
        super().__init__()
        self.ends, self.done, self.holds = ends, False, True
        self.held: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        if self.done:
            return True
        module = _find_source()
        if record.levelno >= logging.WARNING:
            if self.holds:
                self.held.append(record.getMessage())
            return not self.holds
        if module == 'mmengine.hooks.logger_hook':
            self.done = self.ends
            return True
        return module.startswith('mmresnest.') or record.getMessage().startswith(RESUMED)


def _find_source() -> str:
    """Return the module that logs: the first caller that is no part of a logging package."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if name != __name__ and not name.startswith(('logging', 'mmengine.logging')):
            return name
        frame = frame.f_back
    return ''


@contextmanager
def hide_start(ends: bool) -> Iterator[StartFilter]:
    """Keep from the terminal what a runner logs while it is built, and later by a filter.

    The handler that the runner's logger makes for the terminal is made with a stream of ours; its
    file has everything.

    Args:
        ends: see :class:`StartFilter`.

    Yields:
        the filter, which has the warnings.
    """
    before, hidden, shown = set(MMLogger._instance_dict), io.StringIO(), StartFilter(ends)
    terminal = sys.stdout
    try:
        with redirect_stdout(hidden):
            yield shown
    finally:  # also where the runner cannot be built, for what is logged after that
        lines = hidden.getvalue().splitlines()
        shown.held += [line.partition(mark)[2] for line in lines for mark in MARKS if mark in line]
        for name in set(MMLogger._instance_dict) - before:
            for handler in MMLogger._instance_dict[name].handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is hidden:
                    handler.setStream(terminal)
                    handler.addFilter(shown)


def log_threads() -> None:
    """Log the number of threads, and how they wait; where the start is hidden, to the file."""
    print_log(f'threads: {describe_threads(torch.get_num_threads())}', 'current')


def report_start(runner: Any, shown: StartFilter) -> None:
    """Log a summary of a training, then the warnings so far in a frame."""
    for line in describe_training(runner):
        print_log(line, 'current')
    shown.holds = False
    if shown.held and is_main_process():
        lines = [f'warning: {line.strip()[:300]}' for line in dict.fromkeys(shown.held)]
        more = [f'and {len(lines) - 4} more, in the log'] if len(lines) > 5 else []
        lines = lines[: 4 if more else 5] + more
        sys.stderr.write('\n'.join([FRAME, *map(printable, lines), FRAME, '']))


def describe_training(runner: Any) -> Iterator[str]:
    """Yield network, schedule, sizes and the log of a training, a line each."""
    cfg: Config = runner.cfg
    backbone = cfg.model.get('backbone') or {}
    name = backbone.get('arch') or backbone.get('depth') or ''
    init = backbone.get('init_cfg')
    weights = init.get('checkpoint') if isinstance(init, dict) else backbone.get('pretrained')
    source = cfg.get('load_from') or weights or 'random weights'
    yield f'network: {type_of(cfg.model)}, {type_of(backbone)} {name}, from {source}'
    loop, optimizer = runner.train_loop, cfg.optim_wrapper.get('optimizer') or {}
    epochs = cfg.train_cfg.get('max_epochs')
    length = (
        f'{epochs} epochs of {len(loop.dataloader)} iterations'
        if epochs
        else f'{cfg.train_cfg.get("max_iters")} iterations'
    )
    rate = f', {type_of(optimizer)} at {optimizer["lr"]:.3g}' if optimizer.get('lr') else ''
    every = cfg.train_cfg.get('val_interval', 1)
    yield f'schedule: {length}{rate}, validation every {every}'
    sizes = [
        step.get('crop_size') or step.get('scale') or (step.get('scales') or [None])[-1]
        for step in iterate_dicts(dataset_configs(cfg.train_dataloader.dataset)[0].get('pipeline'))
        if step.get('scale') or step.get('scales') or step.get('crop_size')
    ]
    batch = cfg.train_dataloader.get('batch_size') or 1
    size = f'images of {sizes[-1]}, ' if sizes else ''
    yield (
        f'batch: {size}{batch} at once on each of {get_world_size()} processes, '
        f'{torch.get_num_threads()} threads each'
    )
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            yield f'log: {handler.baseFilename}'
