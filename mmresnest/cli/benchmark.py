"""``mmresnest benchmark``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from ..errors import UserError
from .arguments import Command, Parser
from .measuring import add_measuring, prepare_measuring, print_progress

ARCHS = ('resnest50', 'res2net50_v1b_26w_4s', 'seresnext50_32x4d')


def add_benchmark_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'archs', nargs='*', metavar='ARCH', help=f'networks (default: {", ".join(ARCHS)})'
    )
    parser.add_argument(
        '--detectors',
        nargs='*',
        metavar='MODEL',
        help='an image through whole models instead: faster-rcnn, mask-rcnn, cascade-rcnn, '
        'retinanet, deeplabv3 (default: all), with one ARCH (default: resnest50); forms are mmdet, '
        'plain, fused, and rounds 3',
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
        metavar='BxHxW',
        help='batch, height and width (default: 2x320x320)',
    )
    parser.add_argument(
        '--modes', nargs='+', metavar='MODE', help='inference, training (default: both)'
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        metavar='DTYPE',
        help='float32, bfloat16, float16: halves by autocast (default: float32)',
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, mps (default: cpu)')
    parser.add_argument('--repeats', type=int, metavar='N', help='rounds (default: 10)')
    add_gpu_check(parser)
    add_measuring(parser)
    parser.add_argument('--json', metavar='FILE', help='write figures and machine')
    parser.add_argument('--plot', metavar='FILE', help='draw them, .png, .svg or .pdf')
    parser.add_argument(
        '--profile',
        metavar='FORM',
        help='show instead where the time of plain, lean or fused goes, per stage and per '
        'operation',
    )


def add_gpu_check(parser: Parser) -> None:
    """Add the one option of the check of a GPU that also stands beside the others."""
    parser.add_argument(
        '--gpu-check',
        metavar='OUT',
        help='instead: check and measure everything on a GPU, within 8 minutes, and write figures '
        'and a page into this new folder; `mmresnest benchmark --gpu-check OUT --help`',
    )


def add_gpu_arguments(parser: Parser) -> None:
    """Add the arguments of the check of a GPU."""
    add_gpu_check(parser)
    parser.add_argument(
        '--toy', action='store_true', help='try the check on the CPU, at sizes that say nothing'
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='images and annotations to train on (default: the embedded data set)',
    )


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read ``BxHxW``."""
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){2}', text):
        raise argparse.ArgumentTypeError(f'{text} is not batch x height x width, as 2x320x320')
    batch, height, width = map(int, text.split('x'))
    return batch, height, width


def run_benchmark(args: argparse.Namespace) -> int:
    """Time the forms, or profile one."""
    if args.gpu_check is not None:
        return run_gpu_check(args)
    from ..analysis import benchmark

    prepare_measuring(args)
    if args.detectors is not None:
        return run_detectors(args)
    args.device = benchmark.choose_device(args.device)
    args.archs = args.archs or list(ARCHS)
    args.sizes = args.sizes or [(2, 320, 320)]
    args.modes = args.modes or ['inference', 'training']
    args.dtypes = args.dtypes or ['float32']
    args.repeats = 10 if args.repeats is None else args.repeats
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


def run_gpu_check(args: argparse.Namespace) -> int:
    """Check a GPU; the status is 1 where something is not equal."""
    from ..analysis.gpu_check import CheckPlan, check_gpu
    from ..analysis.gpu_check.items import BUDGET, TOY_BUDGET

    where = ('cpu', TOY_BUDGET) if args.toy else ('cuda', BUDGET)
    plan = CheckPlan(Path(args.gpu_check), where[0], args.toy, args.data, where[1])
    found = check_gpu(plan, print_progress)
    print(f'written: {plan.out / "gpu_check.md"}, {plan.out / "gpu_check.json"}')
    if found['failed']:
        print(f'{found["failed"]} checks of equality failed, see the page')
    return 1 if found['failed'] else 0


def run_detectors(args: argparse.Namespace) -> int:
    """Time whole models."""
    from ..analysis.benchmark import describe_machine
    from ..analysis.benchmark_models import benchmark_models, format_models, models_as_json

    if args.device != 'cpu':
        raise UserError(
            f'--detectors times models on a CPU, and not on {args.device}; leave --device out',
            code='option.conflict',
        )
    for name in ('modes', 'dtypes', 'plot', 'profile'):
        if getattr(args, name) is not None:
            raise UserError(
                f'--{name} goes with networks, not with --detectors; leave one of them out',
                code='option.conflict',
            )
    for name, given in (('ARCH', args.archs), ('--sizes', args.sizes or ())):
        if len(given) > 1:
            raise UserError(f'--detectors takes one {name} at a time', code='option.conflict')
    rows = benchmark_models(
        args.detectors,
        arch=(args.archs or ['resnest50'])[0],
        forms=args.forms,
        size=args.sizes[0] if args.sizes else None,
        repeats=3 if args.repeats is None else args.repeats,
        say=print_progress,
    )
    print(format_models(rows))
    print(', '.join(f'{name}: {value}' for name, value in describe_machine().items()))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(models_as_json(rows), indent=2), encoding='utf-8')
        print(f'written: {args.json}')
    return 0


COMMAND = Command(
    add_benchmark_arguments, run_benchmark, instead=('--gpu-check', add_gpu_arguments)
)
