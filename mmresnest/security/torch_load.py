"""Checkpoints that run no code, whichever of mmengine's loaders reads them.

A checkpoint is a pickle, and an unrestricted pickle runs whatever code its author put in it.
torch>=2.6 refuses every global that is not on a list. mmengine's own checkpoints need three that
are not: HistoryBuffer, numpy's arrays, and ``getattr``, by which pickle names methods.

mmengine 0.10.7 lists none of them and cannot resume. The fork lists the real ones, and where even
those do not suffice loads without restriction. Both are open doors: with the real ``getattr`` a
pickle reaches ``eval`` through ``getattr.__self__``, and a pickled dtype may claim that an array of
numbers is one of object pointers (tests/compat/test_compat.py does the former). So the names are
bound to the few lines below, which understand what mmengine writes and nothing else. Before that,
and before memory is taken for it, :mod:`mmresnest.security.pickles` looks the file over.
"""

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

from ..errors import UserError
from ..utils.env import TRUST, is_on, switched_on


class StandIn:
    """What a name on the list builds while torch reads; :func:`settle` takes its ``value``."""

    value: Any = None


class _Dtype(StandIn):
    """``numpy.dtype`` of numbers, booleans and text of fixed length, never of objects."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        import numpy as np

        if not (isinstance(code, str) and re.fullmatch(r'[biufcSU]\d{1,4}', code)):
            raise UnpicklingError(f'Unsupported numpy dtype {code!r}')
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[2:5] != (None, None, None):
            raise UnpicklingError(f'Unsupported numpy dtype state {state!r}')
        self.value = self.value.newbyteorder(state[1])

    def read(self, data: bytes) -> Any:
        """The flat array that these bytes are."""
        import numpy as np

        return np.frombuffer(data, self.value).copy()


class _Array(StandIn):
    """``numpy.ndarray``."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, data = state
        self.value = dtype.read(data).reshape(shape, order='F' if columns_first else 'C')


class _History(StandIn):
    """mmengine's ``HistoryBuffer``."""

    def __setstate__(self, state: dict) -> None:
        from mmengine.logging import HistoryBuffer

        self.value = HistoryBuffer(
            state['_log_history'].value, state['_count_history'].value, state['max_length']
        )


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    if kind is not _Array:
        raise UnpicklingError(f'Unsupported kind of array {kind!r}')
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return dtype.read(data)[0]


def _getattr(owner: Any, name: str) -> None:
    # HistoryBuffer carries its methods in its state by name. They are those of its class, which
    # the rebuilt one has anyway, so nothing need be looked up.
    if owner is not _History:
        raise UnpicklingError(f'Unsupported global: GLOBAL getattr of {owner!r}')


def _no_bytes() -> bytes:
    # How pickle's protocol 2, which torch.save writes, says b'': the data of an empty array.
    return b''


READABLE: dict[str, Callable] = {
    'builtins.bytes': _no_bytes,
    'builtins.getattr': _getattr,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.core.multiarray._reconstruct': _reconstruct,  # as numpy 1 wrote them
    'numpy.core.multiarray.scalar': _scalar,
}
"""What may stand in a checkpoint beside torch's own list, and what each name is bound to."""


def settle(value: Any, known: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Puts the values in place of the stand-ins, in whatever a checkpoint nests them.

    Args:
        value: what was read.
        known: what was settled already, by identity: once is enough for what is held twice.

    Returns:
        the same; tuples are made anew.
    """
    if isinstance(value, StandIn):
        return value.value
    if not isinstance(value, (dict, list, tuple)):
        return value
    known = {} if known is None else known
    if id(value) not in known:
        result: Any = value
        if isinstance(value, dict):  # in place: an OrderedDict of weights carries _metadata
            for key, item in value.items():
                value[key] = settle(item, known)
        elif type(value) is list:
            value[:] = [settle(item, known) for item in value]
        elif type(value) is tuple:
            result = tuple(settle(item, known) for item in value)
        known[id(value)] = value, result  # kept, lest another one takes its identity
    return known[id(value)][1]


_lock = threading.RLock()  # the list of safe globals and the environment belong to the process
_trusting = threading.local()


@contextmanager
def trust_checkpoints() -> Iterator[None]:
    """Within it, checkpoints may hold any object, and so may run code: only for your own files."""
    before = getattr(_trusting, 'now', False)
    _trusting.now = True
    try:
        yield
    finally:
        _trusting.now = before


def trusts_checkpoints() -> bool:
    """Whether the user has opted in, by :func:`trust_checkpoints` or by the environment."""
    return (
        getattr(_trusting, 'now', False)
        or is_on(TRUST)
        or is_on('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    )


@contextmanager
def _swapped(module: ModuleType, name: str, new: Any) -> Iterator[None]:
    old = vars(module)[name]
    vars(module)[name] = new
    try:
        yield
    finally:
        vars(module)[name] = old


@contextmanager
def _looked_over(name: str) -> Iterator[None]:
    """Has ``torch.load`` read only what claims no more than it has."""
    import torch

    from . import pickles

    load = torch.load

    def load_checked(file: Any, *args: Any, **kwargs: Any) -> Any:
        pickles.check(file, name)
        return load(file, *args, **kwargs)

    # torch.hub would unpack an archive of one file, whatever its size, onto the disk.
    with (
        _swapped(torch, 'load', load_checked),
        _swapped(torch.hub, '_is_legacy_zip_format', lambda _: False),
    ):
        yield


@contextmanager
def _weights_only(filename: str) -> Iterator[None]:
    """Refuses code in whatever ``torch.load`` reads within, and says so in a user's words."""
    from torch.serialization import safe_globals

    allowed: list = [(stand_in, name) for name, stand_in in READABLE.items()]
    try:
        # torch.hub asks for weights_only=False by name; only this variable overrules it.
        with (
            _lock,
            safe_globals(allowed),
            switched_on('TORCH_FORCE_WEIGHTS_ONLY_LOAD'),
            _looked_over(str(filename)),
        ):
            yield
    except UserError:
        raise
    except (
        UnpicklingError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # all of them met with files cut short or of another kind
        raise UserError(explain(filename, error)) from error


def explain(filename: str, error: Exception) -> str:
    """Tells a checkpoint that wants more than data from a file that is no checkpoint."""
    # torch's text is a paragraph of advice, and the reason on a line of its own, marked or not.
    reasons = str(error).partition('WeightsUnpickler error: ')[::2]
    reason = (reasons[1] or reasons[0]).strip().split('\n')[0] or type(error).__name__
    wanted = re.search(r'GLOBAL (\S+)', str(error))
    if wanted or 'Unsupported numpy' in reason or reason.startswith(('Can only', 'Trying to')):
        return (
            f'{filename} holds more than weights: {wanted.group(1) if wanted else reason}. '
            f'Loading that could run any code, so it was not loaded. Take the weights from '
            f'a source that stores nothing else; or, if you trust whoever made the file as '
            f'you trust a program of theirs, set {TRUST}=1'
        )
    return (
        f'{filename} cannot be read as a PyTorch checkpoint ({reason.split(". ")[0]}); it may '
        f'be cut short or of another kind. Give a file that torch.save wrote'
    )


def guard_checkpoints(module: ModuleType) -> None:
    """Makes every loader of mmengine read data only, and read mmengine's own checkpoints."""
    import torch

    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        return  # no list of names to bind; `mmresnest doctor` warns of such a torch
    loader = module.CheckpointLoader
    unguarded = loader.load_checkpoint.__func__

    def load_checkpoint(cls: type, filename: str, *args: Any, **kwargs: Any) -> Any:
        if not trusts_checkpoints() or '://' in str(filename):  # trust is for files of one's own
            with _weights_only(filename):
                checkpoint = unguarded(cls, filename, *args, **kwargs)
                return without_program(settle(checkpoint))
        with _lock, switched_on('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'), warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # torch warns of what was just asked for
            return unguarded(cls, filename, *args, **kwargs)

    loader.load_checkpoint = classmethod(load_checkpoint)
    if hasattr(module, '_safe_torch_load'):
        vars(module)['_safe_torch_load'] = _load


def _load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """In place of the fork's loader, which retries without restriction what was just refused."""
    import torch

    return torch.load(file, map_location=map_location, weights_only=weights_only)


def without_program(checkpoint: Any) -> Any:
    """Drops the config under which the Runner looks for the number of GPUs: it would execute it.

    No version of mmengine that this package works with writes one there. They write
    ``meta['cfg']``, which nothing but mmengine's inferencers executes.
    """
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint
