"""``mmresnest benchmark``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from .arguments import Command, Parser
from .measuring import add_measuring, prepare_measuring, print_progress

ARCHS = ('resnest50', 'res2net50_v1b_26w_4s', 'seresnext50_32x4d')


def add_benchmark_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'archs',
        nargs='*',
        metavar='ARCH',
        default=list(ARCHS),
        help=f'networks (default: {", ".join(ARCHS)})',
    )
    parser.add_argument(
        '--forms',
        nargs='+',
        metavar='FORM',
        help='of mmdet, mmdet-compiled, timm, onnxruntime, openvino, plain, lean, fused, compiled, '
        'fused-compiled, convolutions (default: all); speeds are relative to the first',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=parse_shape,
        default=[(2, 320, 320)],
        metavar='BxHxW',
        help='batch, height and width (default: 2x320x320)',
    )
    parser.add_argument(
        '--modes',
        nargs='+',
        metavar='MODE',
        default=['inference', 'training'],
        help='inference, training (default: both)',
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        metavar='DTYPE',
        default=['float32'],
        help='float32, bfloat16, float16: halves by autocast (default: float32)',
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, mps (default: cpu)')
    parser.add_argument('--repeats', type=int, default=10, metavar='N', help='rounds (default: 10)')
    add_measuring(parser)
    parser.add_argument('--json', metavar='FILE', help='write figures and machine')
    parser.add_argument('--plot', metavar='FILE', help='draw them, .png, .svg or .pdf')
    parser.add_argument(
        '--profile',
        metavar='FORM',
        help='show instead where the time of plain, lean or fused goes, per stage and per '
        'operation',
    )


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read ``BxHxW``."""
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){2}', text):
        raise argparse.ArgumentTypeError(f'{text} is not batch x height x width, as 2x320x320')
    batch, height, width = map(int, text.split('x'))
    return batch, height, width


def run_benchmark(args: argparse.Namespace) -> int:
    """Time the forms, or profile one."""
    from ..analysis import benchmark

    prepare_measuring(args)
    if args.profile is not None:
        for case in [
            benchmark.BenchmarkCase(arch, mode, size, dtype, args.device)
            for arch in args.archs
            for size in args.sizes
            for dtype in args.dtypes
            for mode in args.modes
        ]:
            print(
                ', '.join(map(str, case)), benchmark.profile_form(case, args.profile), '', sep='\n'
            )
        return 0
    rows = benchmark.benchmark(
        args.archs,
        forms=args.forms,
        sizes=args.sizes,
        modes=args.modes,
        dtypes=args.dtypes,
        device=args.device,
        repeats=args.repeats,
        say=print_progress,
    )
    print(benchmark.format_table(rows))
    print(', '.join(f'{name}: {value}' for name, value in benchmark.describe_machine().items()))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(benchmark.as_json(rows), indent=2), encoding='utf-8')
        print(f'written: {args.json}')
    if args.plot is not None:
        benchmark.plot_rows(rows, Path(args.plot))
        print(f'written: {args.plot}')
    return 0


COMMAND = Command(add_benchmark_arguments, run_benchmark)
