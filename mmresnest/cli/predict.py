"""``mmresnest predict``, by a checkpoint or by an exported file."""

from __future__ import annotations

import argparse

from ..inference.options import ExportedOptions, PredictOptions
from .arguments import (
    Command,
    Parser,
    add_arguments,
    add_checkpoint,
    add_config,
    add_run,
    read_options,
)
from .printing import format_count, print_time, show


def add_predict_arguments(parser: Parser) -> None:
    """Add the arguments for a checkpoint."""
    add_config(parser)
    parser.add_argument(
        '--model',
        metavar='FILE',
        help='instead of CONFIG and CHECKPOINT: a file of mmresnest export, run without torch '
        '(--model FILE IMAGE ...)',
    )
    add_checkpoint(
        parser, 'weights of the model, a .pth file; classes are those it was trained with'
    )
    _add_images(parser)
    add_arguments(parser, PredictOptions)


def add_exported_arguments(parser: Parser) -> None:
    """Add the arguments for an exported file."""
    parser.add_argument(
        '--model',
        metavar='FILE',
        required=True,
        help='an .onnx or .xml that mmresnest export wrote',
    )
    _add_images(parser)
    add_arguments(parser, ExportedOptions)


def add_run_arguments(parser: Parser) -> None:
    """Add the arguments for a training that has been run."""
    add_run(parser)
    _add_images(parser)
    add_arguments(parser, PredictOptions)
    parser.set_defaults(model=None)


def _add_images(parser: Parser) -> None:
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGE',
        help='images, folders of images, patterns such as "photos/**/*.jpg", videos, streams '
        '(rtsp://..., http://...), or 0 for the first camera',
    )


def run_predict(args: argparse.Namespace) -> int:
    """Predict, and print what was found and written."""
    from ..inference.predict import predict, predict_exported
    from ..utils.console import show_progress

    if args.model is not None:
        result = predict_exported(
            args.model, args.images, read_options(args, ExportedOptions), progress=show_progress
        )
    else:
        result = predict(
            args.config,
            args.checkpoint,
            args.images,
            read_options(args, PredictOptions),
            progress=show_progress,
        )
    show(
        f'predicted: {format_count(result.images, "image")}'
        + (f', {format_count(result.objects, "object")}' if result.objects else '')
    )
    if result.bad:
        show(f'skipped: {format_count(len(result.bad), "image")}, named above')
    for file in result.files:
        show(f'written: {file}')
    print_time(result.seconds)
    return 0


COMMAND = Command(
    add_predict_arguments,
    run_predict,
    instead=('--model', add_exported_arguments),
    for_run=add_run_arguments,
)
