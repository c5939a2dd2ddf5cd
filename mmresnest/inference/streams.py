"""Read cameras and streams: ``predict 0`` and ``predict rtsp://camera/live``.

What is live is read by a thread, and the newest picture is predicted on: where a prediction takes
longer than the next picture to come, pictures are passed over, and what is found is never behind.
A film on a server has an end and is read picture by picture.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..data.base import IMAGE_SUFFIXES
from ..errors import UserError, nearest
from .videos import read_length, silence_ffmpeg

SCHEMES = ('rtsp', 'rtsps', 'rtmp', 'http', 'https', 'udp', 'tcp')
SECONDS = 10
"""How long a stream may take to begin or to give the next picture."""
WAITS = (1.0, 2.0, 4.0)
"""Seconds before each try to reach a stream again that gives no more pictures."""
STEADY = 10.0
"""Seconds of pictures after which a stream that was lost may be lost anew."""


@dataclass(frozen=True)
class Stream:
    """Pictures of a camera, or from an address.

    Attributes:
        address: as OpenCV takes it; of a camera its number.
        label: how messages and results call it: without a password.
        rate: pictures a second.
        frames: how many there are; None of what is live.
    """

    address: str | int
    label: str
    rate: float
    frames: int | None

    @property
    def file_name(self) -> str:
        """Return the name of what is written of it."""
        if isinstance(self.address, int):
            return f'camera_{self.address}'
        place = self.label.partition('://')[2].partition('?')[0]
        return re.sub(r'[^A-Za-z0-9-]+', '_', place).strip('_')[:80] or 'stream'


def is_stream(text: str) -> bool:
    """Tell whether a word stands for a camera or an address and not for a file."""
    return '://' in text or (text.isascii() and text.isdigit() and not os.path.lexists(text))


def find_stream(text: str) -> Stream:
    """Return a stream, of which a picture could be read.

    Args:
        text: an address, or the number of a camera.

    Raises:
        UserError: it is no address of a stream, or gives no picture.
    """
    address, label = (int(text), f'camera {text}') if text.isdigit() else (text, _hide_login(text))
    if isinstance(address, str):
        _check_address(address, label)
    capture = _open_capture(address)
    try:
        if capture is None or not capture.read()[0]:
            hint = (
                'connect it, close what else uses it, or give another number'
                if isinstance(address, int)
                else 'see whether it plays elsewhere, from this machine, and whether it asks for a '
                'user and password (rtsp://user:password@...)'
            )
            raise UserError(
                f'{label} gives no picture within {SECONDS} s; {hint}', code='stream.unreachable'
            )
        return Stream(address, label, *read_length(capture))
    finally:
        if capture is not None:
            capture.release()


def _check_address(address: str, label: str) -> None:
    """Refuse an address that is none of a stream.

    Raises:
        UserError: with what to give instead.
    """
    scheme = address.partition('://')[0].lower()
    if scheme not in SCHEMES:
        raise UserError(
            f'{label}: no stream begins with {scheme}://; {nearest(scheme, SCHEMES)}; of a file on '
            'this machine give the path',
            code='option.unknown',
        )
    if PurePosixPath(urlsplit(address).path).suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(
            f'{label} is the address of an image; download the file first, and give its path',
            code='image.missing',
        )


def _hide_login(address: str) -> str:
    """Return an address without what may be secret: it ends up in files and logs."""
    place = re.split('[?#]', address, maxsplit=1)[0]
    return re.sub(r'://[^/]*@', '://', place) + ('?...' if place != address else '')


def _open_capture(address: str | int) -> Any:
    """Open a camera or an address; return None if that fails."""
    import cv2

    silence_ffmpeg()

    # OpenCV 5 has these elsewhere than OpenCV 4.
    logs: Any = cv2 if hasattr(cv2, 'setLogLevel') else vars(cv2.utils)['logging']
    before = logs.getLogLevel()
    logs.setLogLevel(0)
    try:
        if isinstance(address, int):
            capture = cv2.VideoCapture(address)
        else:
            limits = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                1000 * SECONDS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                1000 * SECONDS,
            ]
            capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    finally:
        logs.setLogLevel(before)
    if capture.isOpened():
        return capture
    capture.release()
    return None


def iter_stream(
    stream: Stream, every: int, say: Callable[[str], None], stop: threading.Event
) -> Iterator[tuple[int, np.ndarray]]:
    """Read pictures of a stream, H W 3 in RGB, each with its number from 0, until it ends.

    Args:
        stream: what is read.
        every: read no more than one of so many pictures.
        say: is told when the stream stutters, and when it ends.
        stop: ends it when set.
    """
    if stream.frames is None:
        yield from _iter_newest(stream, every, say, stop)
        return
    number, capture = 0, _open_capture(stream.address)
    try:
        while capture is not None and not stop.is_set():
            read, frame = capture.read()
            if not read:
                break
            if number % every == 0:
                yield number, np.ascontiguousarray(frame[:, :, ::-1])
            number += 1
    finally:
        if capture is not None:
            capture.release()
    if number < stream.frames and not stop.is_set():
        say(f'{stream.label} ended after {number} of {stream.frames} pictures')


def _iter_newest(
    stream: Stream, every: int, say: Callable[[str], None], stop: threading.Event
) -> Iterator[tuple[int, np.ndarray]]:
    say(f'{stream.label} is live: Ctrl-C ends it, and writes the results')
    reader = _LiveReader(stream, stop)
    reader.start()
    following = 0
    try:
        while True:
            taken = reader.take_newest(following)
            while reader.news:
                say(reader.news.pop(0))
            if taken is None:
                break
            yield taken[0], np.ascontiguousarray(taken[1][:, :, ::-1])
            following = taken[0] + every
    finally:
        reader.close()
    say(f'{stream.label} ended after {reader.number} pictures')


class _LiveReader(threading.Thread):
    """Reads a stream in the background, and holds its newest picture.

    Args:
        stream: what is read.
        stop: ends the reading when set.

    Attributes:
        number: of pictures that were read.
        news: what the user should know, in the order it happened.
    """

    def __init__(self, stream: Stream, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=f'reader of {stream.label}')
        self.stream, self.stop = stream, stop
        self.number = 0
        self.news: list[str] = []
        self._changed = threading.Condition()
        self._newest: tuple[int, np.ndarray] | None = None
        self._ended = False
        self._closing = False

    def take_newest(self, least: int) -> tuple[int, np.ndarray] | None:
        """Wait for a picture with at least this number; return None when the stream has ended."""
        with self._changed:
            while True:
                if self.stop.is_set():
                    return None
                if self._newest is not None and self._newest[0] >= least:
                    taken, self._newest = self._newest, None
                    return taken
                if self._ended:
                    return None
                self._changed.wait(0.2)

    def close(self) -> None:
        """End the reading."""
        self._closing = True
        self.join(SECONDS)

    def run(self) -> None:
        """Read until the stream cannot be reached again."""
        capture = _open_capture(self.stream.address)
        tries, since = 0, time.monotonic()
        try:
            while not self._closing and not self.stop.is_set():
                read, frame = (False, np.zeros(0)) if capture is None else capture.read()
                if read:
                    with self._changed:
                        self._newest = self.number, frame
                        self.number += 1
                        self._changed.notify()
                    if tries and time.monotonic() - since > STEADY:
                        tries = 0
                    continue
                if capture is not None:
                    capture.release()
                    capture = None
                if tries == len(WAITS):
                    return
                self.news.append(
                    f'{self.stream.label} gives no picture after {self.number}: trying again in '
                    f'{WAITS[tries]:g} s ({tries + 1} of {len(WAITS)})'
                )
                self.stop.wait(WAITS[tries])
                tries, since = tries + 1, time.monotonic()
                capture = _open_capture(self.stream.address)
        finally:
            if capture is not None:
                capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify()


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Have Ctrl-C, or the end that a system asks for, set an event; the second time it interrupts.

    Only the main thread can do so: elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note_signal(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    kinds = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(kind, note_signal) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)
