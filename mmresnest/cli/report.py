"""``mmresnest report``."""

from __future__ import annotations

import argparse

from .arguments import Command, Parser, add_trust
from .printing import print_time, show


def add_report_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='the work folder of a training, finished or not; or several, to compare them',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='the page to write (default: report.html in the work folder)'
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='the checkpoint to report on (default: the one with the best score, else the newest)',
    )
    parser.add_argument(
        '--common-classes',
        action='store_true',
        help='compare runs of different classes over those that all have',
    )
    parser.add_argument(
        '--safe-config',
        action='store_true',
        help='read the config in the work folder as data: none of its code is executed',
    )
    add_trust(parser)


def run_report(args: argparse.Namespace) -> int:
    """Write the page."""
    from ..engine.report import report

    result = report(
        args.work_dirs, out=args.out, checkpoint=args.checkpoint, common_classes=args.common_classes
    )
    for note in result.notes:
        show(f'note: {note}')
    show(f'written: {result.file} ({result.file.stat().st_size / 1e6:.1f} MB)')
    print_time(result.seconds)
    return 0


COMMAND = Command(add_report_arguments, run_report)
