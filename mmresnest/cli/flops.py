"""``mmresnest flops``."""

from __future__ import annotations

import argparse
import json

from .arguments import Command, Parser, add_arch, add_cfg_options, add_config, parse_cfg_options


def add_flops_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_arch(parser)
    add_cfg_options(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='of the image, in pixels (default: 800 1344 for detectors, 512 1024 on Cityscapes, '
        '512 512 on ADE20K)',
    )
    parser.add_argument(
        '--json',
        action='store_true',
        help='print the numbers as json, of every part, in parameters and MACs',
    )


def run_flops(args: argparse.Namespace) -> int:
    """Count, and print a table."""
    from ..analysis.flops import complexity

    found = complexity(
        args.config,
        arch=args.arch,
        shape=args.shape and tuple(args.shape),
        options=parse_cfg_options(args.cfg_options),
    )
    summary = found.summary()
    if args.json:
        parts = dict(params=found.params, macs=found.macs)
        print(
            json.dumps(
                dict(summary, shape=found.shape, regions=found.counted_regions(), parts=parts)
            )
        )
        return 0
    print('{:9}{:>13}{:>10}{:>11}'.format('', 'parameters M', 'MACs G', 'FLOPs G'))
    for part, params in summary['params'].items():
        macs = summary['macs'][part]
        print(f'{part:9}{params / 1e6:13.2f}{macs / 1e9:10.2f}{2 * macs / 1e9:11.2f}')
    print(
        'for one image of {} x {}; a multiply-add (MAC) is two FLOPs; convolutions and matrix '
        'products are counted'.format(*found.shape)
    )
    for part, number in found.counted_regions().items():
        print(f'{part}: counted on {number} regions')
    return 0


COMMAND = Command(add_flops_arguments, run_flops)
