"""``mmresnest profile``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import UserError
from .arguments import Command, Parser, add_arch, add_cfg_options, add_config, parse_cfg_options
from .measuring import add_measuring, prepare_measuring, print_progress


def add_profile_arguments(parser: Parser) -> None:
    """Add the arguments."""
    add_config(parser)
    add_arch(parser)
    add_cfg_options(parser)
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='a folder in COCO or ADE20K layout (default: the embedded data set, drawn if need be)',
    )
    parser.add_argument(
        '--modes',
        nargs='+',
        metavar='MODE',
        default=['training', 'inference'],
        help='training, inference (default: both)',
    )
    parser.add_argument(
        '--steps', type=int, default=3, metavar='N', help='that are counted (default: 3)'
    )
    parser.add_argument(
        '--batch',
        type=int,
        metavar='N',
        help='images of a training step (default: those of the config)',
    )
    parser.add_argument(
        '--workers',
        nargs='+',
        type=int,
        default=[0],
        metavar='N',
        help='processes that read images: with some, reading is the time that a step waits for '
        'them; each number is measured (default: 0)',
    )
    parser.add_argument(
        '--loading',
        type=int,
        metavar='IMAGES',
        help='show instead where the processor time of reading that many images goes',
    )
    add_measuring(parser)
    parser.add_argument('--json', metavar='FILE', help='write the figures')


def run_profile(args: argparse.Namespace) -> int:
    """Time the steps, and print a table for each mode."""
    from ..analysis import loading, profile

    prepare_measuring(args)
    profile.check_arguments(args.modes, args.steps)
    options = parse_cfg_options(args.cfg_options)
    if args.batch is not None:
        if args.batch < 1:
            raise UserError(f'--batch {args.batch}: at least 1 is needed', code='option.value')
        options['train_dataloader.batch_size'] = args.batch
    if min(args.workers) < 0:
        raise UserError(f'--workers {min(args.workers)}: at least 0 is needed', code='option.value')
    found: list[Any] = []
    if args.loading is not None:
        for mode in args.modes:
            times = loading.measure_loading(
                args.config, args.data, mode, args.loading, options, args.arch
            )
            found.append(times)
            print(loading.format_table(times), flush=True)
    else:
        for mode, workers in product(args.modes, args.workers):
            found.append(
                profile.profile(
                    args.config,
                    arch=args.arch,
                    data=args.data,
                    mode=mode,
                    steps=args.steps,
                    options=options,
                    workers=workers,
                    say=print_progress,
                )
            )
            print(profile.format_table(found[-1]), flush=True)
    if args.json is not None:
        Path(args.json).write_text(
            json.dumps([asdict(one) for one in found], indent=2), encoding='utf-8'
        )
        print(f'written: {args.json}')
    return 0


COMMAND = Command(add_profile_arguments, run_profile)
