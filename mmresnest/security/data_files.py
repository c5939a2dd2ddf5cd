"""Data files in pickle and yaml, which both can run code: annotations, pictures, configs.

mmengine reads ``.pkl``, ``.pickle``, ``.yml`` and ``.yaml`` without restriction wherever a config
names such a file, and mmseg the pictures of ``decode_backend='pickle'``.
"""

import pickle
from io import BytesIO
from types import ModuleType, SimpleNamespace
from typing import IO, Any

from ..errors import UserError
from ..utils.env import TRUST
from .torch_load import READABLE, StandIn, settle, trusts_checkpoints


def read_data_from_pickles(module: ModuleType) -> None:
    """Has mmengine read containers, numbers, texts, arrays and tensors, and nothing else."""
    theirs = module.PickleHandler.load_from_fileobj

    def load_from_fileobj(self: Any, file: IO[bytes], **kwargs: Any) -> Any:
        return theirs(self, file, **kwargs) if trusts_checkpoints() else read(file, **kwargs)

    module.PickleHandler.load_from_fileobj = load_from_fileobj


def read_data_of_mmseg(module: ModuleType) -> None:
    """The same of mmseg's pictures."""
    theirs = pickle.loads

    def loads(content: bytes) -> Any:
        return theirs(content) if trusts_checkpoints() else read(BytesIO(content))

    vars(module)['pickle'] = SimpleNamespace(loads=loads)


def read_data_from_yaml(module: ModuleType) -> None:
    """Has mmengine read plain yaml, and the tuples that it writes itself."""
    yaml: Any = vars(module)['yaml']
    safe = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    loader: Any = type('Loader', (safe,), {})  # of our own, since it is taught something
    loader.add_constructor(
        'tag:yaml.org,2002:python/tuple',
        lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
    )
    vars(module)['Loader'] = loader


class _Callable:
    """A function that a pickle may call, and not change."""

    __slots__ = ('function',)

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('Unsupported state of a function')


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Finds what the names on the lists are bound to."""
        module = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}.get(module, module)
        found = {**READABLE, **BESIDE}.get(f'{module}.{name}')
        if found is None:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return found if isinstance(found, type) else _Callable(found)


def _encode(text: str, code: str) -> bytes:
    if code != 'latin1':
        raise pickle.UnpicklingError(f'_codecs.encode to {code}')
    return text.encode(code)


def _array(data: bytes, dtype: Any, shape: tuple, order: str, axes: Any = None) -> StandIn:
    made = StandIn()  # as pickle's protocol 5 has arrays
    if axes is not None:
        raise pickle.UnpicklingError(f'the axes {axes!r:.40} of an array')
    made.value = dtype.read(data).reshape(shape, order=order)
    return made


def _storage(content: bytes) -> Any:
    import torch

    from . import pickles

    pickles.check(BytesIO(content), 'a tensor in the pickle')
    return torch.load(BytesIO(content), weights_only=True)


def _tensor(*args: Any) -> Any:
    import torch

    return torch._utils._rebuild_tensor_v2(*args)


def _ordered(*args: Any) -> dict:
    return dict(*args)


BESIDE: dict[str, Any] = {
    '_codecs.encode': _encode,
    'builtins.set': set,
    'collections.OrderedDict': _ordered,
    'numpy._core.numeric._frombuffer': _array,
    'numpy.core.numeric._frombuffer': _array,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch.storage._load_from_bytes': _storage,
}
"""What may stand in a data file beside what may stand in a checkpoint: tensors, as pickle has them.

A hook list of a tensor is an empty OrderedDict; any other is read as a plain dictionary.
"""


def read(file: IO[bytes], **kwargs: Any) -> Any:
    """Reads a pickle of data.

    Raises:
        UserError: it holds more, or is none.
    """
    name = str(getattr(file, 'name', 'a pickle that the config names'))
    try:
        return settle(_Reader(file, **kwargs).load())
    except pickle.UnpicklingError as error:
        raise UserError(
            f'{name} holds more than data, or is broken: {error}. Loading it could run '
            f'any code, so it was not loaded. Write it as .json; or, if you trust '
            f'whoever made the file as you trust a program of theirs, set {TRUST}=1'
        ) from error
    except (
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
        RuntimeError,
    ) as error:
        raise UserError(
            f'{name} cannot be read as a pickle ({type(error).__name__}: {error}); it '
            f'may be cut short: make it anew'
        ) from error
