"""What ``benchmark`` and ``profile`` share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import UserError
from .arguments import Parser, add_memory


def add_measuring(parser: Parser) -> None:
    """Add how a measurement runs."""
    parser.add_argument('--threads', type=int, metavar='N', help="of torch (default: torch's own)")
    add_memory(parser)


def prepare_measuring(args: argparse.Namespace) -> None:
    """Make sure that the results can be written, and set the number of threads."""
    for name in ('json', 'plot'):
        check_parent(f'--{name}', getattr(args, name, None))
    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f'--threads {args.threads}: at least 1 is needed', code='option.value')
        import torch

        torch.set_num_threads(args.threads)


def check_parent(option: str, path: str | None) -> None:
    """Make sure that a file can be written where an option says.

    Raises:
        UserError: its folder does not exist.
    """
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise UserError(
            f'{option} {path}: there is no folder {Path(path).absolute().parent}; '
            'make it, or name another',
            code='option.no-folder',
        )


def print_progress(line: str) -> None:
    """Print what is measured, beside the results."""
    print(line, file=sys.stderr)
