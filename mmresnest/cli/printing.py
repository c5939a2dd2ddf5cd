"""How results are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..utils.text import printable


def show(text: object, **how: Any) -> None:
    """Print a text that may hold names of files, classes or weights, as ``print`` does."""
    print(printable(text), **how)


def is_first_process(launcher: str) -> bool:
    """Return whether this is the process that prints."""
    from ..engine.distributed import rank_and_world_size

    return rank_and_world_size(launcher)[0] == 0


def print_scores(metrics: Mapping[str, float]) -> None:
    """Print a line for each score."""
    for name, value in metrics.items():
        show(f'{name}: {value:.4g}' if isinstance(value, float) else f'{name}: {value}')
    if not metrics:
        print('no scores: the config validates nothing, or nothing was detected')


def print_time(seconds: float) -> None:
    """Print a wall time."""
    minutes, rest = divmod(round(seconds), 60)
    print(f'wall time: {f"{minutes} min {rest} s" if minutes else f"{rest} s"}')


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f'{number} {noun}{"s" * (number != 1)}'
