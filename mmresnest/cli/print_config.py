"""``mmresnest print-config``."""

from __future__ import annotations

import argparse

from ..config.options import PrintOptions
from .arguments import Command, Parser, add_arguments, add_config, read_options
from .printing import show


def add_print_config_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_arguments(parser, PrintOptions)


def run_print_config(args: argparse.Namespace) -> int:
    """Print the config."""
    from ..engine.prepare import configure

    show(configure(args.config, read_options(args, PrintOptions)).pretty_text)
    return 0


COMMAND = Command(add_print_config_arguments, run_print_config)
