"""Read data files in pickle and yaml, which both can run code: annotations, images, configs.

mmengine reads ``.pkl``, ``.pickle``, ``.yml`` and ``.yaml`` without restriction wherever a config
names such a file, and mmseg the images of ``decode_backend='pickle'``.
"""

from dataclasses import replace
from io import BytesIO
from pickle import UnpicklingError
from tokenize import TokenError
from typing import IO, Any

from ..errors import UserError
from ..utils.env import TRUST
from .nesting import MOST_NODES, check_nesting
from .pickles import BROKEN, DATA_FILES, SafeUnpickler, as_unpickling_errors, file_size
from .placeholders import resolve_placeholders
from .torch_load import check_checkpoint


def _build_storage(reader: SafeUnpickler, name: str, content: bytes) -> Any:
    import torch

    reader.spend(2048)  # each takes as long as the reading of a file
    check_checkpoint(BytesIO(content), f'a tensor in {reader.name}')
    storage = torch.load(BytesIO(content), weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise UnpicklingError(f'Unsupported storage: a {type(storage).__name__}')
    return storage


POLICY = replace(
    DATA_FILES, names={**DATA_FILES.names, 'torch.storage._load_from_bytes': _build_storage}
)
"""With storages, each of which is a checkpoint in the pickle."""


def read_pickle(file: IO[bytes]) -> Any:
    """Read a pickle of containers, numbers, texts, arrays and tensors.

    Raises:
        UserError: it holds more, claims more than it has, or is no pickle.
    """
    name = str(getattr(file, 'name', 'a pickle that the config names'))
    size = file_size(file)
    try:
        with as_unpickling_errors():
            reader = SafeUnpickler(file, size - file.tell(), size, name, POLICY)
            content = [reader.load()]  # a container, so that it can be gone through
            check_nesting(content, name, max(MOST_NODES, 4 * reader.reader.reads))
            return resolve_placeholders(content)[0]
    except EOFError as error:
        raise UserError(
            f'{name} cannot be read as a pickle ({type(error).__name__}: {error}); it '
            f'may be cut short: make it anew',
            code='data.unreadable',
        ) from error
    except UnpicklingError as error:
        raise UserError(
            f'{name} holds more than data, or is broken: {error}. Loading it could run '
            f'any code, so it was not loaded. Write it as .json; or, if you trust '
            f'whoever made the file as you trust a program of theirs, set {TRUST}=1',
            code='data.unsafe',
        ) from error


def read_array(path: Any) -> Any:
    """Read an array of numbers or text as ``numpy.load`` does, which would run a pickle.

    Raises:
        UserError: it holds more, or is no array.
    """
    import numpy as np

    with open(path, 'rb') as file:
        is_pickle = file.read(2) not in (b'\x93N', b'PK')
        file.seek(0)
        if is_pickle:
            return read_pickle(file)
        try:
            return np.load(file)
        except (EOFError, OSError, TokenError, *BROKEN) as error:  # a header is Python's text
            raise UserError(
                f'{path} cannot be read as an array ({type(error).__name__}: {error}); save it by '
                'numpy.save, with a dtype of numbers',
                code='data.unreadable',
            ) from error


def safe_yaml_loader(yaml: Any) -> Any:
    """Return a loader of plain yaml and of the tuples that mmengine writes itself.

    Args:
        yaml: the module that mmengine uses.
    """
    safe = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    loader: Any = type('Loader', (safe,), {})  # of our own, since it is taught something
    loader.add_constructor(
        'tag:yaml.org,2002:python/tuple',
        lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
    )
    return loader
