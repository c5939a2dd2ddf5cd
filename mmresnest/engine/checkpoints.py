"""Find checkpoints, and check them before a run uses them."""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ..errors import UserError
from ..models.weights import loading, reader
from ..utils.files import integrity_error
from .class_order import match_classes, recorded_classes
from .wrappers import unwrap_model


def find_last(work_dir: Path, say: Callable[[str], None] | None = None) -> Path | None:
    """Return the newest checkpoint of a work folder that is not damaged.

    ``last_checkpoint`` names the newest. Where that one is damaged or missing, as after a run that
    was killed while mmengine saved, the newest one before it is taken, by the time it was written.

    Args:
        work_dir: the folder.
        say: is called with a line for each that is skipped; by default it is logged.
    """
    for path in list_candidates(work_dir):
        if is_sharded(path):
            return path
        wrong = integrity_error(path) if path.is_file() else 'it is not there'
        if not wrong:
            return path
        line = f'{path} is passed over, {wrong}; looking for the one before it'
        if say is not None:
            say(line)
        else:
            print_log(line, 'current', logging.WARNING)
    return None


def list_candidates(work_dir: Path) -> list[Path]:
    """Return what may be a checkpoint to resume from in a work folder, the newest first."""
    found, folders, shapes = [], [work_dir], [r'(?:epoch|iter)_\d+\.pth']
    note = work_dir / 'last_checkpoint'
    if note.is_file():
        named = Path(note.read_text(encoding='utf-8', errors='replace').strip())
        here = work_dir / named.name  # the folder may have been moved
        found.append(named if named.exists() and not here.exists() else here)
        # Checkpoints may go elsewhere, and have names of their own.
        folders.append(found[0].parent)
        shapes.append(re.sub(r'\d+', r'\\d+', re.escape(named.name)))
    numbered = [
        path
        for folder in dict.fromkeys(folders)
        for path in folder.glob('*')
        if any(re.fullmatch(shape, path.name) for shape in shapes)
    ]
    found += sorted(numbered, key=_age_and_number, reverse=True)
    return list(dict.fromkeys(found))


def _age_and_number(path: Path) -> tuple[int, list[int]]:
    # Two may be written within the resolution of the clock: epoch_10 is newer than epoch_2.
    return path.stat().st_mtime_ns, [int(number) for number in re.findall(r'\d+', path.name)]


def is_sharded(path: Path) -> bool:
    """Return whether a path is a folder of one file for each process, as DeepSpeed writes."""
    return path.is_dir() and (any(path.glob('*model_states.pt')) or any(path.glob('rank*.pth')))


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain data only.

    Args:
        path: the file.

    Returns:
        its contents, with the weights under ``state_dict``.

    Raises:
        UserError: if it is missing, damaged, or no checkpoint.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    file = Path(path).expanduser()
    if not file.exists():
        siblings = sorted(other.name for other in file.parent.glob('*.pth'))
        there = f'; {file.parent.absolute()} has {", ".join(siblings[-5:])}' if siblings else ''
        raise UserError(
            f'there is no checkpoint {file.absolute()}{there}', code='checkpoint.missing'
        )
    if is_sharded(file):
        raise UserError(
            f'{file} is a folder with a part of the weights for each process; have '
            f'DeepSpeed make one file of it: python {file.parent}/zero_to_fp32.py '
            f'{file.parent} OUT --tag {file.name}',
            code='checkpoint.sharded',
        )
    if file.is_dir():
        raise UserError(
            f'{file} is a folder; give the checkpoint itself, a .pth file in it',
            code='checkpoint.missing',
        )
    try:
        content = CheckpointLoader.load_checkpoint(str(file), map_location='cpu')
    except UserError:
        raise
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:  # only where compat does not guard the loader
        raise UserError(
            f'{file} cannot be read as a PyTorch checkpoint: {error}', code='checkpoint.unreadable'
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f'{file} is not a checkpoint: it holds a {type(content).__name__} where a '
            'dictionary of weights is expected',
            code='checkpoint.unreadable',
        )
    if 'state_dict' not in content:
        content = dict(state_dict=content)
    weights = content['state_dict']
    if not isinstance(weights, Mapping) or not any(
        hasattr(value, 'shape') for value in weights.values()
    ):
        raise UserError(
            f'{file} holds no weights: found {", ".join(map(str, list(content)[:6])) or "nothing"}',
            code='checkpoint.no-weights',
        )
    return content


def check_fit(
    path: str | os.PathLike, content: Mapping[str, Any], model: Any, classes: Sequence[str] = ()
) -> None:
    """Refuse a checkpoint of another model, before anything is scored with random weights.

    A backbone of ours takes any layout, so the file is compared as loading will convert it.

    Args:
        path: the checkpoint, for messages.
        content: what :func:`read_checkpoint` returned.
        model: the module that will load it.
        classes: those of the data that the model is for; empty if there are none.

    Raises:
        UserError: if a weight has another shape, by their names where classes are the reason, or
            one in ten of the model's weights is not there.
    """
    model = unwrap_model(model)
    given = {
        name: tuple(value.shape)
        for name, value in loading.adapt_state_dict(
            model, reader.tensors_of(content['state_dict'])
        ).items()
    }
    wanted = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    shared = wanted.keys() & given.keys()
    if len(shared) < 0.9 * len(wanted):
        lost = sorted(wanted.keys() - given.keys())
        raise UserError(
            f'{path} is a checkpoint of another model: {len(shared)} of the '
            f'{len(wanted)} weights of this one are in it; missing are '
            f'{", ".join(lost[:3])} ...; in the file are '
            f'{", ".join(sorted(given)[:3])} ... Give the config it was trained with',
            code='checkpoint.other-model',
        )
    other = [name for name in wanted if name in shared and wanted[name] != given[name]]
    if other:
        match_classes(path, recorded_classes(content), classes)
        said = '; '.join(
            f'{name} is {given[name]} in the file and {wanted[name]} in the model'
            for name in other[:3]
        )
        raise UserError(
            f'{path} does not fit this model: {len(other)} weights have other shapes: '
            f'{said}. If only heads differ, it was trained on other classes: give the '
            'same --data, or --demo, as in training',
            code='checkpoint.other-shapes',
        )
