"""``mmresnest sweep``."""

from __future__ import annotations

import argparse

from ..tuning.options import SweepOptions
from .arguments import (
    Command,
    Parser,
    add_arguments,
    add_config,
    add_memory,
    add_trust,
    read_options,
)
from .printing import print_time, show

STOPPED = 75  # as a training that a signal ended: the same command continues


def add_sweep_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_arguments(parser, SweepOptions)
    add_memory(parser)
    add_trust(parser)


def run_sweep(args: argparse.Namespace) -> int:
    """Run the trials, and print the best."""
    from ..tuning.sweep import sweep

    result = sweep(
        args.config, read_options(args, SweepOptions), say=lambda line: show(line, flush=True)
    )
    show(f'table: {result.table}')
    show(f'page: {result.page}')
    if result.best is not None:
        show(f'best: trial {result.best.number} with {result.best.score:.4f}; the same again:')
        show(result.command)
    print_time(result.seconds)
    if result.stopped:
        show(f'ended by {result.stopped} before its last trial; the same command continues')
    return STOPPED if result.stopped == 'a signal' else 0


COMMAND = Command(add_sweep_arguments, run_sweep)
