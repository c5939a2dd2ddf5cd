"""What the commands share: a parser made from classes of options, and settings of the process."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ..config.options import build_options, note_renamed, read_help
from ..errors import UserError, close_to, nearest
from ..utils.env import SAFE, TRUST, enable_switch

Options = TypeVar('Options')


MM_SETTINGS = {
    'accumulate': 'optim_wrapper.accumulative_counts=2',
    'accumulative-counts': 'optim_wrapper.accumulative_counts=2',
    'checkpoint-interval': 'default_hooks.checkpoint.interval=1',
    'clip-grad': 'optim_wrapper.clip_grad.max_norm=10',
    'frozen-stages': 'model.backbone.frozen_stages=1',
    'freeze': 'model.backbone.frozen_stages=1',
    'iters': 'train_cfg.max_iters=1000',
    'log-interval': 'default_hooks.logger.interval=10',
    'max-epochs': 'train_cfg.max_epochs=12',
    'max-iters': 'train_cfg.max_iters=1000',
    'milestones': 'param_scheduler.1.milestones=[8,11]',
    'momentum': 'optim_wrapper.optimizer.momentum=0.9',
    'no-validate': 'val_cfg=None val_dataloader=None val_evaluator=None',
    'optimizer': 'optim_wrapper.optimizer.type=AdamW',
    'save-best': 'default_hooks.checkpoint.save_best=auto',
    'save-period': 'default_hooks.checkpoint.interval=1',
    'score-threshold': 'model.test_cfg.rcnn.score_thr=0.3',
    'sync-bn': 'sync_bn=torch',
    'val-interval': 'train_cfg.val_interval=1',
    'warmup-iters': 'param_scheduler.0.end=500',
    'weight-decay': 'optim_wrapper.optimizer.weight_decay=1e-4',
    'with-cp': 'model.backbone.with_cp=True',
}
"""Option of other tools -> the setting of mmengine, mmdet or mmseg that says so."""


def check_data_folder(args: argparse.Namespace) -> None:
    """Refuse a data folder that does not exist, before anything heavy is imported.

    Raises:
        UserError: it is not there.
    """
    given = getattr(args, 'data', None)
    if given is None or Path(given).expanduser().exists():
        return
    path = Path(given).expanduser().absolute()
    siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    close = close_to(path.name, siblings)
    hint = f'nearest: {", ".join(close)}' if close else 'correct --data'
    raise UserError(f'the data folder {path} does not exist; {hint}', code='data.missing')


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        add_arguments: adds the arguments to a parser.
        run: does the work and returns the exit status.
        instead: an option with which the command takes other arguments, and what adds these.
        for_run: what adds the arguments beside the work folder of a training, in the place of a
            config.
    """

    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    instead: tuple[str, Callable[[Parser], None]] | None = None
    for_run: Callable[[Parser], None] | None = None

    def select_arguments(self, argv: Sequence[str]) -> Callable[[Parser], None]:
        """Return what adds the arguments that a command line takes."""
        if self.instead and any(word.partition('=')[0] == self.instead[0] for word in argv):
            return self.instead[1]
        if self.for_run and Path(self._find_first_word(argv[1:]) or 'none').is_dir():
            return self.for_run
        return self.add_arguments

    def _find_first_word(self, words: Sequence[str]) -> str | None:
        """Return the first word that is no option and no value of one."""
        parser = Parser(add_help=False)
        self.add_arguments(parser)
        takes: Any = 0  # how many of the next words are values; a text for any number
        for word in words:
            if word[:1] == '-' and len(word) > 1:
                action = parser._option_string_actions.get(word)
                takes = 0 if action is None else 1 if action.nargs is None else action.nargs
            elif isinstance(takes, int):
                if not takes:
                    return word
                takes -= 1
            elif takes == '?':
                takes = 0
        return None


class Parser(argparse.ArgumentParser):
    """A parser that names what is nearest to a word it does not know, and knows former names."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.current: dict[str, str] = {}
        super().__init__(*args, **more)

    def add_argument(self, *names: Any, old: Sequence[str] = (), **more: Any) -> argparse.Action:
        """Add an argument; ``old`` are former names, accepted and not shown."""
        action = super().add_argument(*names, **more)
        for name in old:
            self.current[name] = action.option_strings[-1]
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse an unknown argument with the usage of the command."""
        args = None if args is None else [self._rename(word) for word in args]
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition('=')[0]
            close = close_to(option, self._option_string_actions) if option[:1] == '-' else []
            hint = f'nearest: {", ".join(close)}' if close else '--help lists all'
            if setting := MM_SETTINGS.get(option.lstrip('-').replace('_', '-')):
                if '--cfg-options' in self._option_string_actions:
                    hint = f'--cfg-options {setting}' + (f'; {hint}' if close else '')
            self.error(f'there is no argument {unknown[0]!r} here; {hint}')
        return namespace, unknown

    def _rename(self, word: str) -> str:
        name, equals, value = word.partition('=')
        if name not in self.current:
            return word
        note_renamed(name, self.current[name])
        return self.current[name] + equals + value

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        accepted = {*(action.choices or ()), *getattr(action, 'old_values', ())}
        if action.choices is not None and value not in accepted:
            name = '/'.join(action.option_strings) or action.metavar or action.dest
            raise argparse.ArgumentError(
                None, f'{name}: there is no {value!r}; {nearest(value, action.choices)}'
            )


def add_arguments(parser: Parser, kind: type) -> None:
    """Add an option for each field of an options class."""
    texts, own = read_help(kind), {one.name for one in fields(kind)}
    for one in fields(kind):
        if 'argument' not in one.metadata:
            continue
        argument, text = dict(one.metadata['argument']), texts[one.name]
        if isinstance(one.default, bool):
            argument['action'] = 'store_false' if one.default else 'store_true'
            text = f'do not {text}' if one.default else text
        elif one.default not in (None, ()):
            text += f' (default: {one.default})'
        action = parser.add_argument(
            *(_spell(name, None) for name in one.metadata['also'] if name not in own),
            _spell(one.name, one.default),
            dest=one.name,
            default=None if one.default == () else one.default,
            help=text,
            old=[_spell(name, one.default) for name in one.metadata['old']],
            **argument,
        )
        vars(action)['old_values'] = one.metadata['old_values']


def _spell(name: str, default: Any) -> str:
    return f'--{"no-" if default is True else ""}{name.replace("_", "-")}'


def read_options(args: argparse.Namespace, kind: type[Options]) -> Options:
    """Return the options of a class that were given."""
    given = {
        one.name: getattr(args, one.name)
        for one in fields(kind)  # type: ignore[arg-type]
        if getattr(args, one.name, None) is not None
    }
    if 'cfg_options' in given:
        given['cfg_options'] = parse_cfg_options(given['cfg_options'])
    return build_options(kind, None, given)


def parse_cfg_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read ``key=value`` as mmengine's DictAction does."""
    if not pairs:
        return {}
    bare = [pair for pair in pairs if '=' not in pair.lstrip('=')]
    if bare:
        raise UserError(
            f'--cfg-options {bare[0]}: write key=value, such as train_cfg.max_epochs=3',
            code='option.settings',
        )
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    try:
        return parser.parse_args(['--cfg-options', *pairs]).cfg_options
    except (AssertionError, ValueError) as error:
        raise UserError(
            f'--cfg-options {" ".join(pairs)} cannot be read: {error}', code='option.settings'
        ) from error


def add_config(
    parser: Parser, meaning: str = 'file, name of a config of mmresnest, or package::path'
) -> None:
    """Add the config, and how far it is trusted."""
    parser.add_argument('config', help=meaning)
    add_safe_config(parser)


def add_safe_config(parser: Parser) -> None:
    """Add how far a config is trusted."""
    parser.add_argument(
        '--safe-config',
        action='store_true',
        help='read a config that you do not trust as data: none of its code is executed, and '
        'whatever would need that is refused',
    )


def add_checkpoint(parser: Parser, help: str = 'weights of the model, a .pth file') -> None:
    """Add the checkpoint."""
    parser.add_argument('checkpoint', help=help)
    add_trust(parser)


def add_run(parser: Parser) -> None:
    """Add the work folder of a training, which stands for config and checkpoint."""
    parser.add_argument(
        'config',
        metavar='WORK_DIR',
        help='the work folder of a training, which has config, data, classes and checkpoint',
    )
    add_run_checkpoint(parser)


def add_run_checkpoint(parser: Parser) -> None:
    """Add which checkpoint of a work folder is taken, and how far both are trusted."""
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='of the work folder (default: the one with the best score, else the newest)',
    )
    add_safe_config(parser)
    add_trust(parser)


def add_trust(parser: Parser) -> None:
    """Add how far checkpoints are trusted."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let checkpoint files hold any object, and so run code; only for files from a source '
        'you trust, and never for downloads',
    )


def add_cfg_options(parser: Parser) -> None:
    """Add the settings that override those of the config, for commands that take no more."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config, such as optim_wrapper.optimizer.lr=0.01',
    )


def add_arch(parser: Parser) -> None:
    """Add the network that a config has instead of its own."""
    parser.add_argument(
        '--arch',
        metavar='NAME',
        help='put this network into the config, as in train: resnest101, or another of the table',
    )


def add_memory(parser: Parser) -> None:
    """Add what a CPU does with freed memory."""
    parser.add_argument(
        '--no-malloc-trim',
        action='store_true',
        old=['--keep-memory'],
        help='on CPUs under Linux: do not return freed memory to the system; faster, and takes '
        'more of it',
    )


def add_processes(parser: Parser) -> None:
    """Add what launchers pass on."""
    add_memory(parser)
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


@contextmanager
def process_settings(args: argparse.Namespace) -> Iterator[None]:
    """Set for the process, while a command runs, what the arguments above say."""
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if getattr(args, 'no_malloc_trim', False):
        from ..deploy import keep_memory

        keep_memory()
    with ExitStack() as stack:
        # Environment variables, since worker processes have to know, too.
        for variable, given in ((SAFE, 'safe_config'), (TRUST, 'trust_checkpoint')):
            if getattr(args, given, False):
                stack.enter_context(enable_switch(variable))
        yield
