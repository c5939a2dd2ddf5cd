"""Read checkpoints of torch.save as data, and judge what they claim before memory is taken for it.

A checkpoint is a pickle, and an unrestricted pickle runs whatever code its author put in it.
torch>=2.6 refuses every name that is not on a list. mmengine 0.10.7 lists none of its own and
cannot resume. The fork lists the real ones, and where even those do not suffice loads without
restriction. Here the list is :data:`.placeholders.PLACEHOLDERS`, whichever loader reads, and
:func:`check_checkpoint` goes through the file before torch does.
"""

import os
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

from ..errors import UserError
from ..utils.env import TRUST, enable_switch, is_on
from .nesting import check_nesting
from .pickles import BROKEN, CHECKPOINTS, SafeUnpickler, as_unpickling_errors, file_size
from .placeholders import PLACEHOLDERS, resolve_placeholders

MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which torch.save began a file before it wrote archives."""


def check_checkpoint(file: str | os.PathLike | IO[bytes], name: str | None = None) -> None:
    """Refuse a checkpoint that claims more than it has.

    Args:
        file: its path, or the open file, which is left where it was.
        name: how messages call it, if not by its path.

    Raises:
        UserError: it does.
        UnpicklingError: it names what torch would not call either, or is no checkpoint.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            check_checkpoint(opened, name or os.fspath(file))
        return
    start, size = file.tell(), file_size(file)
    try:
        with as_unpickling_errors():
            is_archive = file.read(4) == b'PK\3\4'
            file.seek(start)
            check = _check_archive if is_archive else _check_legacy_file
            check(file, size, name or 'the checkpoint')
    finally:
        file.seek(start)


def _check_archive(file: IO[bytes], size: int, name: str) -> None:
    with zipfile.ZipFile(file) as archive:
        records = _read_record_sizes(archive, size, name)
        pickles = [path for path in records if path.lower().endswith('/data.pkl')]
        if len(pickles) != 1:
            raise UnpicklingError(f'{len(pickles)} records data.pkl in the archive')
        folder = pickles[0][: -len('data.pkl')]
        if folder + 'constants.pkl' in records:
            raise UserError(
                f'{name} is a TorchScript archive, which is a program and holds more '
                f'than weights; save the state_dict() of its model by torch.save',
                code='checkpoint.unsafe',
            )

        def storage_size(key: str) -> int:
            return records.get(f'{folder}data/{key}', -1)

        with archive.open(pickles[0]) as opened:
            left = records[pickles[0]]
            reader = SafeUnpickler(opened, left, size, name, CHECKPOINTS, storage_size)
            check_nesting(reader.load(), name)


def _read_record_sizes(archive: zipfile.ZipFile, size: int, name: str) -> dict[str, int]:
    """Return the sizes of an archive's records; refuse any that torch.save does not lay out."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size:
        raise UserError(
            f'{name} cannot be read as a checkpoint: it has {size} bytes and unpacks '
            f'to {claimed}, which torch.save does not write',
            code='checkpoint.unsafe',
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
            f'compressed, overlap, or have one name, which torch.save does not write',
            code='checkpoint.unsafe',
        )
    return {entry.filename: entry.file_size for entry in entries}


def _check_legacy_file(file: IO[bytes], size: int, name: str) -> None:
    reader = SafeUnpickler(file, size - file.tell(), size, name, CHECKPOINTS)
    if reader.load() != MAGIC:
        raise UnpicklingError('Invalid magic number; corrupt file?')
    for _ in ('protocol', 'machine', 'content', 'keys of the storages'):
        check_nesting(reader.load(), name)
    claimed = sum(storage.size for storage in reader.storages.values())
    if claimed > size - file.tell():
        raise UserError(
            f'{name} cannot be read as a checkpoint: {size - file.tell()} bytes are '
            f'left for tensors that claim {claimed}',
            code='checkpoint.unsafe',
        )


_lock = threading.RLock()  # the list of safe globals and the environment belong to the process
_trusting = threading.local()


@contextmanager
def trust_checkpoints() -> Iterator[None]:
    """Let checkpoints within hold any object, and so run code: only for your own files."""
    before = getattr(_trusting, 'now', False)
    _trusting.now = True
    try:
        yield
    finally:
        _trusting.now = before


def trusts_checkpoints() -> bool:
    """Return whether the user has opted in, by :func:`trust_checkpoints` or by the environment."""
    return (
        getattr(_trusting, 'now', False)
        or is_on(TRUST)
        or is_on('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    )


def allow_placeholders() -> Any:
    """Return the context within which torch reads the names of :data:`PLACEHOLDERS`."""
    from torch import serialization

    allow = getattr(serialization, 'safe_globals', None)  # since torch 2.5
    return allow([(item, name) for name, item in PLACEHOLDERS.items()]) if allow else nullcontext()


@contextmanager
def read_weights_only(filename: str) -> Iterator[None]:
    """Have ``torch.load`` refuse code within, and say so in a user's words."""
    try:
        # torch.hub asks for weights_only=False by name; only this variable overrules it.
        with _lock, allow_placeholders(), enable_switch('TORCH_FORCE_WEIGHTS_ONLY_LOAD'):
            yield
    except UserError:
        raise
    except (UnpicklingError, EOFError, *BROKEN) as error:
        raise explain_load_error(filename, error) from error


@contextmanager
def read_any_object() -> Iterator[None]:
    """Have ``torch.load`` read whatever a trusted file holds."""
    with _lock, enable_switch('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'), warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # torch warns of what was just asked for
        yield


def explain_load_error(filename: str, error: Exception) -> UserError:
    """Tell a checkpoint that wants more than data from a file that is no checkpoint."""
    # torch's text is a paragraph of advice, and the reason on a line of its own, marked or not.
    reasons = str(error).partition('WeightsUnpickler error: ')[::2]
    reason = (reasons[1] or reasons[0]).strip().split('\n')[0] or type(error).__name__
    wanted = re.search(r'GLOBAL (\S+)', str(error))
    if wanted or 'Unsupported numpy' in reason or reason.startswith(('Can only', 'Trying to')):
        return UserError(
            f'{filename} holds more than weights: {wanted.group(1) if wanted else reason}. '
            f'Loading that could run any code, so it was not loaded. Take the weights from '
            f'a source that stores nothing else; or, if you trust whoever made the file as '
            f'you trust a program of theirs, set {TRUST}=1',
            code='checkpoint.unsafe',
        )
    return UserError(
        f'{filename} cannot be read as a PyTorch checkpoint ({reason.split(". ")[0]}); it may '
        f'be cut short or of another kind. Give a file that torch.save wrote',
        code='checkpoint.unreadable',
    )


def read_tensors(path: Path, trusted: bool = False) -> Any:
    """Return what a checkpoint file holds; what it has beside tensors may be placeholders.

    Args:
        path: the file.
        trusted: it may run code.

    Raises:
        UserError: it is broken, claims more than it is long, or holds more than data.
    """
    import torch

    try:
        with allow_placeholders(), warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # of a pickle's protocol; it raises, too
            if not trusted:
                check_checkpoint(path)
            return torch.load(path, map_location='cpu', weights_only=not trusted)
    except UserError:
        raise
    except Exception as error:
        wanted = re.search(r'GLOBAL (\S+)', str(error))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if wanted or 'WeightsUnpickler' in str(error):
            what = wanted.group(1) if wanted else 'objects'
            raise UserError(
                f'{path} cannot be read as a checkpoint of tensors: it holds {what}, '
                f'which could run code. If you trust whoever made this file as you '
                f'trust a program of theirs, give --trust-checkpoint (or set '
                f'{TRUST}=1)',
                code='checkpoint.unsafe',
            ) from error
        raise UserError(
            f'{path} cannot be read as a checkpoint of tensors ({reason}); it is '
            f'truncated, or not a checkpoint: fetch it again',
            code='checkpoint.unreadable',
        ) from error


def finish_checkpoint(checkpoint: Any, name: str) -> Any:
    """Resolve the placeholders of a checkpoint, and drop the config that the Runner would execute.

    The Runner looks for the number of GPUs in ``meta['config']``. No version of mmengine that this
    package works with writes one there. They write ``meta['cfg']``, which nothing but mmengine's
    inferencers executes.
    """
    checkpoint = resolve_placeholders(checkpoint)
    if isinstance(checkpoint, dict):
        wrong = [key for key, is_right in ENTRY_CHECKS.items() if not is_right(checkpoint.get(key))]
        if wrong:
            raise UserError(
                f'{name} cannot be read as a checkpoint: its {wrong[0]} is of a type that no '
                'training writes; fetch it again, or from another source',
                code='checkpoint.unreadable',
            )
        (checkpoint.get('meta') or {}).pop('config', None)
    return checkpoint


def _are_weights(value: Any) -> bool:
    return not isinstance(value, dict) or all(isinstance(key, str) for key in value)


def _is_meta(value: Any) -> bool:
    """Return whether classes are texts in what mmengine, mmdet 2 and mmseg 0 write."""
    if value is None:
        return True
    known = value.get('dataset_meta') if isinstance(value, dict) else 0
    return isinstance(known, (dict, type(None))) and all(
        _are_names(group.get(key))
        for group in (value, known or {})
        for key in ('classes', 'CLASSES', 'thing_classes', 'THING_CLASSES')
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, (str, type(None))) or (
        isinstance(value, (list, tuple)) and all(isinstance(name, (str, int)) for name in value)
    )


ENTRY_CHECKS = {'state_dict': _are_weights, 'meta': _is_meta}
"""Entry of a checkpoint -> whether what reads it later can, beside torch itself."""
