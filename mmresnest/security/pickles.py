"""One unpickler for the files of strangers, with a policy for checkpoints and one for data files.

A file of a few kilobytes can run code, and can ask for any amount of memory or time: by a tensor
with more elements than its storage, a call of ``bytearray``, or lists that hold each other twice,
thirty levels deep. :class:`SafeUnpickler` calls nothing that a pickle names: a policy says by which
function of ours a name is answered. Everything else is refused, and so is what claims more than the
file has.

* Under :data:`CHECKPOINTS` nothing is built but containers, numbers and texts. What passes is read
  a second time, by torch, which refuses code by itself and alone knows how to build tensors.
* Under :data:`DATA_FILES` arrays and tensors are built, too, and the result is what is returned.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from numbers import Number
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

from ..errors import UserError
from .nesting import OrderedItems, Unbuilt
from .placeholders import PLACEHOLDERS, Array, Placeholder

MOST_STEPS = 2**21
"""Operations of a checkpoint's pickle; one with the state of an optimizer has 10**5 or so."""

MOST_DATA_STEPS = 2**25
"""Operations of a data file's pickle; one with the boxes of COCO's training set has 2 * 10**7."""

SHARED, SPARE = 8, 2**26
"""Parts may be shared and expand: to so many times the file's size, and so many bytes."""

# fmt: off
_ITEM_SIZES = {
    'Double': 8, 'Float': 4, 'Half': 2, 'BFloat16': 2, 'ComplexDouble': 16, 'ComplexFloat': 8,
    'Long': 8, 'Int': 4, 'Short': 2, 'Char': 1, 'Byte': 1, 'Bool': 1,
    'QInt8': 1, 'QUInt8': 1, 'QInt32': 4, 'Untyped': 1,
}
# fmt: on
"""Bytes of an element, by the name of a storage's class."""

_BASIC_OPERATIONS = """
    GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE
    NEWFALSE NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT
    BINUNICODE SHORT_BINSTRING BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1 PROTO STOP
""".split()
"""What torch reads of pickle's language, beside BINPERSID."""

_OTHER_OPERATIONS = """
    STACK_GLOBAL MEMOIZE FRAME ADDITEMS POP POP_MARK DUP LONG4 SHORT_BINUNICODE BINUNICODE8 BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINSTRING INT LONG FLOAT STRING UNICODE GET PUT LIST DICT
""".split()
"""What data files in pickle's other protocols use."""


BROKEN = (
    BadZipFile,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""What Python and torch raise of files that are cut short or of another kind."""


class _Name(Placeholder):
    """Something that a pickle names and that is not looked up."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def value(self) -> Any:
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {self.name}')


class _Storage(NamedTuple):
    """The memory that a pickle claims for a tensor."""

    size: int  # in bytes
    item: int


class _BoundedReader:
    """A file that refuses to be read too often or beyond its end."""

    def __init__(self, file: IO[bytes], left: int, name: str, most_steps: int) -> None:
        self.file, self.left, self.name = file, left, name
        self.most_reads = 2 * most_steps  # an operation and what it is given
        self.reads = 0

    def read(self, count: int) -> bytes:
        if count > self.left:  # before memory for that many is asked for
            raise EOFError(f'{count} bytes are wanted and {self.left} are left')
        self.reads += 1
        if self.reads > self.most_reads:
            raise UserError(
                f'{self.name} cannot be read: it has more than {self.most_reads // 2} objects',
                code='checkpoint.unsafe',
            )
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline(self.left)
        self.left -= len(line)
        self.reads += 1
        return line


class _Dispatch(dict):
    """The operations of a policy by their codes."""

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f'Unsupported operand {code}')


class SafeUnpickler(pickle._Unpickler):
    """Read a pickle, calling nothing that it names.

    Args:
        file: where the pickle begins.
        left: the bytes from there to the end of what may be read.
        size: of the whole file.
        name: how messages call it.
        policy: what it may hold.
        storage_size: the size of a storage by its key, -1 if there is none; None if the storages
            follow the pickle.
    """

    stack: list[Any]  # as load() makes it, like the two below
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(
        self,
        file: IO[bytes],
        left: int,
        size: int,
        name: str,
        policy: Policy,
        storage_size: Callable[[str], int] | None = None,
    ) -> None:
        self.reader = _BoundedReader(file, left, name, policy.most_steps)
        super().__init__(self.reader, encoding='utf-8')
        self.name, self.policy, self.storage_size = name, policy, storage_size
        vars(self)['dispatch'] = policy.dispatch
        self.storages: dict[Any, _Storage] = {}
        self.bytes_left = SHARED * size + SPARE

    def refuse(self, claim: str) -> UserError:
        """Return the error for a claim."""
        return UserError(
            f'{self.name} cannot be read: {claim}, {self.policy.advice}', code=self.policy.code
        )

    def spend(self, count: int) -> None:
        """Count the bytes or parts of something that is made of what the file holds."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise self.refuse('what it builds takes many times what it has')

    def find_class(self, module: str, name: str) -> Any:
        """Look nothing up."""
        renamed = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}  # as Python 2 called them
        return _Name(f'{renamed.get(module, module)}.{name}')

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the claim of a storage."""
        kind, key, _, count = pid[1:5]
        word = kind.name.rpartition('.')[2] if isinstance(kind, _Name) else ''
        item = _ITEM_SIZES.get(word.removesuffix('Storage'))
        if pid[0] != 'storage' or item is None or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f'Unsupported storage {pid!r:.100}')
        claimed = _Storage(count * item, item)
        if self.storage_size is not None:
            size = self.storage_size(key)
            if claimed.size > size:
                raise self.refuse(
                    f'its storage {key!r:.20} claims {claimed.size} bytes and has {max(size, 0)}'
                )
            return claimed
        root = self.storages.setdefault(key, claimed)
        if pid[5] is None:
            return root
        _, offset, count = pid[5]
        if min(offset, count) < 0 or (offset + count) * item > root.size:
            raise self.refuse(f'a part of its storage {key!r:.20} lies outside of it')
        return _Storage(count * item, item)

    def check_tensor(
        self, item: int, storage: _Storage, offset: int, size: Any, stride: Any
    ) -> None:
        """Refuse a tensor outside its storage, or one that expands to more than the file is."""
        if len(size) != len(stride) or any(
            type(number) is not int or number < 0 for number in (offset, *size, *stride)
        ):
            raise self.refuse(
                f'a tensor claims the shape {size!r:.60}, the strides {stride!r:.60} '
                f'and the offset {offset!r:.20}'
            )
        last = offset + sum((count - 1) * step for count, step in zip(size, stride))
        if 0 not in size and (last + 1) * item > storage.size:
            raise self.refuse(
                f'a tensor of the shape {size!r:.60} and the strides {stride!r:.60} '
                f'lies outside its storage of {storage.size} bytes'
            )
        self.bytes_left -= prod(size) * item
        if self.bytes_left < 0:
            raise self.refuse(
                f'its tensors claim many times what it has: one the shape {size!r:.60}'
            )

    def build(self, called: Any, arguments: Any) -> Any:
        """Return what stands for the result of a call."""
        name = called.name if isinstance(called, _Name) else type(called).__name__
        function = self.policy.names.get(name)
        if function is None or type(arguments) is not tuple:
            raise pickle.UnpicklingError(
                f'Unsupported global: GLOBAL {name.removeprefix("builtins.")}'
            )
        self.spend(64 + sum(map(_copied_size, arguments)))
        return function(self, name, *arguments)

    # Operations of pickle in their safe form; the names are those of pickle's own methods.

    def load_reduce(self) -> None:
        """Call what the policy has for a name."""
        arguments = self.stack.pop()
        self.stack[-1] = self.build(self.stack[-1], arguments)

    load_newobj = load_reduce

    def load_build(self) -> None:
        """Set the state of what was built."""
        state = self.stack.pop()
        built: Any = self.stack[-1]
        if not isinstance(built, self.policy.stateful):
            raise pickle.UnpicklingError(
                f'Can only build tensors and dictionaries, but got {type(built).__name__}'
            )
        if isinstance(state, tuple):
            self.spend(
                sum(len(part) for part in state if isinstance(part, (bytes, bytearray, str)))
            )
        built.__setstate__(state)

    def load_append(self) -> None:
        """Append to a list, and to nothing else."""
        item = self.stack.pop()
        _require(list, self.stack[-1]).append(item)

    def load_appends(self) -> None:
        """Append several items to a list."""
        items = self.pop_mark()
        _require(list, self.stack[-1]).extend(items)

    def load_additems(self) -> None:
        """Add items to a set."""
        items = self.pop_mark()
        self.check_keys(items)
        _require(set, self.stack[-1]).update(items)

    def load_setitem(self) -> None:
        """Set one item of a dictionary."""
        key, value = self.stack[-2:]
        del self.stack[-2:]
        self.check_keys([key])
        _require(dict, self.stack[-1])[key] = value

    def load_setitems(self) -> None:
        """Set several items of a dictionary."""
        items = self.pop_mark()
        self.check_keys(items[::2])
        _require(dict, self.stack[-1]).update(zip(items[::2], items[1::2]))

    def load_dict(self) -> None:
        """Make a dictionary of the items on the stack."""
        items = self.pop_mark()
        self.check_keys(items[::2])
        self.stack.append(dict(zip(items[::2], items[1::2])))

    def load_bytearray8(self) -> None:
        """Read the bytes of an array in protocol 5, before memory for them is taken."""
        (length,) = struct.unpack('<Q', self.read(8))
        self.stack.append(bytearray(self.read(length)))

    def load_frame(self) -> None:
        """Skip the length of a frame, so that every read is counted."""
        self.read(8)

    def check_keys(self, keys: Iterable[Any]) -> None:
        """Refuse keys other than numbers, texts and flat tuples: a hash goes through all levels."""
        for key in keys:
            if type(key) in (str, int):
                continue
            for part in key if type(key) is tuple else (key,):
                if not isinstance(part, (str, bytes, Number, type(None))):
                    raise pickle.UnpicklingError(
                        f'Unsupported key of a dictionary or set: a {type(part).__name__}'
                    )
            if type(key) is tuple:
                self.spend(len(key))


def _copied_size(value: Any) -> int:
    """Return the bytes that a copy of a value takes, without what it holds."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return 64 * len(value) if isinstance(value, (list, tuple, dict, set)) else 0


def _require(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f'Unsupported {kind.__name__}: a {type(value).__name__}')
    return value


# What answers a name: functions of the reader, the name, and the arguments of the call.


def _leave_unbuilt(reader: SafeUnpickler, name: str, *arguments: Any) -> Any:
    if name in ('builtins.set', 'collections.Counter'):
        reader.check_keys(*arguments)
    return Unbuilt(*arguments)


def _build_ordered(reader: SafeUnpickler, name: str, pairs: Any = ()) -> dict:
    ordered = OrderedItems()
    for key, value in pairs:
        reader.check_keys([key])
        ordered[key] = value
    return ordered


def _build_plain_dict(reader: SafeUnpickler, name: str, pairs: Any = ()) -> dict:
    return dict(_build_ordered(reader, name, pairs))


def _build_set(reader: SafeUnpickler, name: str, items: Any = ()) -> set:
    reader.check_keys(items)
    return set(items)


def _build_size(reader: SafeUnpickler, name: str, size: Any = ()) -> tuple:
    return tuple(size)


def _encode_latin1(reader: SafeUnpickler, name: str, text: str, code: str) -> bytes:
    if code != 'latin1':
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL _codecs.encode to {code!r:.40}')
    return text.encode(code)


def _rebuild_subclass(reader: SafeUnpickler, name: str, *arguments: Any) -> Unbuilt:
    function, _, inner, state = arguments
    return Unbuilt(reader.build(function, inner), state)


def _claim_tensor(reader: SafeUnpickler, name: str, *arguments: Any) -> Unbuilt:
    storage, offset, size, stride, *more = arguments
    item = _item_size(more[2].name) if name.endswith('_v3') else storage.item
    reader.check_tensor(item, storage, offset, size, stride)
    return Unbuilt(*more)


def _item_size(dtype: str) -> int:
    """Return the bytes of an element of a dtype such as ``torch.float8_e4m3fn``."""
    bits = re.fullmatch(r'torch\.[a-z]+(\d+)?\w*', dtype)
    if bits is None:
        raise pickle.UnpicklingError(f'Unsupported dtype {dtype:.40}')
    return -(-int(bits.group(1) or 8) // 8)


def _build_placeholder(reader: SafeUnpickler, name: str, *arguments: Any) -> Any:
    named = [PLACEHOLDERS.get(part.name) if isinstance(part, _Name) else part for part in arguments]
    return PLACEHOLDERS[name](*named)


def _build_array(reader: SafeUnpickler, name: str, *arguments: Any) -> Array:
    data, dtype, shape, order, *axes = arguments
    if axes not in ([], [None]):
        raise pickle.UnpicklingError(f'Unsupported axes {axes!r:.40} of an array')
    array = Array()
    array.__setstate__((1, shape, dtype, order == 'F', data))
    return array


def _build_tensor(reader: SafeUnpickler, name: str, *arguments: Any) -> Any:
    import torch

    storage, offset, size, stride, requires_grad, *_ = arguments
    claimed = _Storage(storage._untyped_storage.nbytes(), storage.dtype.itemsize)
    reader.check_tensor(claimed.item, claimed, offset, size, stride)
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad is True, {})


@dataclass(frozen=True)
class Policy:
    """What a pickle may hold, and how what it names is answered."""

    names: Mapping[str, Callable[..., Any]]
    """What it may call, and by which function of ours the call is answered."""
    operations: tuple[str, ...]
    """Of pickle's language."""
    stateful: tuple[type[Any], ...]
    """The classes of what may be given a state."""
    most_steps: int
    """How many operations it may have."""
    advice: str
    """How the refusal of a claim ends."""
    code: str
    """Of the refusal."""

    @cached_property
    def dispatch(self) -> _Dispatch:
        """The functions of the operations; those of :class:`SafeUnpickler` where it has any."""
        table = _Dispatch()
        for word in self.operations:
            code = getattr(pickle, word)[0]
            table[code] = getattr(SafeUnpickler, pickle._Unpickler.dispatch[code].__name__)
        return table


CHECKPOINTS = Policy(
    {
        **dict.fromkeys(
            (
                *PLACEHOLDERS,
                'builtins.complex',
                'builtins.set',
                'collections.Counter',  # the milestones of a MultiStepLR
                'torch._utils._rebuild_parameter',
                'torch._utils._rebuild_parameter_with_state',
                'torch.device',
                'torch.nn.parameter.Parameter',
                'torch.serialization._get_layout',
            ),
            _leave_unbuilt,  # none is larger than what it is given
        ),
        'collections.OrderedDict': _build_ordered,
        'torch.Size': _build_size,
        'torch._tensor._rebuild_from_type_v2': _rebuild_subclass,
        'torch._utils._rebuild_qtensor': _claim_tensor,
        'torch._utils._rebuild_tensor': _claim_tensor,
        'torch._utils._rebuild_tensor_v2': _claim_tensor,
        'torch._utils._rebuild_tensor_v3': _claim_tensor,
        '_codecs.encode': _encode_latin1,  # bytes, in protocol 2
    },
    (*_BASIC_OPERATIONS, 'BINPERSID'),
    (Unbuilt, OrderedItems),
    MOST_STEPS,
    'which torch.save does not write; fetch it again, or from another source',
    'checkpoint.unsafe',
)
"""What torch's own list has and takes no more memory than the file, and what mmengine writes."""

DATA_FILES = Policy(
    {
        **dict.fromkeys(PLACEHOLDERS, _build_placeholder),
        'builtins.set': _build_set,
        'collections.OrderedDict': _build_plain_dict,  # the hooks of a tensor, always empty
        'numpy._core.numeric._frombuffer': _build_array,  # as protocol 5 has arrays
        'numpy.core.numeric._frombuffer': _build_array,
        'torch._utils._rebuild_tensor_v2': _build_tensor,
        '_codecs.encode': _encode_latin1,
    },
    (*_BASIC_OPERATIONS, *_OTHER_OPERATIONS),
    (Placeholder,),
    MOST_DATA_STEPS,
    'which no program writes as data; make it again, or write it as .json',
    'data.unsafe',
)
"""Containers, numbers, texts and arrays; :mod:`.data_files` adds the storages of tensors."""


@contextmanager
def as_unpickling_errors() -> Iterator[None]:
    """Raise whatever a broken pickle raises as one error, ``pickle.UnpicklingError``."""
    try:
        yield
    except (UserError, pickle.UnpicklingError, EOFError):
        raise
    except BROKEN as error:
        raise pickle.UnpicklingError(f'{type(error).__name__}: {error}') from error


def file_size(file: IO[bytes]) -> int:
    """Return the size of an open file in bytes, and leave it where it was."""
    start = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    return size
