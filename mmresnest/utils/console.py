"""Progress of long work: rich's bars at the foot of a terminal, or lines where none is."""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from .text import printable

SECONDS = 10  # between two lines
REFRESH = 0.2  # seconds between two drawings of a bar, at least
LENGTH = 40  # of a bar, at most


class ProgressBar:
    """A task of rich, told of each step.

    Args:
        bars: the ``rich.progress.Progress`` that shows it.
        title: what is done.
        total: how many steps there are, None if that is not known.
    """

    def __init__(self, bars: Any, title: str, total: int | None) -> None:
        self.bars, self.task = bars, bars.add_task(printable(title), total=total)
        self.drawn = time.monotonic()

    def step(self, steps: int = 1) -> None:
        """Add steps that are done."""
        self.bars.advance(self.task, steps)
        if self.bars.finished or time.monotonic() - self.drawn >= REFRESH:
            self.drawn = time.monotonic()
            self.bars.refresh()

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self.bars.console.print(printable(line))


class ProgressLines:
    """A line now and then, where there is no terminal.

    Args:
        total: how many steps there are, None if that is not known.
        quiet: write no lines of progress.
    """

    def __init__(self, total: int | None, quiet: bool = False) -> None:
        self.total, self.quiet, self.done = total, quiet, 0
        self.start = self.last = time.monotonic()

    def step(self, steps: int = 1) -> None:
        """Add steps that are done."""
        self.done += steps
        now = time.monotonic()
        if not self.quiet and (now - self.last >= SECONDS or self.done == self.total):
            self.last = now
            rate = self.done / max(now - self.start, 1e-9)
            self.say(f'{self.done} of {self.total or "?"} images, {rate:.3g} a second')

    def say(self, line: str) -> None:
        """Write a line."""
        sys.stderr.write(printable(line) + '\n')
        sys.stderr.flush()


@contextmanager
def show_progress(
    total: int | None,
    title: str = 'predicting',
    *,
    unit: str = 'images',
    lines: bool = True,
    shown: bool = True,
) -> Iterator[ProgressBar | ProgressLines]:
    """Show the progress of a piece of work on stderr while it lasts.

    Args:
        total: how many steps there are, None if that is not known.
        title: what is done.
        unit: of the steps; ``'bytes'`` are shown as such, with their rate.
        lines: write a line now and then where stderr is no terminal; otherwise nothing.
        shown: show anything at all.

    Yields:
        what is told of each step.
    """
    if not shown or not sys.stderr.isatty():
        yield ProgressLines(total, quiet=not (shown and lines))
        return
    from rich.progress import (
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == 'bytes' else (MofNCompleteColumn(),)
    )
    columns = (
        TextColumn('{task.description}', markup=False),
        _bar_column(),
        *counts,
        TimeRemainingColumn(),
    )
    bars = start_bars(columns, sys.stderr)
    try:
        yield ProgressBar(bars, title, total)
    finally:
        stop_bars(bars)


def _bar_column() -> Any:
    """Return the column of the bar, which takes what the texts leave, up to ``LENGTH``."""
    from rich.progress import BarColumn
    from rich.table import Column

    return BarColumn(None, table_column=Column(max_width=LENGTH))


def start_bars(columns: Iterable[Any], stream: Any) -> Any:
    """Start rich's bars at the foot of a terminal; what is printed goes above them.

    No thread draws them, so that processes can be forked meanwhile, and the cursor is shown:
    whatever kills the process leaves a terminal that can be worked with. Lines are wrapped softly:
    the terminal breaks a long one, so that it is whole where it is copied from.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=stream, soft_wrap=True, markup=False, highlight=False, emoji=False)
    bars = Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    )
    bars.start()
    console.show_cursor(True)
    _drop_bars_in_children(console)
    return bars


def stop_bars(bars: Any) -> None:
    """Take the bars away; a line that was begun is written first, which rich would drop."""
    sys.stdout.flush()
    sys.stderr.flush()
    bars.stop()


def _drop_bars_in_children(console: Any) -> None:
    """Have processes that are forked from here on print without drawing the parent's bars."""
    kept = weakref.ref(console)

    def drop_bars() -> None:
        console = kept()
        if console is not None:
            with suppress(IndexError):  # the bars are closed already
                console.pop_render_hook()

    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=drop_bars)


def is_terminal() -> bool:
    """Return whether somebody may be watching: both streams can move a terminal's cursor."""
    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get('TERM') != 'dumb'


class BarState(NamedTuple):
    """What a bar shows: its title, the steps that are done, their number, and a note behind it."""

    title: str
    done: int
    total: int
    note: str = ''


class RunBars:
    """The bars of a run, and its log above them.

    Args:
        loggers: those whose lines go to the terminal.
    """

    def __init__(self, loggers: Iterable[logging.Logger]) -> None:
        from rich.progress import MofNCompleteColumn, TextColumn

        columns = (
            TextColumn('{task.description}', markup=False),
            _bar_column(),
            MofNCompleteColumn(),
            TextColumn('{task.fields[note]}', markup=False),
        )
        self.tasks: dict[str, Any] = {}
        self.drawn = 0.0
        streams = sys.stdout, sys.stderr
        self.bars = start_bars(columns, sys.stdout)
        # rich stands in for the streams now; a handler of a log still holds the stream itself
        stands_in = dict(zip(streams, (sys.stdout, sys.stderr)))
        self.handlers = [
            (handler, handler.stream)
            for logger in loggers
            for handler in logger.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams
        ]
        for handler, stream in self.handlers:
            handler.setStream(stands_in[stream])

    def show(self, key: str, state: BarState) -> None:
        """Add a bar, or move it; it is drawn when new or full, and now and then between."""
        fields = dict(
            description=state.title, completed=state.done, total=state.total, note=state.note
        )
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(**fields)  # which draws
            return
        drawn = state.done == state.total or time.monotonic() - self.drawn >= REFRESH
        self.bars.update(self.tasks[key], refresh=drawn, **fields)
        if drawn:
            self.drawn = time.monotonic()

    def hide(self, key: str) -> None:
        """Take a bar away."""
        if key in self.tasks:
            self.bars.remove_task(self.tasks.pop(key))
        self.bars.refresh()

    def close(self) -> None:
        """Take all bars away, and give the log its streams back."""
        for handler, stream in self.handlers:
            handler.setStream(stream)
        stop_bars(self.bars)
