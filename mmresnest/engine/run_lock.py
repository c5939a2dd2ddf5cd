"""Notice two trainings that write into one work folder."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from ..errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows, where two runs in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = '.running'


@contextmanager
def lock_work_dir(folder: str | os.PathLike, name: str = LOCK_NAME) -> Iterator[None]:
    """Hold a work folder while a training runs in it.

    The lock is a POSIX record lock: it ends with its process, however that ends, and workers do not
    inherit it. It holds across machines where the file system supports that, as NFS 4 does. Where
    locks are not supported at all, a warning is logged and the run goes on.

    Args:
        folder: that exists.
        name: of the file, where something else than the training itself is locked.

    Raises:
        UserError: another process holds it.
    """
    path = Path(folder) / name
    file = _open_locked(path) if fcntl is not None else None
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)  # before the lock is released, see _open_locked
            os.close(file)


def _open_locked(path: Path) -> int | None:
    """Return a descriptor of the locked file; None where the file system has no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.read(file, 200).decode(errors='replace').strip()
            os.close(file)
            raise UserError(
                f'another training writes into {path.parent.absolute()}'
                + (f': {owner}' if owner else '')
                + '; give this one another --work-dir, or wait until that one has ended',
                'run.folder-in-use',
            ) from None
        except OSError as error:
            os.close(file)
            print_log(
                f'{path.parent} cannot be locked ({error.strerror}): a second training in it would '
                'not be noticed',
                'current',
                logging.WARNING,
            )
            return None
        # The run before may have removed the file between open and lock.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            os.ftruncate(file, 0)
            os.write(file, f'process {os.getpid()} on {socket.gethostname()}'.encode())
            return file
        os.close(file)
