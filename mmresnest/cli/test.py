"""``mmresnest test``."""

from __future__ import annotations

import argparse
import time

from ..config.options import ExportedTestOptions, TestOptions
from .arguments import (
    Command,
    Parser,
    add_arguments,
    add_checkpoint,
    add_config,
    add_memory,
    add_processes,
    add_run,
    read_options,
)
from .printing import is_first_process, print_scores, print_time, show


def add_test_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    parser.add_argument(
        '--model',
        metavar='FILE',
        help='instead of CHECKPOINT: a file of mmresnest export (CONFIG --model FILE)',
    )
    add_checkpoint(parser)
    _add_options(parser)


def add_run_arguments(parser: Parser) -> None:
    """Add the arguments for a training that has been run."""
    add_run(parser)
    _add_options(parser)


def add_exported_arguments(parser: Parser) -> None:
    """Add the arguments for an exported file."""
    add_config(parser, 'whose data are scored on; or the work folder of a training')
    parser.add_argument(
        '--model',
        metavar='FILE',
        required=True,
        help='an .onnx or .xml that mmresnest export wrote',
    )
    add_arguments(parser, ExportedTestOptions)
    add_memory(parser)


def _add_options(parser: Parser) -> None:
    add_arguments(parser, TestOptions)
    add_processes(parser)


def run_test(args: argparse.Namespace) -> int:
    """Test, and print the scores."""
    start = time.monotonic()
    if getattr(args, 'model', None) is not None:
        from ..inference.scoring import score_exported

        options = read_options(args, ExportedTestOptions)
        print_scores(score_exported(args.model, args.config, options))
        print_time(time.monotonic() - start)
        return 0
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


COMMAND = Command(
    add_test_arguments,
    run_test,
    instead=('--model', add_exported_arguments),
    for_run=add_run_arguments,
)
