"""How far a long piece of work is: bars at the foot of a terminal, or lines where none is."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

SECONDS = 10  # between two lines
REFRESH = 0.2  # seconds between two drawings of a bar, at least
LENGTH = 40  # of a bar, at most


class Bar:
    """A bar of rich.

    Args:
        bar: the ``Progress`` that shows it.
        total: how many steps there are, None if that is not known.
    """

    def __init__(self, bar: Any, total: int | None) -> None:
        self.bar, self.task = bar, bar.add_task('predicting', total=total)

    def step(self) -> None:
        """One more is done."""
        self.bar.advance(self.task)

    def say(self, line: str) -> None:
        """Writes a line above the bar."""
        _print_above(self.bar.console, line)


class Lines:
    """A line now and then.

    Args:
        total: how many steps there are, None if that is not known.
    """

    def __init__(self, total: int | None) -> None:
        self.total, self.done = total, 0
        self.start = self.last = time.monotonic()

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.last >= SECONDS or self.done == self.total:
            self.last = now
            rate = self.done / max(now - self.start, 1e-9)
            self.say(f'{self.done} of {self.total or "?"} images, {rate:.3g} a second')

    def say(self, line: str) -> None:
        """Writes a line."""
        sys.stderr.write(line + '\n')
        sys.stderr.flush()


@contextmanager
def progress(total: int | None) -> Iterator[Bar | Lines]:
    """Shows the progress of a piece of work while it lasts.

    Args:
        total: how many steps there are, None if that is not known.

    Yields:
        what is told of each step.
    """
    if not sys.stderr.isatty():
        yield Lines(total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Bar(bar, total)


def _print_above(console: Any, line: str) -> None:
    """Prints a line as it is, colours of its own included, above what a console keeps at its foot.

    The terminal breaks a long one, so that it is whole where it is copied from.
    """
    from rich.text import Text

    console.print(Text.from_ansi(line), soft_wrap=True)


# ---- a run that logs -----------------------------------------------------------------------------


def on_terminal() -> bool:
    """Whether somebody may be watching: both streams are a terminal that can move its cursor."""
    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get('TERM') != 'dumb'


class Row(NamedTuple):
    """A bar: what it is of, steps that are done and that there are, and what is said behind it."""

    title: str
    done: int
    total: int
    said: str = ''

    def drawn(self, width: int, ink: str) -> tuple[tuple[str, str], ...]:
        """Texts of a line, each with its style; the bar takes what they leave."""
        before, behind = f'{self.title} ', f' {self.done}/{self.total}  {self.said}'
        length = max(min(width - len(before) - len(behind), LENGTH), 0)
        full = length * self.done // max(self.total, 1)
        return ((before, ''), (ink * full, 'green'), (' ' * (length - full), ''), (behind, ''))


class Bars:
    """Bars at the foot of a terminal; all that is printed while they are there goes above them.

    No thread draws them, so that processes can be forked meanwhile, and the cursor is never hidden:
    whatever ends the process leaves a terminal that can be worked with.

    Args:
        loggers: those whose lines go to the terminal.
    """

    def __init__(self, loggers: Iterable[logging.Logger]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.rows: dict[str, Row] = {}
        self.drawn = 0.0
        self.console = Console(file=sys.stdout)
        self.streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self.above = tuple(Above(self, one) for one in self.streams)
        self.handlers = [
            (handler, above)
            for logger in loggers
            for handler in logger.handlers
            for above in self.above
            if isinstance(handler, logging.StreamHandler) and handler.stream is above.stream
        ]
        for handler, above in self.handlers:
            handler.setStream(above)
        self.live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.live.start()
        self.console.show_cursor(True)

    def show(self, key: str, row: Row) -> None:
        """Adds a bar, or says how far it is; it is drawn at its end, and now and then before."""
        new = key not in self.rows
        self.rows[key] = row
        if new or row.done == row.total or time.monotonic() - self.drawn >= REFRESH:
            self._draw()

    def hide(self, key: str) -> None:
        """Takes a bar away."""
        self.rows.pop(key, None)
        self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        self.drawn = time.monotonic()
        ink = '-' if self.console.options.ascii_only else '\u2501'
        lines = [row.drawn(self.console.width - 1, ink) for row in self.rows.values()]
        text = Text('\n', no_wrap=True, overflow='crop').join(
            Text.assemble(*parts, no_wrap=True) for parts in lines
        )
        self.live.update(text, refresh=True)

    def close(self) -> None:
        """Takes all bars away, and gives the streams back."""
        for above in self.above:
            above.end()
        for handler, above in self.handlers:
            handler.setStream(above.stream)
        if sys.stdout is self.above[0]:
            sys.stdout = self.streams[0]
        if sys.stderr is self.above[1]:
            sys.stderr = self.streams[1]
        self.live.stop()


class Above:
    """Stands for a stream while there are bars, and prints its lines above them.

    Processes that were forked meanwhile write to the stream itself.

    Args:
        bars: where they are shown.
        stream: of a terminal.
    """

    def __init__(self, bars: Bars, stream: Any) -> None:
        self.bars: Bars | None = bars
        self.stream = stream
        self.process = os.getpid()
        self.begun = ''

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Prints the lines that are whole now."""
        if self.bars is None or os.getpid() != self.process:
            return self.stream.write(text)
        *lines, self.begun = (self.begun + text).split('\n')
        for line in lines:
            _print_above(self.bars.console, line)
        return len(text)

    def end(self) -> None:
        """Is the stream itself from here on."""
        if self.begun:
            self.write('\n')
        self.bars = None
