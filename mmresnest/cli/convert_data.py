"""``mmresnest convert-data``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Command, Parser
from .printing import show

FORMATS = ('coco', 'yolo', 'voc', 'ade20k')


def add_convert_data_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument('source', metavar='DIR', help='the data, in any format that --data reads')
    parser.add_argument(
        'target', metavar='OUT', help='the folder to write, with links to the images'
    )
    parser.add_argument(
        '--format', choices=FORMATS, default='coco', help='of what is written (default: coco)'
    )
    parser.add_argument(
        '--from', dest='source_format', metavar='FORMAT', help='that of DIR, where it has several'
    )
    parser.add_argument(
        '--split',
        metavar='SHARE',
        help='put this share of the images aside for validation, as in train',
    )
    parser.add_argument(
        '--mask-values',
        metavar='VALUE=NAME,...',
        help='what the values or colors of the masks of DIR stand for, as in train',
    )


def run_convert_data(args: argparse.Namespace) -> int:
    """Convert, and print what was written, as it is read."""
    from ..data.folder import convert_folder
    from ..data.request import DataRequest

    request = DataRequest.parse(args.source, args.mask_values, args.source_format, args.split)
    assert request is not None  # the folder is an argument
    read, written = convert_folder(request, Path(args.target), args.format)
    show(f'read: {read}')
    for note in read.notes:
        show(note)
    show(f'written: {written}')
    return 0


COMMAND = Command(add_convert_data_arguments, run_convert_data)
