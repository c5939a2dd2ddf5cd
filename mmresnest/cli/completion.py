"""Completion of the command line by a shell, as a script that the shell reads.

The script is static: pressing Tab starts no Python. What an argument takes is told by its metavar,
or by :data:`WORDS` where the words are checked later than by the parser, by what needs torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..config.shipped import shipped_configs
from ..errors import UserError
from ..models.variants import list_archs
from .arguments import Command, Parser

SHELLS = ('bash', 'zsh', 'fish', 'tcsh')

WORDS = {
    'archs': list_archs(),
    'modes': ('inference', 'training'),
    'dtypes': ('float32', 'bfloat16', 'float16'),
    'split': ('train', 'val', 'test'),
    'layouts': ('coco', 'ade20k', 'cityscapes', 'panoptic'),
    'to': (
        'official',
        'timm',
        'torchvision',
        'cadene',
        'timm-legacy',
        'mmpretrain',
        'mmpretrain-gn',
        'detectron2',
        'mmdet',
        'mmseg',
        'mmdet-gn',
    ),
}
"""Argument -> what it takes; tests compare them with what checks them."""

FOLDERS = ('DIR', 'WORK_DIR', 'CALIB')
FILES = ('FILE', 'OUT', 'IN', 'IMAGE', 'CHECKPOINT', 'WORK_DIR|FILE')

PREAMBLES = {  # a config is one of ours or a file
    'bash': '_mmresnest_configs() {{ compgen -W \'{names}\' -- "$1"; compgen -f -- "$1"; }}',
    'zsh': '_mmresnest_configs() {{ compadd -- {names}; _files }}',
}
CONFIGS = {
    'bash': '_mmresnest_configs',
    'zsh': '_mmresnest_configs',
    'fish': "(string split ' ' '{names}'; __fish_complete_path (commandline -ct))",
    'tcsh': '({names})',
}


def write_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell.

    Args:
        parser: of all commands; it is marked for the writing, and of no more use for parsing.
        shell: bash, zsh, fish or tcsh.

    Raises:
        UserError: what writes it is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            'completion: its scripts are written by shtab, which is not installed: '
            'pip install "mmresnest[completion]"',
            code='package.missing',
        ) from error
    names = ' '.join(shipped_configs())
    for action in _iterate_actions(parser):
        if action.dest == 'config':
            _set_completion(action, {shell: CONFIGS[shell].format(names=names)})
        elif action.dest in WORDS and action.choices is None:
            action.choices = WORDS[action.dest]
        elif action.metavar in FOLDERS:
            _set_completion(action, shtab.DIRECTORY)
        elif action.metavar in FILES or action.dest == 'checkpoint':
            _set_completion(action, shtab.FILE)
    return shtab.complete(parser, shell, preamble=PREAMBLES.get(shell, '').format(names=names))


def _iterate_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Iterate over all arguments, also those of the subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _iterate_actions(sub)
        else:
            yield action


def _set_completion(action: argparse.Action, how: dict[str, Any]) -> None:
    vars(action)['complete'] = how  # where shtab looks for it


def add_completion_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'shell',
        choices=SHELLS,
        help='eval "$(mmresnest completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc, '
        'after compinit; mmresnest completion fish | source',
    )


def run_completion(args: argparse.Namespace) -> int:
    """Print the script."""
    from .main import build_parser

    print(write_script(build_parser(), args.shell))
    return 0


COMMAND = Command(add_completion_arguments, run_completion)
