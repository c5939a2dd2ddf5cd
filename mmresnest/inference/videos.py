"""Read and write videos with OpenCV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..utils.files import move_into_place, part_beside

CODECS = (('.mp4', 'mp4v'), ('.avi', 'MJPG'))
"""Suffix and code of the codecs that a video is written with; the first that works is taken."""


def silence_ffmpeg() -> None:
    """Have FFmpeg write nothing to the terminal: messages of ours say what is wrong.

    It obeys only if nothing was read by it before.
    """
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


def read_length(capture: Any) -> tuple[float, int | None]:
    """Return frames a second, 25 where it is not said, and how many there are, None likewise."""
    import cv2

    rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return (
        rate if math.isfinite(rate) and 0 < rate <= 1000 else 25.0,
        int(frames) if math.isfinite(frames) and frames >= 1 else None,
    )


def examine_video(path: Path) -> tuple[float, int | None]:
    """Read the first frame of a video; return what :func:`read_length` does.

    Raises:
        UserError: it cannot be read.
    """
    import cv2

    silence_ffmpeg()
    if not path.is_file():
        raise UserError(f'the video {path} does not exist; correct its path', code='image.missing')
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened() or not capture.read()[0]:
            raise UserError(
                f'the video {path} cannot be read: it is damaged or empty, or OpenCV '
                f'{cv2.__version__} lacks its codec; ffmpeg -i {path} -c:v mjpeg '
                f'{path.stem}.avi makes one that it reads',
                code='image.unreadable',
            )
        return read_length(capture)
    finally:
        capture.release()


def iter_frames(path: Path, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Read one of ``every`` frames of a video, H W 3 in RGB, with its number from 0."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        number = 0
        while capture.grab():
            if number % every == 0:
                retrieved, frame = capture.retrieve()
                if not retrieved:
                    return
                yield number, np.ascontiguousarray(frame[:, :, ::-1])
            number += 1
    finally:
        capture.release()


class VideoWriter:
    """An annotated video, under a temporary name until it is complete.

    Args:
        source: how messages call the video it is made from.
        paths: its names, by codec.
        rate: frames per second.
    """

    def __init__(self, source: str, paths: Sequence[Path], rate: float) -> None:
        self.source, self.paths, self.rate = source, paths, rate
        self.writer: Any = None
        self.path, self.part = paths[0], paths[0]
        self.size = (0, 0)
        self.failed = False

    def add_frame(self, picture: np.ndarray) -> None:
        """Append a frame H W 3 in RGB, in the size of the first."""
        import cv2

        if self.writer is None and not self.failed:
            self._open_file(picture)
            self.size = picture.shape[1::-1]
        if self.writer is not None:
            if picture.shape[1::-1] != self.size:  # of a camera that was turned, say
                picture = cv2.resize(picture, self.size)
            self.writer.write(np.ascontiguousarray(picture[:, :, ::-1]))

    def _open_file(self, picture: np.ndarray) -> None:
        import cv2

        for path, (_, code) in zip(self.paths, CODECS):
            part = part_beside(path)
            writer = cv2.VideoWriter(
                str(part), cv2.VideoWriter.fourcc(*code), self.rate, picture.shape[1::-1]
            )
            if writer.isOpened():
                self.writer, self.path, self.part = writer, path, part
                return
            part.unlink(missing_ok=True)
        self.failed = True

    def close(self) -> Path | None:
        """Move the video into place; return None if no codec could write it."""
        if self.writer is None:
            return None
        self._release_file()
        move_into_place(self.part, self.path)
        return self.path

    def discard(self) -> None:
        """Remove an incomplete video."""
        if self.writer is not None:
            self._release_file()
            self.part.unlink(missing_ok=True)

    def _release_file(self) -> None:
        self.writer.release()
        self.writer = None
