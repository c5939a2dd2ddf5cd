"""What a checkpoint may tell a run that is resumed from it."""

import os
from collections.abc import Iterator
from typing import Any


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
