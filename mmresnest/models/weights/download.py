"""Fetch files: from the first host that has them, resumed where a connection broke.

What has arrived of ``NAME`` lies beside it as ``NAME.part`` until it is whole and its hash is
right, so that whoever finds ``NAME`` may use it. Processes that want the same file take turns by
``NAME.lock``: the first fetches it, the others find it.
"""

import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock  # comes with torch, which needs it

from ...errors import UserError
from ...utils.console import show_progress
from ...utils.files import move_into_place, sha256_of
from ...version import __version__

TIMEOUT = 30  # seconds without an answer
ATTEMPTS = 5  # per host, while each brings something
PAUSE = 1.0  # seconds between them
NOT_SATISFIABLE = 416  # HTTP: there is nothing from this byte on
PARTIAL = 206  # HTTP: this is the rest


def fetch_file(urls: Sequence[str], folder: Path, what: str, hashes: Sequence[str | None]) -> Path:
    """Fetch the first of several files that a host has, whole, into a folder.

    Args:
        urls: where, the best first.
        folder: where to; it is made.
        what: it is, for messages.
        hashes: the hex digits with which the sha256 of each begins; None: not known.

    Raises:
        UserError: no host has it; the message says why each, and what to put where by hand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for url, sha256 in zip(urls, hashes):
        file = folder / file_name(url)
        try:
            with FileLock(f'{file}.lock'):
                if not is_whole(file, sha256):
                    fetch_from_host(url, file, sha256)
            return file
        except (OSError, HTTPException) as error:
            failures.append(f'{url} ({str(error) or type(error).__name__})')
    names = ' or '.join(dict.fromkeys(map(file_name, urls)))
    raise UserError(
        f'the weights of {what} cannot be fetched: {"; ".join(failures)}. Fetch '
        f'{names} on a machine that is online and put it into {folder}, or '
        f'train from random weights with --from-scratch',
        code='weights.download-failed',
    )


def file_name(url: str) -> str:
    """Return the last part of its path."""
    return url.partition('?')[0].partition('#')[0].rstrip('/').rpartition('/')[2]


def is_whole(file: Path, sha256: str | None) -> bool:
    """Return whether a file is there and, where its hash is known, the one that is meant."""
    return file.is_file() and (sha256 is None or sha256_of(file).startswith(sha256))


def fetch_from_host(url: str, file: Path, sha256: str | None) -> None:
    """Fetch one file from one host.

    Raises:
        OSError, HTTPException: the host does not answer, has no such file, or breaks off too often;
            or the file has another hash.
    """
    part = file.with_name(file.name + '.part')
    if sha256 is None:
        part.unlink(missing_ok=True)  # nothing could tell whether it is of the same file
    old = file_size(part) > 0
    receive_all(url, part)
    if sha256 is not None:
        digest = sha256_of(part)
        if not digest.startswith(sha256) and old:  # what lay there was not the beginning of it
            part.unlink()
            receive_all(url, part)
            digest = sha256_of(part)
        if not digest.startswith(sha256):
            part.unlink()
            raise OSError(
                f'its sha256 begins {digest[: len(sha256)]}, not {sha256}: it is damaged '
                f'or another file'
            )
    move_into_place(part, file)


def receive_all(url: str, part: Path) -> None:
    """Ask for what is missing until nothing is, or until an attempt brings nothing."""
    for attempt in range(1, ATTEMPTS + 1):
        before = file_size(part)
        failure: Exception
        try:
            total = receive_rest(url, part)
            if total is None or file_size(part) == total:
                return
            failure = OSError(f'the connection broke off at {file_size(part)} of {total} bytes')
        except HTTPError as error:
            if error.code != NOT_SATISFIABLE or not before:
                raise
            part.unlink()  # longer than the file: begin anew
            continue
        except (OSError, HTTPException) as error:
            failure = error
        if file_size(part) <= before or attempt == ATTEMPTS:
            raise failure
        time.sleep(PAUSE)


def receive_rest(url: str, part: Path) -> int | None:
    """Append to a file what a host has from there on; return the whole file's size, where known.

    A host that cannot begin in the middle sends everything, or another part than was asked for;
    then the file is begun anew.
    """
    start = file_size(part)
    headers = {'User-Agent': f'mmresnest/{__version__}'}
    if start:
        headers['Range'] = f'bytes={start}-'
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as answer:
        resumed = start > 0 and answer.status == PARTIAL
        sent = answer.headers.get('Content-Range', '')
        if resumed and not sent.startswith(f'bytes {start}-'):
            part.unlink()
            return receive_rest(url, part)
        start = start if resumed else 0
        length = answer.headers.get('Content-Length')
        total = None if length is None else start + int(length)
        with (
            open(part, 'ab' if resumed else 'wb') as file,
            show_progress(total, part.stem, unit='bytes', lines=False) as bar,
        ):
            bar.step(start)
            while chunk := answer.read(1 << 16):
                file.write(chunk)
                bar.step(len(chunk))
    return total


def file_size(file: Path) -> int:
    """Return the bytes of a file; 0 if there is none."""
    return file.stat().st_size if file.is_file() else 0
