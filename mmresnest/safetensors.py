"""The safetensors format, which is simple enough to need no package.

Eight bytes are the length of the header, little endian. The header is JSON: a name -> ``dtype``,
``shape`` and ``data_offsets``; and ``__metadata__``, texts by name. The rest are the tensors'
bytes, row-major, little endian, without gaps.
"""
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

DTYPES = dict(F64=torch.float64, F32=torch.float32, F16=torch.float16, BF16=torch.bfloat16,
              I64=torch.int64, I32=torch.int32, I16=torch.int16, I8=torch.int8, U8=torch.uint8,
              BOOL=torch.bool)
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and its texts.

    Raises:
        UserError: it is cut short, or its header does not describe what follows.
    """
    data = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], 'little')
    try:
        if not 8 < start <= len(data):
            raise ValueError(f'its header would end at byte {start} of {len(data)}')
        header: dict[str, Any] = json.loads(bytes(data[8:start]))
        texts = header.pop('__metadata__', {})
        tensors = {name: tensor(data[start:], **entry) for name, entry in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f'{path} cannot be read as a safetensors file ({error}); it is truncated '
                        f'or damaged: fetch it again') from error
    return tensors, texts


def tensor(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """One entry of the header."""
    begin, end = data_offsets
    kind = DTYPES[dtype]
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError(f'{shape} of {dtype} are not the bytes {begin} to {end} of {len(data)}')
    if begin == end:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=kind).reshape(shape)


def save(tensors: Mapping[str, Tensor], path: Path, texts: Mapping[str, str]) -> None:
    """Writes tensors by name, and texts.

    Raises:
        UserError: a kind of number that the format does not have.
    """
    header: dict[str, Any] = {'__metadata__': dict(texts)} if texts else {}
    end = 0
    for name, value in tensors.items():
        if value.dtype not in NAMES:
            raise UserError(f'{name} is of {value.dtype}, which safetensors does not have; write '
                            f'a .pth file')
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = dict(dtype=NAMES[value.dtype], shape=list(value.shape),
                            data_offsets=[begin, end])
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for value in tensors.values():
            file.write(bytes(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
                       if value.numel() else b'')
