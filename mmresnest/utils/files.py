"""Files that are whole or not there, with their hash beside them.

A file is written under another name in its folder, flushed to the disk, read again, and only then
renamed; whoever is killed meanwhile leaves the old one as it was.  Beside ``x.pth`` stands
``x.pth.sha256``, in the form that ``sha256sum --check`` reads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

CHUNK = 2**20  # bytes that are read at once
PART = '.part'
"""How the name of a file ends that is being written, after the number of the process."""


def write_whole(
    path: str | os.PathLike, write: Callable[[Any], None], ready: Callable[[], None] | None = None
) -> str:
    """Write a file so that nobody ever sees half of it.

    Args:
        path: the file; an old one of this name is replaced.
        write: is given something with a method ``write``, and writes the contents into it.
        ready: called when all is on the disk and the old file is about to be replaced.

    Returns:
        the sha256 of what was written, in hex digits.

    Raises:
        OSError: it cannot be written, or what the disk returns is something else. The old file is
            as it was.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f'{file.name}.{os.getpid()}{PART}')
    try:
        with open(part, 'wb') as raw:
            out = _HashingWriter(raw)
            write(out)
            out.close()
            os.fsync(raw.fileno())
            if hasattr(os, 'posix_fadvise'):  # so that it is read from the disk, not from memory
                os.posix_fadvise(raw.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if sha256_of(part) != out.digest:
            raise OSError(errno.EIO, 'what was read back is not what was written', str(part))
        if ready is not None:
            ready()
        _rename(part, file)
    finally:
        with suppress(OSError):  # the folder may be what cannot be written to
            part.unlink(missing_ok=True)
    return out.digest


def part_beside(path: str | os.PathLike) -> Path:
    """Return the name under which a program may write a file that is not whole yet.

    It ends like the file, since many programs take the format from there, and lies in its folder,
    which is made.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.with_name(f'.{file.stem}.{os.getpid()}{PART}{file.suffix}')


def move_into_place(part: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give a finished file or folder its name, in the place of an old one, once it is on the disk.

    Raises:
        OSError: it cannot be. The old one is as it was.
    """
    if Path(part).is_file():
        with open(part, 'rb+') as raw:
            os.fsync(raw.fileno())
    _rename(Path(part), Path(path))


def _rename(part: Path, file: Path) -> None:
    os.replace(part, file)
    _flush_folder(file.parent)


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Take away, in the end, what is new and empty of some folders and of those above them."""
    new = {each for folder in folders for each in (folder, *folder.parents) if not each.exists()}
    try:
        yield
    finally:
        for folder in sorted(new, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):  # one that is not empty stays
                folder.rmdir()


class _HashingWriter:
    """A file that is hashed as it is written.

    torch's writer of archives is C++ that aborts the process where a write fails in its destructor,
    so a failure is kept until :meth:`close`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.failure: OSError | None = None

    @property
    def digest(self) -> str:
        return self.hash.hexdigest()

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.failure is None:
            try:
                self.file.write(data)
                self.hash.update(data)
            except OSError as error:
                self.failure = error
        return size

    def flush(self) -> None:
        """Do nothing: what was written is flushed once, at the end."""

    def close(self) -> None:
        if self.failure is None:
            try:
                self.file.flush()
            except OSError as error:
                self.failure = error
        if self.failure is not None:
            with suppress(OSError):  # closing tries to write the rest again
                self.file.close()
            raise self.failure


def _flush_folder(folder: Path) -> None:
    """Have the disk note a new name, where the system can: some network drives cannot."""
    if os.name != 'posix':
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def hash_file(path: str | os.PathLike) -> Path:
    """Return the file beside a file that holds its hash."""
    file = Path(path)
    return file.with_name(file.name + '.sha256')


def write_hashed(path: str | os.PathLike, write: Callable[[Any], None]) -> None:
    """Write a file whole, and its hash beside it.

    Without room for the hash, the file is there and has none.

    Raises:
        OSError: see :func:`write_whole`.
    """
    file, noted = Path(path), hash_file(path)
    # From before the new file is there until its hash is, there is none: without one a file is
    # judged by its own checksums, with another's it would be taken for damaged.
    digest = write_whole(file, write, ready=lambda: noted.unlink(missing_ok=True))
    line = f'{digest}  {file.name}\n'.encode()
    with suppress(OSError):
        write_whole(noted, lambda out: out.write(line))


def remove_stale_parts(folder: str | os.PathLike) -> None:
    """Remove what processes that are no more have left of checkpoints they were writing."""
    for part in Path(folder).glob(f'*{PART}'):
        found = re.fullmatch(r'(?:.+\.pth(?:\.sha256)?|last_checkpoint)\.(\d+)\.part', part.name)
        if found and not _is_alive(int(found.group(1))):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def remove_with_hash(path: str | os.PathLike) -> None:
    """Remove a file and its hash, as far as they are there."""
    Path(path).unlink(missing_ok=True)
    hash_file(path).unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike) -> str:
    """Return the sha256 of a file, in hex digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def integrity_error(path: str | os.PathLike) -> str:
    """Return what is wrong with a checkpoint's bytes; empty if nothing is.

    They are compared with the hash beside the file, and without one with the checksums that the
    archive itself has.
    """
    noted = hash_file(path)
    try:
        if noted.is_file():
            digest = noted.read_text(encoding='utf-8', errors='replace').partition(' ')[0]
            return '' if sha256_of(path) == digest else f'its sha256 is not that of {noted.name}'
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        return f'the part {bad} of it is damaged' if bad else ''
    except zipfile.BadZipFile:
        return 'it is cut off'
    except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        return f'it cannot be read ({error})'
