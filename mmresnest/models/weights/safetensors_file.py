"""The safetensors format, by its own library: an extra, since few checkpoints here need it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...errors import UserError

MISSING = 'needs the package safetensors: pip install safetensors'


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file by name, and its texts.

    Raises:
        UserError: the library is missing, or the file is cut short or damaged.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f'reading {path} {MISSING}', code='package.missing') from error
    try:
        with safe_open(path, framework='pt') as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f'{path} cannot be read as a safetensors file ({error}); it is truncated '
            f'or damaged: fetch it again',
            code='checkpoint.unreadable',
        ) from error


def dump_tensors(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """Return tensors by name, and texts, as the bytes of a file.

    Raises:
        UserError: the library is missing.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(f'writing a .safetensors file {MISSING}', code='package.missing') from error
    return save({name: value.contiguous() for name, value in tensors.items()}, metadata=dict(texts))
