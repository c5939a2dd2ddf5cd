"""``mmresnest demo``: a page to try a model on."""

from __future__ import annotations

import argparse

from ..inference.page.options import PageOptions
from .arguments import Command, Parser, add_arguments, add_run_checkpoint, read_options
from .printing import show


def add_demo_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'source',
        metavar='WORK_DIR|FILE',
        help='the work folder of a training; or an .onnx or .xml that mmresnest export wrote, run '
        'without torch',
    )
    add_run_checkpoint(parser)
    add_arguments(parser, PageOptions)


def run_demo(args: argparse.Namespace) -> int:
    """Serve the page until the user ends it."""
    from ..inference.page.serve import open_page

    options = read_options(args, PageOptions)
    server = open_page(args.source, args.checkpoint, options, tell=show)
    with server:
        show(f'page: {server.url} (Ctrl-C ends it)', flush=True)
        if not server.is_local:
            show('note: whoever reaches this machine can use the page; it has no password')
        if options.open:
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            show('')
    return 0


COMMAND = Command(add_demo_arguments, run_demo)
