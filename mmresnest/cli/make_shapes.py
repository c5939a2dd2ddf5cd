"""``mmresnest make-shapes``."""

from __future__ import annotations

import argparse

from .arguments import Command, Parser


def add_make_shapes_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument('folder', help='where to write; it is made')
    parser.add_argument('--seed', type=int, help='of the images (default: 0)')
    for split in ('train', 'val', 'test'):
        parser.add_argument(
            f'--{split}', type=int, metavar='N', help=f'images of the {split} split'
        )
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('W', 'H'), help='of the images, in pixels'
    )
    parser.add_argument(
        '--layouts',
        nargs='+',
        metavar='LAYOUT',
        help='which of coco, ade20k, cityscapes and panoptic to write (default: all)',
    )


def run_make_shapes(args: argparse.Namespace) -> int:
    """Draw the set."""
    from ..data.shapes.dataset import draw_dataset

    given = {
        name: value
        for name in ('seed', 'train', 'val', 'test', 'size', 'layouts')
        if (value := getattr(args, name)) is not None
    }
    if 'size' in given:
        given['size'] = tuple(given['size'])
    print(f'drawn: {draw_dataset(args.folder, **given)}')
    return 0


COMMAND = Command(add_make_shapes_arguments, run_make_shapes)
