"""``mmresnest export``."""

from __future__ import annotations

import argparse

from ..export.options import ExportOptions
from .arguments import (
    Command,
    Parser,
    add_arguments,
    add_checkpoint,
    add_config,
    add_run,
    read_options,
)
from .printing import print_time, show


def add_export_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_checkpoint(parser)
    add_arguments(parser, ExportOptions)


def add_run_arguments(parser: Parser) -> None:
    """Add the arguments for a training that has been run."""
    add_run(parser)
    add_arguments(parser, ExportOptions)


def run_export(args: argparse.Namespace) -> int:
    """Export, and print how the file compares with the model."""
    from ..export.exporter import export

    result = export(
        args.config,
        args.checkpoint,
        read_options(args, ExportOptions),
        say=lambda line: show(line, flush=True),
    )
    for where, found in result.differences.items():
        show(
            f'{where}: '
            + ', '.join(f'{one.what} {one.value:.2g} (at most {one.limit:g})' for one in found)
        )
    for precision, scores in result.scores.items():
        show(f'{precision}: ' + ', '.join(f'{name} {value:.4g}' for name, value in scores.items()))
    show(', '.join(f'{name} {value:.1f} ms' for name, value in result.milliseconds.items()))
    for note in result.notes:
        show(f'note: {note}')
    for file in result.files:
        show(f'written: {file} ({file.stat().st_size / 1e6:.1f} MB)')
    print_time(result.seconds)
    return 0


COMMAND = Command(add_export_arguments, run_export, for_run=add_run_arguments)
