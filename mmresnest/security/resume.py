"""What a checkpoint may tell a run that is resumed from it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

from ..errors import UserError
from .pickles import BROKEN

MOST_STEPS = 2**24
"""Iterations or epochs of a training: ten times those of the longest published."""


@contextmanager
def explain_resume_errors(source: str) -> Iterator[None]:
    """Say which checkpoint is damaged where its state does not fit the run that reads it.

    Args:
        source: the checkpoint.

    Raises:
        UserError: in place of the errors that wrong types and shapes cause.
    """
    try:
        yield
    except UserError:
        raise
    except BROKEN as error:
        if 'OutOfMemory' in type(error).__name__:  # of a GPU
            raise
        raise UserError(
            f'{source} cannot be resumed: what it says of its run is damaged or of another '
            f'training ({type(error).__name__}: {error}); resume from another checkpoint, or start '
            'anew from its weights by --cfg-options load_from=FILE',
            code='resume.damaged',
        ) from error


def check_progress(runner: Any) -> None:
    """Refuse numbers of epochs and iterations that no training has.

    Raises:
        ValueError: with the number.
    """
    for what, number in (('epoch', runner.epoch), ('iter', runner.iter)):
        if not _is_count(number):
            raise ValueError(f'{what} {number!r:.40}')


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) <= MOST_STEPS


def _is_seed(value: Any) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) < 2**32


def _is_stopping_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_count(value.get('wait_count'))
        and isinstance(value.get('best_score'), Real)
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(text, str) for pair in value.items() for text in pair
    )


RECORD_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    'seed': _is_seed,
    'sampler_seed': lambda value: value is None or _is_seed(value),
    'batch': _is_count,
    'scored_at': lambda value: value == -1 or _is_count(value),
    'processes': lambda value: (
        isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
    ),
    'hooks': lambda value: isinstance(value, list) and all(map(_is_stopping_state, value)),
    'world_size': lambda value: _is_count(value) and value > 0,
    'batch_size': lambda value: value is None or (_is_count(value) and value > 0),
    'data': _are_texts,
    'settings': _are_texts,
    'schedule': _are_texts,
    'images': lambda value: isinstance(value, str),
    'written': lambda value: isinstance(value, Real),
    'threads': lambda value: _is_count(value) and value > 0,
}
"""Entry of the record that a training of this package adds to a checkpoint -> whether it is one."""


def check_record(record: Mapping[str, Any]) -> None:
    """Refuse a record with entries of wrong types or numbers.

    Raises:
        ValueError: with the names of the entries.
    """
    wrong = [
        name
        for name, is_right in RECORD_CHECKS.items()
        if name in record and not is_right(record[name])
    ]
    if wrong:
        raise ValueError(f'its record of {", ".join(wrong)}')


def drop_paths_outside_work_dir(runner: Any) -> None:
    """Have a run that was resumed forget the files of others that its checkpoint names.

    mmengine's CheckpointHook deletes the best checkpoint so far when there is a better one, and the
    oldest when there are too many. It takes their names from the checkpoint that was resumed from,
    so that whoever wrote that could have it delete any file or folder.

    Args:
        runner: a ``Runner`` or ``FlexibleRunner`` that has just been resumed.
    """
    folders = [os.path.realpath(folder) for folder in _checkpoint_folders(runner)]
    known = runner.message_hub.runtime_info
    for key in [key for key in known if key == 'last_ckpt' or key.startswith('best_ckpt')]:
        if not _is_within(known[key], folders, key):
            runner.logger.info(
                f'{key} of the checkpoint is not in a folder of this run, and is '
                f'left alone: {str(known[key])[:200]!r}'
            )
            del known[key]
    if 'keep_ckpt_ids' in known:
        steps = known['keep_ckpt_ids']
        known['keep_ckpt_ids'] = (
            [step for step in steps if type(step) is int] if isinstance(steps, list) else []
        )


def _checkpoint_folders(runner: Any) -> Iterator[str]:
    yield runner.work_dir
    for hook in runner.hooks:
        if getattr(hook, 'out_dir', None):  # the hook makes this of it before it trains
            yield os.path.join(hook.out_dir, os.path.basename(runner.work_dir.rstrip(os.sep)))


def _is_within(path: Any, folders: list[str], key: str) -> bool:
    """Whether a path is that of a checkpoint directly in one of these folders."""
    if (
        not isinstance(path, str)
        or '\0' in path
        or (key != 'last_ckpt' and not os.path.basename(path).startswith('best_'))
    ):
        return False
    return os.path.realpath(os.path.dirname(path)) in folders
