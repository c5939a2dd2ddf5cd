"""``mmresnest train``."""

from __future__ import annotations

import argparse

from ..config.options import TrainOptions
from .arguments import (
    Command,
    Parser,
    add_arguments,
    add_config,
    add_processes,
    add_trust,
    read_options,
)
from .printing import is_first_process, print_scores, print_time, show


def add_train_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_arguments(parser, TrainOptions)
    add_processes(parser)
    add_trust(parser)


def run_train(args: argparse.Namespace) -> int:
    """Train, and print what came of it."""
    from ..engine.train import train

    result = train(args.config, read_options(args, TrainOptions))
    if is_first_process(args.launcher):
        print_scores(result.metrics)
        if result.checkpoint is not None:
            show(f'checkpoint: {result.checkpoint}')
        if result.pictures:
            show('pictures: ' + ', '.join(map(str, result.pictures)))
        if result.report is not None:
            show(f'report: {result.report}')
        print_time(result.seconds)
    return 0


COMMAND = Command(add_train_arguments, run_train)
