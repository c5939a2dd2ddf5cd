"""How far a long piece of work is, on stderr: a bar, or lines where nobody watches a terminal."""
from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS = 10        # between two lines


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
        self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


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
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Bar(bar, total)
