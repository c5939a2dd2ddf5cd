"""``mmresnest test``."""

from __future__ import annotations

import argparse

from ..config.options import TestOptions
from .arguments import (
    Command,
    Parser,
    add_arguments,
    add_checkpoint,
    add_config,
    add_processes,
    add_run,
    read_options,
)
from .printing import is_first_process, print_scores, print_time, show


def add_test_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_checkpoint(parser)
    _add_options(parser)


def add_run_arguments(parser: Parser) -> None:
    """Add the arguments for a training that has been run."""
    add_run(parser)
    _add_options(parser)


def _add_options(parser: Parser) -> None:
    add_arguments(parser, TestOptions)
    add_processes(parser)


def run_test(args: argparse.Namespace) -> int:
    """Test, and print the scores."""
    from ..engine.test import test

    result = test(args.config, args.checkpoint, read_options(args, TestOptions))
    if is_first_process(args.launcher):
        if result.scored:
            print_scores(result.metrics)
        else:
            show('nothing is scored: the test images have no annotations')
        for file in result.files:
            show(f'written: {file}')
        print_time(result.seconds)
    return 0


COMMAND = Command(add_test_arguments, run_test, for_run=add_run_arguments)
