"""Show a progress bar of a training or test on a terminal.

    default_hooks = dict(progress=dict(type='mmresnest.ProgressBar'))

``mmresnest train`` and ``test`` have it by themselves.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Mapping, Sequence, Sized
from datetime import timedelta
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger

from ...registry import HOOKS
from ...utils.console import BarState, RunBars, is_terminal
from ...utils.run_logs import main_score
from ..fingerprint import batch_size_of

WINDOW = 50  # steps that pace and time left are computed from


class Pace:
    """How fast steps follow each other."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=WINDOW)
        self.restart()

    def restart(self) -> None:
        """Begin the next step now: what was in between is no part of it."""
        self.last = time.monotonic()

    def step(self) -> None:
        """Note that a step is done."""
        before, self.last = self.last, time.monotonic()
        self.times.append(self.last - before)

    def format_rate(self, left: int, images: float) -> str:
        """Return the time that is left, and images per second."""
        mean = sum(self.times) / len(self.times)
        return f'{timedelta(seconds=round(left * mean))} left, {images / max(mean, 1e-9):.3g} img/s'


@HOOKS.register_module()
class ProgressBar(Hook):
    """Show how far a run is, the time left, images per second, and its last score.

    A validation has a bar of its own, below; its time is not in what is left of the training.  Log
    and output go above.  Where stdout or stderr is no terminal, and on all processes but the first,
    it does nothing.  It looks at no tensor, so that no GPU is waited for.
    """

    priority = 'VERY_LOW'  # behind the log

    def __init__(self) -> None:
        self.bars: RunBars | None = None
        self.training: BarState | None = None
        self.speed = self.score = ''

    def before_train(self, runner: Any) -> None:
        """Show the bar, from the iteration that the run begins with."""
        if not self._open_bars(runner):
            return
        loop = runner.train_loop
        self._note_score(
            {
                name.removeprefix('val/'): scalar.current()  # of a run that is resumed
                for name, scalar in runner.message_hub.log_scalars.items()
                if name.startswith('val/')
            }
        )
        self.pace, self.images = Pace(), (batch_size_of(loop.dataloader) or 1) * get_world_size()
        self._show_training(BarState('training', loop.iter, loop.max_iters))

    def before_train_epoch(self, runner: Any) -> None:
        """Show which epoch it is."""
        loop = runner.train_loop
        if self.training is not None:
            self.pace.restart()
            if loop.max_epochs > 1:
                title = f'epoch {loop.epoch + 1} of {loop.max_epochs}'
                self._show_training(self.training._replace(title=title))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Move the bar by one."""
        if self.training is not None:
            self.pace.step()
            done = runner.train_loop.iter + 1  # the loop counts on behind its hooks
            self.speed = self.pace.format_rate(self.training.total - done, self.images)
            self._show_training(self.training._replace(done=done))

    def after_train(self, runner: Any) -> None:
        """Take the bar away."""
        self.restore()

    def _show_training(self, row: BarState) -> None:
        assert self.bars is not None
        self.training = row._replace(note=', '.join(filter(None, (self.speed, self.score))))
        self.bars.show('training', self.training)

    def before_val(self, runner: Any) -> None:
        """Show a bar for the validation."""
        self._begin_scoring(runner, 'validation', runner.val_dataloader)

    def after_val_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Move the bar by one."""
        self._step_scoring(outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Take the score down."""
        self._note_score(metrics or {})

    def after_val(self, runner: Any) -> None:
        """Take the validation's bar away."""
        self._end_scoring()

    def before_test(self, runner: Any) -> None:
        """Show a bar for the test."""
        self._begin_scoring(runner, 'test', runner.test_dataloader)

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Move the bar by one."""
        self._step_scoring(outputs)

    def after_test(self, runner: Any) -> None:
        """Take the bar away."""
        self._end_scoring()

    def _begin_scoring(self, runner: Any, title: str, loader: Any) -> None:
        if self._open_bars(runner):
            assert self.bars is not None
            self.scoring, self.scoring_pace = BarState(title, 0, len(loader)), Pace()
            self.bars.show('scoring', self.scoring)

    def _step_scoring(self, outputs: Sequence[Any] | None) -> None:
        if self.bars is None:
            return
        self.scoring_pace.step()
        row = self.scoring._replace(done=self.scoring.done + 1)
        images = len(outputs) if isinstance(outputs, Sized) else 1  # of a loop of its own
        said = self.scoring_pace.format_rate(row.total - row.done, images * get_world_size())
        self.scoring = row._replace(note=said if row.done < row.total else 'scoring')
        self.bars.show('scoring', self.scoring)

    def _end_scoring(self) -> None:
        if self.bars is None:
            return
        self.bars.hide('scoring')
        if self.training is None:
            self.restore()
        else:
            self._show_training(self.training)
            self.pace.restart()

    def _open_bars(self, runner: Any) -> bool:
        """Open the bars, if anybody watches; return whether they are open."""
        if self.bars is None and is_main_process() and is_terminal():
            self.bars = RunBars({runner.logger, MMLogger.get_current_instance()})
            atexit.register(self.restore)
        return self.bars is not None

    def restore(self) -> None:
        """Leave the terminal as it was."""
        atexit.unregister(self.restore)
        if self.bars is not None:
            self.bars.close()
        self.bars = self.training = None

    def _note_score(self, metrics: Mapping[str, float]) -> None:
        name = main_score(metrics)
        if name is not None:
            self.score = f'{name.rsplit("/")[-1]} {metrics[name]:.4g}'
