"""``mmresnest push``."""

from __future__ import annotations

import argparse

from .arguments import Command, Parser, add_run_checkpoint
from .printing import show


def add_push_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument('work_dir', metavar='WORK_DIR', help='the work folder of a training')
    parser.add_argument('name', metavar='NAME', help='of the model on the hub, as USER/MODEL')
    add_run_checkpoint(parser)
    parser.add_argument(
        '--license', default='', metavar='ID', help='as the hub names it, such as apache-2.0'
    )
    parser.add_argument(
        '--private', action='store_true', help='where the model is new: show it to you alone'
    )
    parser.add_argument(
        '--out', metavar='DIR', help='write what would be uploaded into this folder, and stop'
    )


def run_push(args: argparse.Namespace) -> int:
    """Publish the model."""
    from ..sharing.hub import push

    done = push(
        args.work_dir,
        args.name,
        checkpoint=args.checkpoint,
        license=args.license,
        private=args.private,
        out=args.out,
    )
    for name, size in done.files.items():
        show(f'{name} ({size / 1e6:.1f} MB)')
    show(f'{"written" if args.out else "published"}: {done.address}')
    return 0


COMMAND = Command(add_push_arguments, run_push)
