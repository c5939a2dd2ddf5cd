"""What a checkpoint file claims to hold, against what it has, before anything of it is made.

A file of a few kilobytes can ask for any amount of memory or time: by an archive that unpacks to
more than it is, a tensor with more elements than its storage, a call of ``bytearray``, or lists
that hold each other twice, thirty levels deep.  So its pickle is gone through once with stand-ins
in the place of all that it names: nothing of it is called, and no tensor is made.  What passes is
left to torch, which refuses code by itself; most of that is refused here already.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import prod
from typing import IO, Any, NamedTuple

from ..errors import UserError

MOST_STEPS = 2**21
"""Operations of a pickle; a network with the state of its optimiser has some hundred thousand."""

MOST_NODES = 10**6
"""Parts of all nested containers, with what is held twice counted twice."""

MOST_LEVELS = 100

SHARED, SPARE = 8, 2**26
"""Tensors may share storages and expand: to so many times the file's size, and so many bytes."""

MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which torch.save began a file before it wrote archives."""

#: bytes of an element, by the name of a storage's class
ITEMS = {
    'Double': 8,
    'Float': 4,
    'Half': 2,
    'BFloat16': 2,
    'Long': 8,
    'Int': 4,
    'Short': 2,
    'Char': 1,
    'Byte': 1,
    'Bool': 1,
    'ComplexDouble': 16,
    'ComplexFloat': 8,
    'QInt8': 1,
    'QUInt8': 1,
    'QInt32': 4,
    'Untyped': 1,
}

#: what torch reads of pickle's language
OPERATIONS = (
    'GLOBAL',
    'NEWOBJ',
    'REDUCE',
    'BUILD',
    'APPEND',
    'APPENDS',
    'SETITEM',
    'SETITEMS',
    'MARK',
    'TUPLE',
    'TUPLE1',
    'TUPLE2',
    'TUPLE3',
    'NONE',
    'NEWFALSE',
    'NEWTRUE',
    'EMPTY_TUPLE',
    'EMPTY_LIST',
    'EMPTY_DICT',
    'EMPTY_SET',
    'BININT',
    'BININT1',
    'BININT2',
    'BINFLOAT',
    'BINUNICODE',
    'SHORT_BINSTRING',
    'BINPERSID',
    'BINGET',
    'LONG_BINGET',
    'BINPUT',
    'LONG_BINPUT',
    'LONG1',
    'PROTO',
    'STOP',
)

#: functions whose results are as large as what they are given
PLAIN = frozenset(
    (
        'builtins.bytes',
        'builtins.complex',
        'builtins.getattr',
        'builtins.set',
        'collections.Counter',  # the milestones of a MultiStepLR
        'mmengine.logging.history_buffer.HistoryBuffer',
        'numpy.dtype',
        'numpy.ndarray',
        'numpy._core.multiarray._reconstruct',
        'numpy._core.multiarray.scalar',
        'numpy.core.multiarray._reconstruct',
        'numpy.core.multiarray.scalar',
        'torch._utils._rebuild_parameter',
        'torch._utils._rebuild_parameter_with_state',
        'torch.device',
        'torch.nn.parameter.Parameter',
        'torch.serialization._get_layout',
    )
)


def check(file: str | os.PathLike | IO[bytes], name: str | None = None) -> None:
    """Refuses a checkpoint that claims more than it has.

    Args:
        file: its path, or the open file, which is left where it was.
        name: how messages call it, if not by its path.

    Raises:
        UserError: it does.
        UnpicklingError: it names what torch would not call either, or is no checkpoint.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            check(opened, name or os.fspath(file))
        return
    start = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    try:
        with _plainly():
            if file.read(4) == b'PK\3\4':
                _check_archive(file, size, name or 'the checkpoint')
            else:
                file.seek(start)
                _check_legacy(file, size, name or 'the checkpoint')
    finally:
        file.seek(start)


@contextmanager
def _plainly() -> Iterator[None]:
    """Whatever a broken pickle raises, as one error."""
    try:
        yield
    except (UserError, pickle.UnpicklingError, EOFError):
        raise
    except (
        zipfile.BadZipFile,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise pickle.UnpicklingError(f'{type(error).__name__}: {error}') from error


# Files -------------------------------------------------------------------------------------------


def _check_archive(file: IO[bytes], size: int, name: str) -> None:
    with zipfile.ZipFile(file) as archive:
        records = _records(archive, size, name)
        pickles = [path for path in records if path.lower().endswith('/data.pkl')]
        if len(pickles) != 1:
            raise pickle.UnpicklingError(f'{len(pickles)} records data.pkl in the archive')
        folder = pickles[0][: -len('data.pkl')]
        if folder + 'constants.pkl' in records:
            raise UserError(
                f'{name} is a TorchScript archive, which is a program and holds more '
                f'than weights; save the state_dict() of its model by torch.save'
            )
        with archive.open(pickles[0]) as opened:
            reader = _Reader(
                opened,
                records[pickles[0]],
                size,
                name,
                lambda key: records.get(f'{folder}data/{key}', -1),
            )
            check_nesting(reader.load(), name)


def _records(archive: zipfile.ZipFile, size: int, name: str) -> dict[str, int]:
    """The records of an archive and their sizes; they are as torch.save lays them out."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size:
        raise UserError(
            f'{name} cannot be read as a checkpoint: it has {size} bytes and unpacks '
            f'to {claimed}, which torch.save does not write'
        )
    # Archives that two readers read differently: here the records, there others.
    ends = [entry.header_offset + 30 + entry.compress_size for entry in entries]
    starts = [entry.header_offset for entry in entries] + [archive.start_dir]
    names = {path.lower() for path in archive.namelist()}  # torch looks up records like this
    if (
        any(end > start for end, start in zip(ends, starts[1:]))
        or starts[0] != 0
        or len(names) != len(entries)
        or archive.comment
        or any(
            entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size
            for entry in entries
        )
    ):
        raise UserError(
            f'{name} cannot be read as a checkpoint: the records of its archive are '
            f'compressed, overlap, or have one name, which torch.save does not write'
        )
    return {entry.filename: entry.file_size for entry in entries}


def _check_legacy(file: IO[bytes], size: int, name: str) -> None:
    reader = _Reader(file, size - file.tell(), size, name, None)
    if reader.load() != MAGIC:
        raise pickle.UnpicklingError('Invalid magic number; corrupt file?')
    for _ in ('protocol', 'machine', 'content', 'keys of the storages'):
        check_nesting(reader.load(), name)
    claimed = sum(storage.size for storage in reader.storages.values())
    if claimed > size - file.tell():
        raise UserError(
            f'{name} cannot be read as a checkpoint: {size - file.tell()} bytes are '
            f'left for tensors that claim {claimed}'
        )


# Pickles -----------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """Something that a pickle names and that is not looked up."""

    name: str


class _Storage(NamedTuple):
    """The memory of a tensor."""

    size: int  # in bytes
    item: int


class _Made:
    """What a call would make, and what it was given."""

    __slots__ = ('parts',)

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)


class _Ordered(dict):
    """An OrderedDict, which carries attributes beside its items."""

    state: Any = None


class _Operations(dict):
    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f'Unsupported operand {code}')


class _Counted:
    """A file that refuses to be read too often or beyond its end."""

    def __init__(self, file: IO[bytes], left: int, name: str) -> None:
        self.file, self.left, self.name, self.steps = file, left, name, 0

    def read(self, count: int) -> bytes:
        if count > self.left:  # before memory for that many is asked for
            raise EOFError(f'{count} bytes are wanted and {self.left} are left')
        self.steps += 1
        if self.steps > 2 * MOST_STEPS:  # an operation and what it is given
            raise UserError(
                f'{self.name} cannot be read as a checkpoint: it describes more than '
                f'{MOST_STEPS} objects'
            )
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline(1000)
        self.left -= len(line)
        return line


_THEIRS: dict[int, Callable] = pickle._Unpickler.dispatch


class _Reader(pickle._Unpickler):
    """Reads a pickle, with stand-ins for all but containers, numbers and texts.

    Args:
        file: where the pickle begins.
        left: the bytes from there to the end of what may be read.
        size: of the whole file.
        name: how messages call it.
        record: gives the size of a storage by its key, -1 if there is none; None if the storages
            follow the pickle.
    """

    stack: list[Any]  # as load() makes it

    def __init__(
        self, file: IO[bytes], left: int, size: int, name: str, record: Callable[[str], int] | None
    ) -> None:
        super().__init__(_Counted(file, left, name), encoding='utf-8')
        self.name, self.record = name, record
        self.storages: dict[Any, _Storage] = {}
        self.left = SHARED * size + SPARE

    def refuse(self, said: str) -> UserError:
        """The error for a claim."""
        return UserError(
            f'{self.name} cannot be read as a checkpoint: {said}, which torch.save '
            f'does not write; fetch it again, or from another source'
        )

    def find_class(self, module: str, name: str) -> Any:
        """Looks nothing up."""
        renamed = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}  # as Python 2 called them
        return _Name(f'{renamed.get(module, module)}.{name}')

    def persistent_load(self, pid: Any) -> _Storage:
        """The claim of a storage."""
        kind, key, _, numel = pid[1:5]
        word = kind.name.rpartition('.')[2] if isinstance(kind, _Name) else ''
        item = ITEMS.get(word.removesuffix('Storage'))
        if pid[0] != 'storage' or item is None or type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError(f'Unsupported storage {pid!r:.100}')
        claimed = _Storage(numel * item, item)
        if self.record is not None:
            if claimed.size > self.record(key):
                raise self.refuse(
                    f'its storage {key!r:.20} claims {claimed.size} bytes and has '
                    f'{max(self.record(key), 0)}'
                )
            return claimed
        root = self.storages.setdefault(key, claimed)
        if pid[5] is None:
            return root
        _, offset, count = pid[5]
        if min(offset, count) < 0 or (offset + count) * item > root.size:
            raise self.refuse(f'a part of its storage {key!r:.20} lies outside of it')
        return _Storage(count * item, item)

    def call(self) -> None:
        """In place of calling what the pickle names."""
        arguments = self.stack.pop()
        self.stack[-1] = self.made(self.stack[-1], arguments)

    def made(self, called: Any, arguments: tuple) -> Any:
        """What a call would make."""
        name = called.name if isinstance(called, _Name) else type(called).__name__
        if name == 'collections.OrderedDict':
            made = _Ordered()
            for key, value in arguments[0] if arguments else ():
                _check_keys([key])
                made[key] = value
            return made
        if name in ('builtins.set', 'collections.Counter'):
            _check_keys(*arguments)
        if name == 'torch.Size':
            return tuple(*arguments)
        if name == 'torch._tensor._rebuild_from_type_v2':
            function, _, inner, state = arguments
            return _Made(self.made(function, inner), state)
        if name == '_codecs.encode' and arguments[1:] == ('latin1',):  # bytes, in protocol 2
            return arguments[0].encode('latin1')
        if name in (
            'torch._utils._rebuild_tensor',
            'torch._utils._rebuild_tensor_v2',
            'torch._utils._rebuild_qtensor',
        ):
            return self.tensor(arguments[0].item, *arguments)
        if name == 'torch._utils._rebuild_tensor_v3':
            return self.tensor(_item_of(arguments[6]), *arguments)
        if name not in PLAIN:
            raise pickle.UnpicklingError(
                f'Unsupported global: GLOBAL {name.removeprefix("builtins.")}'
            )
        return _Made(*arguments)

    def tensor(
        self, item: int, storage: _Storage, offset: int, size: tuple, stride: tuple, *more: Any
    ) -> _Made:
        """A tensor that lies within its storage, and does not expand to more than the file is."""
        if len(size) != len(stride) or any(
            type(number) is not int or number < 0 for number in (offset, *size, *stride)
        ):
            raise self.refuse(
                f'a tensor claims the shape {size!r:.60}, the strides '
                f'{stride!r:.60} and the offset {offset!r:.20}'
            )
        last = sum((count - 1) * step for count, step in zip(size, stride))
        if 0 not in size and (offset + last + 1) * item > storage.size:
            raise self.refuse(
                f'a tensor of the shape {size!r:.60} and the strides {stride!r:.60} '
                f'lies outside its storage of {storage.size} bytes'
            )
        self.left -= prod(size) * item
        if self.left < 0:
            raise self.refuse(
                f'its tensors claim many times what it has: one the shape {size!r:.60}'
            )
        return _Made(*more)

    def build(self) -> None:
        """In place of setting attributes."""
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, _Made):
            made.parts.append(state)
        elif isinstance(made, _Ordered) and isinstance(state, dict):
            made.state = state
        else:
            raise pickle.UnpicklingError(
                f'Can only build tensors and dictionaries, but got {type(made).__name__}'
            )

    def item(self) -> None:
        """One item of a dictionary."""
        _check_keys(self.stack[-2:-1])
        _THEIRS[pickle.SETITEM[0]](self)

    def items(self) -> None:
        """Several."""
        _check_keys(self.stack[::2])
        _THEIRS[pickle.SETITEMS[0]](self)

    dispatch = _Operations(
        (code, _THEIRS[code]) for code in (getattr(pickle, word)[0] for word in OPERATIONS)
    )
    dispatch.update(
        {
            pickle.REDUCE[0]: call,
            pickle.NEWOBJ[0]: call,
            pickle.BUILD[0]: build,
            pickle.SETITEM[0]: item,
            pickle.SETITEMS[0]: items,
        }
    )


def _check_keys(keys: Iterable[Any]) -> None:
    """Numbers and texts only: hashing a tuple goes through whatever is nested in it."""
    for key in keys:
        if not isinstance(key, (str, bytes, int, float, type(None))):
            raise pickle.UnpicklingError(
                f'Unsupported key of a dictionary or set: a {type(key).__name__}'
            )


def _item_of(dtype: Any) -> int:
    """The bytes of an element of a dtype such as ``torch.float8_e4m3fn``."""
    bits = re.fullmatch(r'torch\.[a-z]+(\d+)?\w*', dtype.name)
    if bits is None:
        raise pickle.UnpicklingError(f'Unsupported dtype {dtype.name:.40}')
    return -(-int(bits.group(1) or 8) // 8)


# Nesting -----------------------------------------------------------------------------------------


def check_nesting(root: Any, name: str) -> int:
    """Refuses containers whose parts are too many when each is counted wherever it is held.

    Whoever copies, compares or prints nested containers does so by recursion, and meets twice what
    is held twice.

    Returns:
        how many they are.

    Raises:
        UserError: they are too many, too deep, or hold themselves.
    """
    done: dict[int, tuple[int, int]] = {}  # by identity: parts, levels
    opened: set[int] = set()
    stack = [root]
    while stack:
        value = stack[-1]
        if id(value) in done:
            stack.pop()
            continue
        total, inner = 1, []
        for part in _parts(value):
            total += 1
            if isinstance(part, _NESTING):
                inner.append(part)
        waiting = [part for part in inner if id(part) not in done]
        if not waiting:
            known = [done[id(part)] for part in inner]
            total += sum(parts for parts, _ in known)
            levels = 1 + max((levels for _, levels in known), default=0)
            if total > MOST_NODES + 4 * len(done) or levels > MOST_LEVELS:
                raise UserError(
                    f'{name} cannot be read: what it holds is nested {levels} levels '
                    f'deep and has {total} parts when unfolded, of which '
                    f'{MOST_LEVELS} and {MOST_NODES} are accepted'
                )
            done[id(value)] = total, levels
            stack.pop()
        elif id(value) in opened:
            raise UserError(f'{name} cannot be read: it holds a container that holds itself')
        else:
            opened.add(id(value))
            stack.extend(waiting)
    return done[id(root)][0]


_NESTING = (dict, list, tuple, set, _Made)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
        if isinstance(value, _Ordered) and value.state is not None:
            yield value.state
    elif isinstance(value, _Made):
        yield from value.parts
    elif isinstance(value, (list, tuple, set)):
        yield from value
