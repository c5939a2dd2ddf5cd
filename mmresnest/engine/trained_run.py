"""A training that has been run: its config, with its data and options, and its checkpoints.

    mmresnest test WORK_DIR

A work folder holds the config as it was run, in which data, classes and options are written out, so
that a command needs nothing but the folder. Of the checkpoints the one with the best score is
taken, or where none was scored the last.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from mmengine.config import Config
from mmengine.logging import print_log

from ..config.load import load_config
from ..errors import UserError
from ..utils.files import integrity_error
from . import checkpoints

Source: TypeAlias = str | os.PathLike | Config


class TrainedRun(NamedTuple):
    """What a command needs of a training.

    Attributes:
        config: the config as it was run, or what the user gave.
        checkpoint: the weights.
        folder: the work folder; None where config and checkpoint were given instead.
    """

    config: Source
    checkpoint: Path
    folder: Path | None = None


def resolve_run(config: Source, checkpoint: str | os.PathLike | None) -> TrainedRun:
    """Return config and checkpoint, which a work folder may stand for.

    Args:
        config: a config, its file or name; or the work folder of a training.
        checkpoint: the weights; None for the best of the work folder.

    Raises:
        UserError: no checkpoint is given for a config, or the folder holds no training.
    """
    if isinstance(config, Config) or not Path(config).expanduser().is_dir():
        if checkpoint is None:
            raise UserError(
                f'{getattr(config, "filename", config)} needs a checkpoint: give one behind it, or '
                'give the work folder of a training in the place of both',
                code='checkpoint.missing',
            )
        return TrainedRun(config, Path(checkpoint).expanduser())
    folder = Path(config).expanduser()
    source = find_config(folder)
    if checkpoint is None:
        path = find_best(folder) or checkpoints.find_last(folder)
    else:
        path = Path(checkpoint).expanduser()
        inside = folder / path.name
        path = inside if not path.exists() and inside.exists() else path
    if path is None:
        raise UserError(
            f'{folder.absolute()} holds no checkpoint: the training has written none yet, or they '
            'are elsewhere; name one with --checkpoint',
            code='checkpoint.missing',
        )
    return TrainedRun(source, path, folder)


def find_config(folder: Path) -> Path:
    """Return the config that a run was trained with, as mmengine wrote it down.

    Raises:
        UserError: there is none.
    """
    found = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    copies = sorted(folder.glob('*/vis_data/config.py'), reverse=True)
    if not found and not copies:
        raise UserError(
            f'{folder.absolute()} has no config: a training writes it there as '
            'CONFIG.py; give its work folder as it was, or copy the output of '
            f'`mmresnest print-config CONFIG` to {folder}/config.py',
            code='report.nothing',
        )
    # A test in the same folder has written its own config in the place of the training's.
    for path in [*found, *copies] if copies else ():
        if re.search(r'^command = ', path.read_text(encoding='utf-8'), re.MULTILINE):
            return path
    return (found or copies)[0]


def find_best(folder: Path) -> Path | None:
    """Return the checkpoint with the best score, where the training kept one.

    Of several, as those of several scores, the newest; a damaged one is passed over.
    """
    found = sorted(
        folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime_ns, reverse=True
    )
    for path in found:
        wrong = integrity_error(path)
        if not wrong:
            return path
        print_log(f'{path} is passed over, {wrong}', 'current', logging.WARNING)
    return None


def find_command(folder: Path, source: Path, seed: object) -> str:
    """Return the command as it was noted, or one that does the same from the config."""
    command = load_config(source).get('command')
    if command:
        return str(command)
    more = f' --seed {seed}' if seed is not None else ''
    return (
        f'was not noted; the same again: mmresnest train {folder / source.name} --work-dir '
        f'NEW{more}'
    )
