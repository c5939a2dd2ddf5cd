"""The safetensors format, by its own library: an extra, since few checkpoints here need it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...errors import UserError

MISSING = 'needs the package safetensors: pip install safetensors'


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and its texts.

    Raises:
        UserError: the library is missing, or the file is cut short or damaged.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f'reading {path} {MISSING}') from error
    try:
        with safe_open(path, framework='pt') as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f'{path} cannot be read as a safetensors file ({error}); it is truncated '
            f'or damaged: fetch it again'
        ) from error


def dump(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """Tensors by name, and texts, as the bytes of a file.

    Raises:
        UserError: the library is missing.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(f'writing a .safetensors file {MISSING}') from error
    return save({name: value.contiguous() for name, value in tensors.items()}, metadata=dict(texts))
