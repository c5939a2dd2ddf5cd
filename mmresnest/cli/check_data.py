"""``mmresnest check-data``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import Command, Parser, add_cfg_options, add_config, parse_cfg_options
from .measuring import check_parent
from .printing import show


def add_data(parser: Parser) -> None:
    """Add whose data are looked at."""
    add_config(parser)
    add_cfg_options(parser)
    parser.add_argument(
        '--data',
        metavar='DIR',
        help="a folder of any format, as in train, instead of the config's data",
    )
    parser.add_argument(
        '--format',
        dest='data_format',
        metavar='FORMAT',
        help='the format of --data, where it can be read in several',
    )
    parser.add_argument(
        '--mask-values',
        metavar='VALUE=NAME,...',
        help='what the values or colors of its masks stand for, as in train',
    )
    parser.add_argument(
        '--demo',
        action='store_true',
        help='the embedded data set, drawn if need be, unless --data is given',
    )


def add_check_data_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_data(parser)
    parser.add_argument(
        '--split',
        nargs='+',
        metavar='SPLIT',
        default=['train', 'val', 'test'],
        help='of train, val, test (default: all); a share, such as 0.2, makes a validation part, '
        'as in train',
    )
    parser.add_argument(
        '--all',
        action='store_true',
        help='read every image instead of 128 of a split, and compare all of them between the '
        'splits',
    )
    parser.add_argument(
        '--fix',
        metavar='OUT',
        help='write corrected annotations: a .json file, or a folder that --data takes, with links '
        'to the images; the original is left alone',
    )
    parser.add_argument('--force', action='store_true', help='replace what --fix finds there')
    parser.add_argument(
        '--report', metavar='FILE', help='also write the findings, as text or as .json'
    )


def run_check_data(args: argparse.Namespace) -> int:
    """Check, and print the findings."""
    from ..analysis.check_data import check_data

    check_parent('--report', args.report)
    splits = [split for split in args.split if not split[:1].isdecimal()]
    share = next((split for split in args.split if split[:1].isdecimal()), None)
    report = check_data(
        args.config,
        data=args.data,
        mask_values=args.mask_values,
        data_format=args.data_format,
        division=share,
        demo=args.demo,
        options=parse_cfg_options(args.cfg_options),
        splits=splits or ['train', 'val', 'test'],
        every=args.all,
        fix=args.fix,
        force=args.force,
    )
    show(report.format_text())
    if args.report is not None:
        as_json = args.report.endswith('.json')
        Path(args.report).write_text(
            json.dumps(report.to_json(), indent=2) if as_json else report.format_text() + '\n',
            encoding='utf-8',
        )
    return int(bool(report.errors))


COMMAND = Command(add_check_data_arguments, run_check_data)
