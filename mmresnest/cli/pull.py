"""``mmresnest pull``."""

from __future__ import annotations

import argparse

from .arguments import Command, Parser
from .printing import show


def add_pull_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument('name', metavar='NAME', help='of the model on the hub, as USER/MODEL')
    parser.add_argument(
        'folder', nargs='?', metavar='DIR', help='a new folder (default: work_dirs/MODEL)'
    )
    parser.add_argument('--revision', metavar='NAME', help='a branch, tag or commit of the model')


def run_pull(args: argparse.Namespace) -> int:
    """Fetch the model."""
    from ..sharing.hub import pull

    folder = pull(args.name, args.folder, revision=args.revision)
    show(f'pulled: {folder}; it stands for a training in all commands, such as')
    show(f'mmresnest predict {folder} IMAGE --safe-config')
    return 0


COMMAND = Command(add_pull_arguments, run_pull)
