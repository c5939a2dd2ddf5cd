"""``mmresnest convert``."""

from __future__ import annotations

import argparse

from .arguments import Command, Parser, add_trust
from .printing import show


def add_convert_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'source',
        metavar='IN',
        help='a file, a URL, or mmresnest://ARCH for published weights; its layout is recognized',
    )
    parser.add_argument('target', metavar='OUT', help='the file to write, .pth or .safetensors')
    parser.add_argument(
        '--to',
        required=True,
        metavar='LAYOUT',
        help='official (also timm, torchvision), cadene (also timm-legacy), mmpretrain, '
        'mmpretrain-gn, detectron2, mmdet (also mmseg), mmdet-gn',
    )
    parser.add_argument('--force', action='store_true', help='replace OUT if it exists')
    add_trust(parser)


def run_convert(args: argparse.Namespace) -> int:
    """Convert, and print what was written."""
    from ..models.weights import convert_file

    show(convert_file(args.source, args.target, args.to, force=args.force))
    return 0


COMMAND = Command(add_convert_arguments, run_convert)
