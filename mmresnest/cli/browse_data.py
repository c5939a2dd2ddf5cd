"""``mmresnest browse-data``."""

from __future__ import annotations

import argparse

from .arguments import Command, Parser, parse_cfg_options
from .check_data import add_data
from .printing import show


def add_browse_data_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_data(parser)
    parser.add_argument(
        '--split', default='train', metavar='SPLIT', help='train, val or test (default: train)'
    )
    parser.add_argument(
        '--out', metavar='FILE', help='the .png to write (default: CONFIG_SPLIT.png)'
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=24,
        metavar='N',
        old=['--number'],
        help='how many (default: 24)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation (default: 0)')


def run_browse_data(args: argparse.Namespace) -> int:
    """Draw the images."""
    from ..analysis.browse_data import browse_data

    file = browse_data(
        args.config,
        data=args.data,
        mask_values=args.mask_values,
        data_format=args.data_format,
        demo=args.demo,
        options=parse_cfg_options(args.cfg_options),
        split=args.split,
        out=args.out,
        number=args.num_images,
        seed=args.seed,
    )
    show(f'written: {file}')
    return 0


COMMAND = Command(add_browse_data_arguments, run_browse_data)
