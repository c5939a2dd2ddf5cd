"""The names of other packages' classes that pickles of data carry, and what each is bound to.

torch>=2.6 reads a checkpoint by a list of names. mmengine's own checkpoints need three that are not
on it: HistoryBuffer, numpy's arrays, and ``getattr``, by which pickle names methods. The real ones
are open doors: with the real ``getattr`` a pickle reaches ``eval`` through ``getattr.__self__``,
and a pickled dtype may claim that an array of numbers is one of object pointers
(tests/compat/test_compat.py does the former). So the names are bound to the few lines below, which
understand what mmengine and numpy write and nothing else. Data files are read by the same list.
"""

import re
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any


class Placeholder:
    """What a name on the list builds during reading; :func:`resolve_placeholders` replaces it."""

    @property
    def value(self) -> Any:
        """The object that this stands for."""
        raise UnpicklingError(f'Unsupported {type(self).__name__} without a state')


class _Dtype(Placeholder):
    """``numpy.dtype`` of numbers, booleans and text of fixed length, never of objects."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not (isinstance(code, str) and re.fullmatch(r'[biufcSU]\d{1,4}', code)):
            raise UnpicklingError(f'Unsupported numpy dtype {code!r:.80}')
        self._code = code

    def __setstate__(self, state: tuple) -> None:
        order, *fields = state[1:5]
        if fields != [None] * 3 or order not in ('<', '>', '=', '|'):
            raise UnpicklingError(f'Unsupported numpy dtype state {state!r:.80}')
        self._code = order + self._code.lstrip('<>=|')

    @property
    def value(self) -> Any:
        import numpy as np

        return np.dtype(self._code)

    def read(self, data: bytes) -> Any:
        """Return the flat array that these bytes are."""
        import numpy as np

        return np.frombuffer(data, self.value).copy()


class Array(Placeholder):
    """``numpy.ndarray``."""

    value: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = dtype.read(data).reshape(shape, order='F' if is_fortran else 'C')


class _History(Placeholder):
    """mmengine's ``HistoryBuffer``, which is not imported before it is asked for."""

    state: dict

    def __setstate__(self, state: dict) -> None:
        self.state = state

    @property
    def value(self) -> Any:
        from mmengine.logging import HistoryBuffer

        log, count = self.state['_log_history'].value, self.state['_count_history'].value
        return HistoryBuffer(log, count, self.state['max_length'])


def _reconstruct_array(kind: type, shape: tuple, code: bytes) -> Array:
    if kind is not Array:
        raise UnpicklingError(f'Unsupported kind of array {kind!r:.80}')
    return Array()


def _read_scalar(dtype: _Dtype, data: bytes) -> Any:
    return dtype.read(data)[0]


def _skip_method(owner: Any, name: str) -> None:
    # HistoryBuffer carries its methods in its state by name. They are those of its class, which
    # the rebuilt one has anyway, so nothing need be looked up.
    if owner is not _History:
        raise UnpicklingError(f'Unsupported global: GLOBAL getattr of {owner!r:.80}')


def _empty_bytes() -> bytes:
    # How pickle's protocol 2, which torch.save writes, says b'': the data of an empty array.
    return b''


PLACEHOLDERS: dict[str, Callable] = {
    'builtins.bytes': _empty_bytes,
    'builtins.getattr': _skip_method,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': Array,
    'numpy._core.multiarray._reconstruct': _reconstruct_array,
    'numpy._core.multiarray.scalar': _read_scalar,
    'numpy.core.multiarray._reconstruct': _reconstruct_array,  # as numpy 1 wrote them
    'numpy.core.multiarray.scalar': _read_scalar,
}
"""The names, beside those of :data:`.pickles.CHECKPOINTS` and :data:`.pickles.DATA_FILES`."""


def resolve_placeholders(value: Any, known: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Put the values in place of the placeholders, wherever they are nested.

    Args:
        value: what was read.
        known: what was resolved already, by identity: once is enough for what is held twice.

    Returns:
        the same; tuples are new.
    """
    if isinstance(value, Placeholder):
        return value.value
    if not isinstance(value, (dict, list, tuple)):
        return value
    known = {} if known is None else known
    if id(value) not in known:
        result: Any = value
        if isinstance(value, dict):  # in place: an OrderedDict of weights carries _metadata
            for key, item in value.items():
                value[key] = resolve_placeholders(item, known)
        elif type(value) is list:
            value[:] = [resolve_placeholders(item, known) for item in value]
        elif type(value) is tuple:
            result = tuple(resolve_placeholders(item, known) for item in value)
        known[id(value)] = value, result  # kept, lest another one takes its identity
    return known[id(value)][1]
