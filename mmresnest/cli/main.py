"""The command line: ``mmresnest COMMAND``, each command in the file of its name.

Parsing imports neither torch nor mmengine, so help is there at once; a command imports what it
needs when it runs. What a user can fix ends with one message and status 2, everything else with its
traceback and status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from ..config.options import note_renamed
from ..errors import UserError
from ..utils.threads import configure_threads
from ..version import __version__
from .arguments import Command, Parser, check_data_folder, process_settings
from .printing import show

COMMANDS = {
    'train': 'train a config, on its own data, yours or the embedded set',
    'sweep': 'train with options that vary, end hopeless trials, and rank them',
    'test': 'score a checkpoint',
    'predict': 'find objects or classes in images and videos',
    'export': 'write a model as a file that runs without this framework',
    'convert': "rewrite a network's checkpoint in another publisher's layout",
    'flops': "count the parameters and multiply-adds of a config's model",
    'benchmark': "time a network's forms beside others'",
    'profile': "show where a model's training step and test image spend their time",
    'doctor': 'examine the installation',
    'print-config': 'print a config with all it inherits',
    'make-shapes': 'draw the embedded data set',
    'convert-data': 'write a data folder in another format',
    'check-data': "find what is wrong with a config's data, and fix it",
    'browse-data': 'draw images and annotations as the pipeline delivers them',
    'list': 'show configs, networks and published checkpoints',
    'report': 'write scores, curves and mistakes of a run into one page',
    'demo': 'open a page on which a trained or exported model is tried (make demo trains one)',
    'push': 'publish the model of a run on the Hugging Face hub, with its card',
    'pull': 'fetch a published model from there',
    'completion': 'print a script that has a shell complete commands',
}
"""Command -> what it does, in a line."""

COMPUTING = (
    'train',
    'test',
    'predict',
    'export',
    'flops',
    'benchmark',
    'profile',
    'doctor',
    'report',
    'demo',
)
"""Commands whose threads are configured; ``doctor`` shows how."""

#: former name of a command -> its name; accepted until the next version
RENAMED = {'draw-data': 'make-shapes'}

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        the exit status: 0, 1 for what a doctor or a check finds, 2 for what the user can fix. A
        training that a signal ended leaves by SystemExit, with 75.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in RENAMED:
        note_renamed(argv[0], RENAMED[argv[0]])
        argv[0] = RENAMED[argv[0]]
    parser = build_parser(argv)
    args = parser.parse_args(argv)
    if args.run is None:
        parser.error('a COMMAND is missing; --help lists them')
    try:
        check_data_folder(args)
        if argv[0] in COMPUTING:
            configure_threads()
        with process_settings(args):
            return args.run(args)
    except UserError as error:
        return _refuse(error, args.debug)
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] not in OPTIONAL:
            raise
        missing = UserError(
            f'the package {error.name!r} is not installed: pip install '
            '"mmresnest[onedl]" or pip install "mmresnest[openmmlab]" brings all '
            'that training needs',
            code='package.missing',
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
    show(f'mmresnest: error: {error}', file=sys.stderr)
    return 2


def build_parser(argv: Sequence[str] | None = None) -> Parser:
    """Return the parser of all commands.

    Args:
        argv: a command line; then only the command it names has its arguments, in the form that
            the line takes. None for those of all commands.
    """
    parser = Parser(
        prog='mmresnest',
        description='ResNeSt, Res2Net and SE-ResNeXt in MMDetection and MMSegmentation.',
    )
    parser.add_argument('--version', action='version', version=f'mmresnest {__version__}')
    parser.set_defaults(run=None)  # not required: a mistyped --version would pass for that
    commands = parser.add_subparsers(metavar='COMMAND')
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if argv is None or name in argv[:1]:
            command = load_command(name)
            sub.add_argument(
                '--debug', action='store_true', help='show the traceback of every error'
            )
            sub.set_defaults(run=command.run)
            command.select_arguments(argv or ())(sub)
    return parser


def load_command(name: str) -> Command:
    """Import the file of a command."""
    return import_module(f'.{name.replace("-", "_")}', __package__).COMMAND


if __name__ == '__main__':
    sys.exit(main())
