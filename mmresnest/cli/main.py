"""The command line: ``mmresnest COMMAND``, for each of ``COMMANDS`` below.

Parsing imports neither torch nor mmengine, so help is there at once; a command imports what it
needs. What a user can mend ends with one message and status 2, whatever else with its traceback and
status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, close_to, nearest
from ..utils.env import SAFE, TRUST, switched_on
from ..version import __version__

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
SHELLS = ('bash', 'zsh', 'fish', 'tcsh')
LIVE = ('tensorboard', 'wandb', 'mlflow')
FORMATS = ('onnx', 'openvino', 'torch-export', 'torchscript')
PARTS = ('whole', 'neck', 'backbone')

#: packages that a command needs and that pip installs with one of our extras
OPTIONAL = (
    'torch',
    'numpy',
    'mmengine',
    'mmcv',
    'mmdet',
    'mmseg',
    'pycocotools',
    'matplotlib',
    'PIL',
    'cv2',
    'tqdm',
    'rich',
)


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: as it is typed.
        help: one line for the list of commands.
        arguments: adds the arguments to a parser.
        run: does the work and returns the exit status.
        instead: an option with which the command takes other arguments, and what adds these.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    instead: tuple[str, Callable[[argparse.ArgumentParser], None]] | None = None

    def arguments_of(self, argv: Sequence[str]) -> Callable[[argparse.ArgumentParser], None]:
        """What adds the arguments that this command line takes."""
        if (
            self.instead is not None
            and argv[:1] == [self.name]
            and any(word.partition('=')[0] == self.instead[0] for word in argv)
        ):
            return self.instead[1]
        return self.arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        the exit status: 0, 1 for what a doctor or a check finds, 2 for what the user can mend. A
        training that a signal ended leaves by SystemExit, with 75.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(argv)
    args = parser.parse_args(argv)
    if args.run is None:
        parser.error('a COMMAND is missing; --help lists them')
    try:
        with _switch(SAFE, getattr(args, 'safe_config', False)):
            return args.run(args)
    except UserError as error:
        return _refuse(error, args.debug)
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] not in OPTIONAL:
            raise
        missing = UserError(
            f'the package {error.name!r} is not installed: pip install '
            '"mmresnest[onedl]" or pip install "mmresnest[openmmlab]" brings all '
            'that training needs'
        )
        missing.__cause__ = error
        return _refuse(missing, args.debug)
    except KeyboardInterrupt:
        if args.debug:
            raise
        print('mmresnest: interrupted', file=sys.stderr)
        return 130


def _refuse(error: UserError, debug: bool) -> int:
    if debug:
        raise error
    print(f'mmresnest: error: {error}', file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """A parser that names what is nearest to a word it does not know."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses what is unknown by the usage of the command that does not know it."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition('=')[0]
            close = close_to(option, self._option_string_actions) if option[:1] == '-' else []
            hint = f'nearest: {", ".join(close)}' if close else '--help lists all'
            self.error(f'there is no argument {unknown[0]!r} here; {hint}')
        return namespace, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = '/'.join(action.option_strings) or action.metavar or action.dest
            raise argparse.ArgumentError(
                None, f'{name}: there is no {value!r}; {nearest(value, action.choices)}'
            )


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands, in the form that a command line takes."""
    parser = Parser(
        prog='mmresnest',
        description='ResNeSt, Res2Net and SE-ResNeXt in MMDetection and MMSegmentation.',
    )
    parser.add_argument('--version', action='version', version=f'mmresnest {__version__}')
    parser.set_defaults(run=None)  # not required: a mistyped --version would pass for that
    commands = parser.add_subparsers(metavar='COMMAND')
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        sub.add_argument('--debug', action='store_true', help='show the traceback of every error')
        sub.set_defaults(run=command.run)
        command.arguments_of(argv)(sub)
    return parser


def _name_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='file, name of a config of mmresnest, or package::path')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of the config, such as '
        'optim_wrapper.optimizer.lr=0.01; lists as "[1,2]" or 1,2',
    )
    parser.add_argument(
        '--safe-config',
        action='store_true',
        help='read the config as data, for one whose maker you do not trust: '
        'nothing of it is executed, and what is more than data is refused',
    )


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    _name_arguments(parser)
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='a folder in COCO layout (train.json, val.json, train/, val/) or '
        'ADE20K layout (images/train, annotations/train, ...); classes are '
        'read from it',
    )
    parser.add_argument(
        '--demo',
        action='store_true',
        help='a size and schedule for a CPU, on the embedded data set unless --data is given',
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument(
        '--work-dir', metavar='DIR', help='for checkpoints and logs (default: work_dirs/<config>)'
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='what started the processes (default: none, a single one)',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='torch.compile backbone and neck, once for all image sizes; on CPUs '
        'this takes a C++ compiler',
    )
    parser.add_argument(
        '--fast-eval',
        action='store_true',
        help="compute COCO's scores by faster-coco-eval: the same in less time",
    )
    _memory_argument(parser)
    parser.add_argument(
        '--no-progress',
        action='store_true',
        help='no bar, on a terminal either; elsewhere there is none',
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def _memory_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--keep-memory',
        action='store_true',
        help='on CPUs under Linux: hand no freed memory back to the system; '
        'faster, and takes more of it',
    )


def _keep_memory(given: bool) -> None:
    if given:
        from ..deploy import keep_memory

        keep_memory()


def _trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let checkpoint files hold any object, and so run code; only for '
        'files whose maker you trust, and never for what is downloaded',
    )


def _switch(name: str, given: bool) -> AbstractContextManager[None]:
    """Opts in for this command, by a variable that reaches worker processes too."""
    return switched_on(name) if given else nullcontext()


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    _trust_argument(parser)
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on GPUs, bfloat16 on CPUs'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, or (auto, or nothing) from the last in the '
        'work dir; if-any: or from the beginning, if none is there',
    )
    parser.add_argument(
        '--accept-changes',
        action='store_true',
        help='go on though number of processes, batch size or data are others',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate to the batch size by the config's base batch size",
    )
    parser.add_argument(
        '--from-scratch', action='store_true', help='random weights: fetch none, freeze nothing'
    )
    parser.add_argument(
        '--live',
        nargs='+',
        action='extend',
        choices=LIVE,
        default=[],
        help='log numbers and pictures where they can be watched, too',
    )
    parser.add_argument('--seed', type=int, help='for everything random')
    parser.add_argument(
        '--deterministic', action='store_true', help='deterministic algorithms only'
    )


def _train(args: argparse.Namespace) -> int:
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    _keep_memory(args.keep_memory)
    from ..engine.train import train

    with _switch(TRUST, args.trust_checkpoint):
        result = train(
            args.config,
            work_dir=args.work_dir,
            amp=args.amp,
            resume=args.resume,
            auto_scale_lr=args.auto_scale_lr,
            options=_options(args.cfg_options),
            launcher=args.launcher,
            data=args.data,
            demo=args.demo,
            scratch=args.from_scratch,
            seed=args.seed,
            deterministic=args.deterministic,
            compile=args.compile,
            fast_eval=args.fast_eval,
            accept_changes=args.accept_changes,
            live=args.live,
            progress=not args.no_progress,
        )
    if _first(args.launcher):
        _say_scores(result.metrics)
        if result.checkpoint is not None:
            print(f'checkpoint: {result.checkpoint}')
        if result.pictures:
            print('pictures: ' + ', '.join(map(str, result.pictures)))
        if result.report is not None:
            print(f'report: {result.report}')
        print(f'wall time: {_clock(result.seconds)}')
    return 0


def _test_arguments(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    _trust_argument(parser)
    parser.add_argument('checkpoint', help='weights of the model, a .pth file')
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='write the predictions: .pkl; .json for detectors; a folder for segmentors',
    )
    parser.add_argument('--show-dir', metavar='DIR', help='draw predictions beside the truth')
    parser.add_argument(
        '--tta', action='store_true', help='average over mirrored and scaled copies'
    )


def _test(args: argparse.Namespace) -> int:
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    _keep_memory(args.keep_memory)
    from ..engine.test import test

    with _switch(TRUST, args.trust_checkpoint):
        result = test(
            args.config,
            args.checkpoint,
            work_dir=args.work_dir,
            out=args.out,
            show_dir=args.show_dir,
            tta=args.tta,
            options=_options(args.cfg_options),
            launcher=args.launcher,
            data=args.data,
            demo=args.demo,
            compile=args.compile,
            fast_eval=args.fast_eval,
            progress=not args.no_progress,
        )
    if _first(args.launcher):
        _say_scores(result.metrics)
        for file in result.files:
            print(f'written: {file}')
        print(f'wall time: {_clock(result.seconds)}')
    return 0


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    _name_arguments(parser)
    parser.add_argument(
        '--data',
        metavar='DIR',
        help="the training's --data; needed only for a checkpoint that does not name its classes",
    )
    parser.add_argument('--demo', action='store_true', help='the checkpoint is of train --demo')
    _trust_argument(parser)
    parser.add_argument(
        '--model',
        metavar='FILE',
        help='instead of CONFIG and CHECKPOINT: a file of mmresnest export, run '
        'without torch (--model FILE IMAGE ...)',
    )
    parser.add_argument(
        'checkpoint',
        help='weights of the model, a .pth file; classes are those it was trained with',
    )
    _image_arguments(parser, 'auto (a GPU if there is one), cpu or cuda (default: auto)')


def _exported_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model',
        metavar='FILE',
        required=True,
        help='an .onnx or .xml that mmresnest export wrote',
    )
    _image_arguments(
        parser,
        'auto (a GPU of CUDA if there is one), cpu; cuda for .onnx, gpu (of '
        'Intel) for .xml (default: auto)',
    )


def _image_arguments(parser: argparse.ArgumentParser, devices: str) -> None:
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGE',
        help='images, folders of images, patterns such as "photos/**/*.jpg", or videos',
    )
    parser.add_argument('--out', metavar='DIR', help='where to (default: predictions)')
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='for the results (default: predictions.json in --out): detectors in '
        "COCO's format, images and categories in FILE.images.json",
    )
    parser.add_argument('--no-pictures', action='store_true', help='draw nothing')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='S',
        help='leave out objects that are less certain (default: 0.3)',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='images of one size at once (default: 1)',
    )
    parser.add_argument('--device', default='auto', help=devices)
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        metavar='N',
        help='of so many frames of a video take one (default: 1)',
    )
    parser.add_argument('--force', action='store_true', help='replace results of another run')


def _predict(args: argparse.Namespace) -> int:
    from ..inference.predict import predict, predict_exported
    from ..utils.console import progress

    given = dict(
        out=args.out,
        batch_size=args.batch_size,
        score_thr=args.score_thr,
        device=args.device,
        json=args.json,
        pictures=not args.no_pictures,
        every=args.every,
        force=args.force,
        progress=progress,
    )
    if args.model is not None:
        result = predict_exported(args.model, args.images, **given)
    else:
        with _switch(TRUST, args.trust_checkpoint):
            result = predict(
                args.config,
                args.checkpoint,
                args.images,
                data=args.data,
                demo=args.demo,
                options=_options(args.cfg_options),
                **given,
            )
    print(
        f'predicted: {_many(result.images, "image")}'
        + (f', {_many(result.objects, "object")}' if result.objects else '')
    )
    if result.bad:
        print(f'skipped: {_many(len(result.bad), "image")}, named above')
    for file in result.files:
        print(f'written: {file}')
    print(f'wall time: {_clock(result.seconds)}')
    return 0


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    _name_arguments(parser)
    parser.add_argument('checkpoint', help='weights of the model, a .pth file')
    parser.add_argument(
        '--data', metavar='DIR', help="the training's --data; with --int8 what is scored on"
    )
    parser.add_argument('--demo', action='store_true', help='the checkpoint is of train --demo')
    _trust_argument(parser)
    parser.add_argument('--to', default='onnx', choices=FORMATS, help='default: onnx')
    parser.add_argument(
        '--part',
        default='whole',
        choices=PARTS,
        help='whole, with what lies before and behind the network; neck or '
        'backbone, whose maps come out (default: whole)',
    )
    parser.add_argument('--out', metavar='FILE', help='the file to write (default: as the config)')
    parser.add_argument(
        '--size',
        type=_sides,
        metavar='HxW',
        help='height and width of the input (default: what the test pipeline scales a picture to)',
    )
    parser.add_argument(
        '--batch', type=int, default=1, metavar='N', help='images at once (default: 1)'
    )
    parser.add_argument(
        '--dynamic', action='store_true', help='take any number of images of any size'
    )
    parser.add_argument('--half', action='store_true', help='compute in float16')
    parser.add_argument(
        '--int8',
        metavar='CALIB',
        help='compute in 8-bit integers, whose scales are found on the pictures '
        'of this folder; the drop of the score is measured',
    )
    parser.add_argument(
        '--max-drop', type=float, metavar='D', help='of the score by --int8, of 1 (default: 0.02)'
    )
    parser.add_argument(
        '--try',
        nargs='+',
        default=[],
        metavar='IMAGE',
        dest='pictures',
        help='pictures to compare on (default: the first of the test split, or drawn ones)',
    )
    parser.add_argument('--force', action='store_true', help='replace a file')


def _sides(text: str) -> tuple[int, int]:
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', text):
        raise argparse.ArgumentTypeError(f'{text} is not height x width, as 800x1344')
    height, width = map(int, text.split('x'))
    return height, width


def _export(args: argparse.Namespace) -> int:
    from ..export.exporter import export

    with _switch(TRUST, args.trust_checkpoint):
        result = export(
            args.config,
            args.checkpoint,
            to=args.to,
            part=args.part,
            out=args.out,
            size=args.size,
            batch=args.batch,
            dynamic=args.dynamic,
            half=args.half,
            int8=args.int8,
            max_drop=args.max_drop,
            pictures=args.pictures,
            data=args.data,
            demo=args.demo,
            options=_options(args.cfg_options),
            force=args.force,
            say=lambda line: print(line, flush=True),
        )
    for where, found in result.differences.items():
        print(
            f'{where}: '
            + ', '.join(f'{one.what} {one.value:.2g} (at most {one.limit:g})' for one in found)
        )
    for precision, scores in result.scores.items():
        print(f'{precision}: ' + ', '.join(f'{name} {value:.4g}' for name, value in scores.items()))
    print(', '.join(f'{name} {value:.1f} ms' for name, value in result.milliseconds.items()))
    for note in result.notes:
        print(f'note: {note}')
    for file in result.files:
        print(f'written: {file} ({file.stat().st_size / 1e6:.1f} MB)')
    print(f'wall time: {_clock(result.seconds)}')
    return 0


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'source',
        metavar='IN',
        help='a file, a URL, or mmresnest://ARCH for published weights; its layout is found out',
    )
    parser.add_argument('target', metavar='OUT', help='the file to write, .pth or .safetensors')
    parser.add_argument(
        '--to',
        required=True,
        metavar='LAYOUT',
        help='official (also timm, torchvision), cadene (also timm-legacy), '
        'mmpretrain, mmpretrain-gn, detectron2, mmdet (also mmseg), '
        'mmdet-gn',
    )
    parser.add_argument('--force', action='store_true', help='replace OUT if it exists')
    _trust_argument(parser)


def _convert(args: argparse.Namespace) -> int:
    from ..models.weights.convert import convert_file

    with _switch(TRUST, args.trust_checkpoint):
        print(convert_file(args.source, args.target, args.to, force=args.force))
    return 0


def _flops_arguments(parser: argparse.ArgumentParser) -> None:
    _name_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='of the image, in pixels (default: 800 1344 for detectors, 512 1024 '
        'on Cityscapes, 512 512 on ADE20K)',
    )
    parser.add_argument(
        '--json',
        action='store_true',
        help='print the numbers as json, of every part, in parameters and MACs',
    )


def _flops(args: argparse.Namespace) -> int:
    from ..analysis.flops import complexity

    found = complexity(
        args.config, shape=args.shape and tuple(args.shape), options=_options(args.cfg_options)
    )
    if args.json:
        print(
            json.dumps(
                dict(
                    found.summary(),
                    shape=found.shape,
                    regions=found.regions(),
                    parts=dict(params=found.params, macs=found.macs),
                )
            )
        )
        return 0
    summary = found.summary()
    print('{:9}{:>13}{:>10}{:>11}'.format('', 'parameters M', 'MACs G', 'FLOPs G'))
    for part, params in summary['params'].items():
        macs = summary['macs'][part]
        print(f'{part:9}{params / 1e6:13.2f}{macs / 1e9:10.2f}{2 * macs / 1e9:11.2f}')
    print(
        'for one image of {} x {}; a multiply-add (MAC) is two FLOPs; convolutions and matrix '
        'products are counted'.format(*found.shape)
    )
    for part, number in found.regions().items():
        print(f'{part}: counted on {number} regions')
    return 0


def _print_config(args: argparse.Namespace) -> int:
    from ..engine.prepare import configure

    print(
        configure(
            args.config, options=_options(args.cfg_options), data=args.data, demo=args.demo
        ).pretty_text
    )
    return 0


def _draw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', help='where to; it is made')
    parser.add_argument('--seed', type=int, help='of the pictures (default: 0)')
    for split in ('train', 'val', 'test'):
        parser.add_argument(
            f'--{split}', type=int, metavar='N', help=f'pictures in the {split} split'
        )
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('W', 'H'), help='of the pictures, in pixels'
    )
    parser.add_argument(
        '--layouts',
        nargs='+',
        metavar='LAYOUT',
        help='which of coco, ade20k, cityscapes and panoptic to write (default: all)',
    )


def _draw(args: argparse.Namespace) -> int:
    from ..data.shapes.dataset import draw

    given = {
        name: value
        for name in ('seed', 'train', 'val', 'test', 'size', 'layouts')
        if (value := getattr(args, name)) is not None
    }
    if 'size' in given:
        given['size'] = tuple(given['size'])
    print(f'drawn: {draw(args.folder, **given)}')
    return 0


def _size(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){2}', text):
        raise argparse.ArgumentTypeError(f'{text} is not batch x height x width, as 2x320x320')
    batch, height, width = map(int, text.split('x'))
    return batch, height, width


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'archs',
        nargs='*',
        metavar='ARCH',
        default=['resnest50', 'res2net50_v1b_26w_4s', 'seresnext50_32x4d'],
        help='networks (default: resnest50, res2net50_v1b_26w_4s, seresnext50_32x4d)',
    )
    parser.add_argument(
        '--forms',
        nargs='+',
        metavar='FORM',
        help='of mmdet, mmdet-compiled, timm, onnxruntime, openvino, plain, lean, '
        'fused, compiled, fused-compiled, convolutions, mmdet-kept, '
        'lean-kept, fused-kept, convolutions-kept (default: all); speeds are '
        'relative to the first',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=_size,
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
    parser.add_argument('--threads', type=int, metavar='N', help="of torch (default: torch's own)")
    _memory_argument(parser)
    parser.add_argument('--json', metavar='FILE', help='write figures and machine')
    parser.add_argument('--plot', metavar='FILE', help='draw them, .png, .svg or .pdf')
    parser.add_argument(
        '--profile',
        metavar='FORM',
        help='show instead where the time of plain, lean or fused goes, per stage '
        'and per operation',
    )


def _benchmark(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ..analysis import benchmark

    _before_measuring(args)
    if args.profile is not None:
        for case in [
            benchmark.Case(arch, mode, size, dtype, args.device)
            for arch in args.archs
            for size in args.sizes
            for dtype in args.dtypes
            for mode in args.modes
        ]:
            print(', '.join(map(str, case)), benchmark.profiled(case, args.profile), '', sep='\n')
        return 0
    rows = benchmark.benchmark(
        args.archs,
        forms=args.forms or benchmark.FORMS,
        sizes=args.sizes,
        modes=args.modes,
        dtypes=args.dtypes,
        device=args.device,
        repeats=args.repeats,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(benchmark.table(rows))
    print(', '.join(f'{name}: {value}' for name, value in benchmark.machine().items()))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(benchmark.as_json(rows), indent=2), encoding='utf-8')
        print(f'written: {args.json}')
    if args.plot is not None:
        benchmark.plot(rows, Path(args.plot))
        print(f'written: {args.plot}')
    return 0


def _before_measuring(args: argparse.Namespace) -> None:
    """What benchmark and profile share: settings, and a file that can be written in the end."""
    from pathlib import Path

    import torch

    for name in ('json', 'plot'):
        path = getattr(args, name, None)
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UserError(
                f'--{name} {path}: there is no folder {Path(path).absolute().parent}; '
                'make it, or name another'
            )
    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f'--threads {args.threads}: at least one must compute')
        torch.set_num_threads(args.threads)
    _keep_memory(args.keep_memory)


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
    _name_arguments(parser)
    _memory_argument(parser)
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
    parser.add_argument('--threads', type=int, metavar='N', help="of torch (default: torch's own)")
    parser.add_argument('--json', metavar='FILE', help='write the figures')


def _profile(args: argparse.Namespace) -> int:
    from dataclasses import asdict
    from pathlib import Path

    from ..analysis import profile

    _before_measuring(args)
    profile.check(args.modes, args.steps)
    options = _options(args.cfg_options)
    if args.batch is not None:
        if args.batch < 1:
            raise UserError(f'--batch {args.batch}: a step takes at least one image')
        options['train_dataloader.batch_size'] = args.batch
    found = []
    for mode in args.modes:
        found.append(
            profile.profile(
                args.config,
                data=args.data,
                mode=mode,
                steps=args.steps,
                options=options,
                say=lambda line: print(line, file=sys.stderr),
            )
        )
        print(profile.table(found[-1]), flush=True)
    if args.json is not None:
        Path(args.json).write_text(
            json.dumps([asdict(one) for one in found], indent=2), encoding='utf-8'
        )
        print(f'written: {args.json}')
    return 0


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', action='store_true', help='print the findings as json')
    parser.add_argument(
        '--network', action='store_true', help='also ask the hosts of published weights'
    )


def _doctor(args: argparse.Namespace) -> int:
    from . import doctor

    return doctor.main(as_json=args.json, with_network=args.network)


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    _name_arguments(parser)
    parser.add_argument(
        '--data',
        metavar='DIR',
        help="a folder in COCO or ADE20K layout, instead of the config's data",
    )
    parser.add_argument(
        '--demo',
        action='store_true',
        help='the embedded data set, drawn if need be, unless --data is given',
    )


def _check_data_arguments(parser: argparse.ArgumentParser) -> None:
    _data_arguments(parser)
    parser.add_argument(
        '--split',
        nargs='+',
        metavar='SPLIT',
        default=['train', 'val', 'test'],
        help='of train, val, test (default: all)',
    )
    parser.add_argument(
        '--all',
        action='store_true',
        help='read every image instead of 128 of a split, and compare all of them '
        'between the splits',
    )
    parser.add_argument(
        '--fix',
        metavar='OUT',
        help='write mended annotations: a .json file, or a folder for those of '
        'several splits; the original is left alone',
    )
    parser.add_argument('--force', action='store_true', help='replace what --fix finds there')
    parser.add_argument(
        '--report', metavar='FILE', help='also write the findings, as text or as .json'
    )


def _check_data(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ..analysis.check_data import audit

    if args.report is not None and not Path(args.report).absolute().parent.is_dir():
        raise UserError(
            f'--report {args.report}: there is no folder '
            f'{Path(args.report).absolute().parent}; make it, or name another'
        )
    report = audit(
        args.config,
        data=args.data,
        demo=args.demo,
        options=_options(args.cfg_options),
        splits=args.split,
        every=args.all,
        fix=args.fix,
        force=args.force,
    )
    print(report.text())
    if args.report is not None:
        as_json = args.report.endswith('.json')
        Path(args.report).write_text(
            json.dumps(report.as_json(), indent=2) if as_json else report.text() + '\n',
            encoding='utf-8',
        )
    return int(bool(report.errors))


def _browse_arguments(parser: argparse.ArgumentParser) -> None:
    _data_arguments(parser)
    parser.add_argument(
        '--split', default='train', metavar='SPLIT', help='train, val or test (default: train)'
    )
    parser.add_argument(
        '--out', metavar='FILE', help='the .png to write (default: CONFIG_SPLIT.png)'
    )
    parser.add_argument(
        '--number', type=int, default=24, metavar='N', help='of images (default: 24)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation (default: 0)')


def _browse(args: argparse.Namespace) -> int:
    from ..analysis.browse_data import browse

    print(
        'written: '
        + str(
            browse(
                args.config,
                data=args.data,
                demo=args.demo,
                options=_options(args.cfg_options),
                split=args.split,
                out=args.out,
                number=args.number,
                seed=args.seed,
            )
        )
    )
    return 0


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='the work folder of a training, finished or not; or two, to stand beside each other',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='the page to write (default: report.html in the work folder)'
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='what to report of (default: the newest of the work folder)',
    )
    parser.add_argument(
        '--safe-config',
        action='store_true',
        help='read the config in the work folder as data: nothing of it is executed',
    )
    _trust_argument(parser)


def _report(args: argparse.Namespace) -> int:
    from ..engine.report import report

    with _switch(TRUST, args.trust_checkpoint):
        result = report(args.work_dirs, out=args.out, checkpoint=args.checkpoint)
    for note in result.notes:
        print(f'note: {note}')
    print(f'written: {result.file} ({result.file.stat().st_size / 1e6:.1f} MB)')
    print(f'wall time: {_clock(result.seconds)}')
    return 0


def _completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'shell',
        choices=SHELLS,
        help='eval "$(mmresnest completion bash)" in ~/.bashrc; for zsh the same '
        'in ~/.zshrc, after compinit; mmresnest completion fish | source',
    )


def _completion(args: argparse.Namespace) -> int:
    from .completion import script

    print(script(build_parser(), args.shell))
    return 0


COMMANDS = (
    Command(
        'train',
        'train a config, on its own data, yours or the embedded set',
        _train_arguments,
        _train,
    ),
    Command('test', 'score a checkpoint', _test_arguments, _test),
    Command(
        'predict',
        'find objects or classes in images and videos',
        _predict_arguments,
        _predict,
        ('--model', _exported_arguments),
    ),
    Command(
        'export',
        'write a model as a file that runs without this framework',
        _export_arguments,
        _export,
    ),
    Command(
        'convert',
        "rewrite a network's checkpoint in another publisher's layout",
        _convert_arguments,
        _convert,
    ),
    Command(
        'flops',
        "count the parameters and multiply-adds of a config's model",
        _flops_arguments,
        _flops,
    ),
    Command('benchmark', "time a network's forms beside others'", _benchmark_arguments, _benchmark),
    Command(
        'profile',
        "show where a model's training step and test image spend their time",
        _profile_arguments,
        _profile,
    ),
    Command('doctor', 'look over the installation', _doctor_arguments, _doctor),
    Command(
        'print-config', 'print a config with all it inherits', _config_arguments, _print_config
    ),
    Command('draw-data', 'draw the embedded data set', _draw_arguments, _draw),
    Command(
        'check-data',
        "find what is wrong with a config's data, and mend it",
        _check_data_arguments,
        _check_data,
    ),
    Command(
        'browse-data',
        'draw images and annotations as the pipeline delivers them',
        _browse_arguments,
        _browse,
    ),
    Command(
        'report',
        'write scores, curves and mistakes of a run into one page',
        _report_arguments,
        _report,
    ),
    Command(
        'completion',
        'print a script that has a shell complete commands',
        _completion_arguments,
        _completion,
    ),
)


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads ``key=value`` as mmengine's DictAction does."""
    if not pairs:
        return {}
    bare = [pair for pair in pairs if '=' not in pair.lstrip('=')]
    if bare:
        raise UserError(f'--cfg-options {bare[0]}: write key=value, such as train_cfg.max_epochs=3')
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    try:
        return parser.parse_args(['--cfg-options', *pairs]).cfg_options
    except (AssertionError, ValueError) as error:
        raise UserError(f'--cfg-options {" ".join(pairs)} cannot be read: {error}') from error


def _first(launcher: str) -> bool:
    from ..engine.distributed import numbers

    return numbers(launcher)[0] == 0


def _say_scores(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        print(f'{name}: {value:.4g}' if isinstance(value, float) else f'{name}: {value}')
    if not metrics:
        print('no scores: the config validates nothing, or nothing was detected')


def _many(number: int, what: str) -> str:
    return f'{number} {what}{"s" * (number != 1)}'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


if __name__ == '__main__':
    sys.exit(main())
