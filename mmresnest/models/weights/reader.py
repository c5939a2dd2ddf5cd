"""Read the tensors of a checkpoint file."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import UserError
from ...security.torch_load import read_tensors
from . import safetensors_file
from .hub import is_trusted, locate_checkpoint
from .match import Facts

METADATA_KEY = 'mmresnest'  # where in a state dict's metadata our facts stand


WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')


def unwrap_checkpoint(content: Any, source: str) -> Mapping[str, Any]:
    """Return the state dict in a checkpoint, whatever it is wrapped in.

    Raises:
        UserError: there is none.
    """
    for _ in WRAPPERS:
        if not isinstance(content, Mapping):
            break
        content = next(
            (content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content
        )
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(
            f'{source} holds no tensors by name: it is not a checkpoint',
            code='checkpoint.unreadable',
        )
    return content


def tensors_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name, without what DDP and torch.compile add to it."""
    return {
        key.replace('_orig_mod.', '').removeprefix('module.'): value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def notes_in(state: Mapping[str, Any], prefix: str) -> Facts | None:
    """Return our note in a state dict, where a network below this prefix has left one."""
    metadata = getattr(state, '_metadata', None)
    if not isinstance(metadata, Mapping):
        return None
    for outer in ('', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'):
        entry = metadata.get((outer + prefix).removesuffix('.'))
        if isinstance(entry, Mapping) and isinstance(entry.get(METADATA_KEY), Mapping):
            return entry[METADATA_KEY]
    return None


def read_checkpoint(checkpoint: str) -> Any:
    """Return what a file or a URL holds, never running code from it unless the file is trusted.

    Raises:
        UserError: it is missing, broken, of another hash than its name says, or not tensors.
    """
    path, fetched = locate_checkpoint(checkpoint)
    return parse_checkpoint(path, trusted=not fetched and is_trusted())


def parse_checkpoint(path: Path, trusted: bool = False) -> Any:
    """Return what a checkpoint file holds.

    Raises:
        UserError: it is broken, claims more than it is long, or holds more than data.
    """
    if path.suffix == '.safetensors':
        tensors, texts = safetensors_file.load_tensors(path)
        state: Any = OrderedDict(tensors)  # torch hangs _metadata on a state dict
        if METADATA_KEY in texts:
            state._metadata = _parse_note(texts[METADATA_KEY], path)
        return state
    return read_tensors(path, trusted)


def _parse_note(text: str, path: Path) -> Any:
    try:
        note = json.loads(text)
        if not isinstance(note, dict):
            raise ValueError(f'it is a {type(note).__name__}')
        return note
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{path}: the note of mmresnest in it is no json ({error}); it is damaged: '
            f'fetch it again',
            code='checkpoint.unreadable',
        ) from error
