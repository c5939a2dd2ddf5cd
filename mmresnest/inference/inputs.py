"""What is predicted on: images and videos found, named and read.

A file is decoded as mmdet's and mmseg's pipelines do, by OpenCV, so that a prediction is that of a
test; what OpenCV does not know, Pillow may. Grey, 16 bits, palettes, alpha and CMYK become 8-bit
RGB.
"""

from __future__ import annotations

import glob
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.base import IMAGE_SUFFIXES
from ..data.checks.images import flaw
from ..errors import UserError

MORE_IMAGES = ('.pgm', '.pbm', '.jp2', '.gif', '.avif', '.jfif', '.jpe')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
DEEP = 256  # brightnesses of 16 bits for each of 8


class BadImage(UserError):
    """An image cannot be used.

    Args:
        name: its path, or what it is.
        reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'{name}: {reason}')
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class Source:
    """A file to predict on.

    Attributes:
        path: as it was given.
        name: under which its results are written; no two have the same.
        video: whether it is one.
    """

    path: Path
    name: str
    video: bool


@dataclass(frozen=True, eq=False)
class Item:
    """An image, or a frame of a video.

    Attributes:
        id: its number in the results, from 1.
        source: the file.
        frame: its number in a video, from 0; None of an image.
        image: H W 3 in RGB.
    """

    id: int
    source: Source
    frame: int | None
    image: np.ndarray

    @property
    def called(self) -> str:
        """How messages call it."""
        return str(self.source.path) + ('' if self.frame is None else f', frame {self.frame}')


# ---- finding -------------------------------------------------------------------------------------


def find(given: Sequence[str | os.PathLike]) -> list[Source]:
    """The images and videos that paths, folders and patterns mean, each once.

    A file that is named is taken even if it does not exist: it is skipped as a bad image is.

    Raises:
        UserError: nothing is given, a folder has no image, a pattern matches nothing, or a video
            cannot be read.
    """
    if not given:
        raise UserError('nothing to predict on: give images, folders, patterns or videos')
    paths: dict[str, Path] = {}
    for one in given:
        for path in _expanded(os.fspath(one)):
            paths.setdefault(os.path.realpath(path), path)
    found = list(paths.values())
    sources = [
        Source(path, name, path.suffix.lower() in VIDEO_SUFFIXES)
        for path, name in zip(found, distinct_names(found))
    ]
    for source in sources:
        if source.video:
            with _opened(source.path):
                pass
    return sources


def _expanded(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if '://' in text:
        raise UserError(f'{text} is an address; fetch the file first, and give its path')
    if path.is_dir():
        return _files_of(path)
    if path.exists() or not glob.has_magic(text):
        return [path]
    matches = sorted(
        Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match)
    )
    if not matches:
        raise UserError(
            f'the pattern {text} matches no file below {Path.cwd()}; correct it, and '
            'write ** for folders of any depth'
        )
    return matches


def _files_of(folder: Path) -> list[Path]:
    """The images and videos of a folder, those in folders of it left out."""
    known = (*IMAGE_SUFFIXES, *MORE_IMAGES, *VIDEO_SUFFIXES)
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in known and path.is_file()
    )
    if not found:
        inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
        hint = (
            f'; its folders {", ".join(inner[:3])} are not searched: name them, or a pattern '
            f"such as '{folder}/**/*.jpg'"
            if inner
            else ''
        )
        raise UserError(
            f'the folder {folder} holds no image or video ({", ".join(known[:5])} '
            f'...){hint or "; name another"}'
        )
    return found


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each of some files, such that no result takes the place of another's.

    The stem; with the suffix, where another file of the folder has that stem; with so many folders
    before it as tell it from others, and at last with a number. Upper and lower case are one, as on
    many disks.
    """
    whole = [path.absolute() for path in paths]
    stems = Counter((path.parent, path.stem.lower()) for path in whole)
    short = [
        path.stem
        if stems[path.parent, path.stem.lower()] == 1
        else f'{path.stem}_{path.suffix[1:]}'
        for path in whole
    ]
    depths = [0] * len(whole)
    for _ in range(max((len(path.parts) for path in whole), default=0)):
        names = [_below(path, depth, name) for path, depth, name in zip(whole, depths, short)]
        counts = Counter(name.lower() for name in names)
        if len(counts) == len(names):
            return names
        depths = [depth + (counts[name.lower()] > 1) for depth, name in zip(depths, names)]
    return [f'{name}_{number}' for number, name in enumerate(names, 1)]


def _below(path: Path, depth: int, name: str) -> str:
    """The name behind those of so many folders."""
    above = [part.strip('/\\:') for part in path.parent.parts]
    return '_'.join([*filter(None, above[max(0, len(above) - depth) :]), name])


# ---- images --------------------------------------------------------------------------------------


def pixels(image: Any) -> np.ndarray:
    """The pixels of an image, H W 3 in RGB, 8 bits.

    Args:
        image: a path, a PIL image, or an array H W 3 in RGB or H W, 8 bits.

    Raises:
        UserError: it is none of these.
        BadImage: the file cannot be used.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, np.ndarray):
        return _of_array(image)
    from PIL import Image

    if isinstance(image, Image.Image):
        return _of_pillow(image, 'the PIL image')
    raise UserError(
        f'an image is a path, a PIL image or a numpy array H W 3 in RGB, and '
        f'{type(image).__name__} is none of these'
    )


def _of_array(array: np.ndarray) -> np.ndarray:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or not array.size
        or (array.ndim == 3 and array.shape[2] != 3)
    ):
        raise UserError(
            f'an array must be H W 3 in RGB, with whole numbers of 0 to 255 (uint8), '
            f'and this is {" ".join(map(str, array.shape))} of {array.dtype}; one of '
            'OpenCV is turned by image[:, :, ::-1], one of 0 to 1 by (255 * image)'
            ".astype('uint8'), and several images are given as a list"
        )
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, 2)


def _of_pillow(image: Any, name: str) -> np.ndarray:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):  # 16 bits, also where they are kept in 32
        deep = np.asarray(image).astype(np.int64)
        return _of_array((deep.clip(0, DEEP * 256 - 1) // DEEP).astype(np.uint8))
    if image.mode == 'F':
        raise BadImage(name, 'its pixels are fractions, of no known range; save it with 8 bits')
    # A palette may have transparent entries; alpha is left out, as OpenCV does.
    return np.array(image.convert('RGBA' if image.mode == 'P' else image.mode).convert('RGB'))


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file, H W 3 in RGB.

    Raises:
        BadImage: it is missing, empty, cut off, or no image.
    """
    import cv2

    name = os.fspath(path)
    if os.path.isdir(name):
        raise BadImage(name, 'it is a folder')
    try:
        with open(name, 'rb') as file:
            content = file.read()
    except FileNotFoundError:
        raise BadImage(name, 'it does not exist') from None
    except OSError as error:
        raise BadImage(name, f'it cannot be read: {error.strerror}') from error
    wrong = flaw(name) or _cut_off(name, content)
    if wrong:
        raise BadImage(name, wrong)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if 'CV_IO_MAX_IMAGE' in str(error):
            raise BadImage(name, 'it claims more pixels than OpenCV decodes') from error
        image = None
    if image is None:
        return _read_by_pillow(name)
    return np.ascontiguousarray(image[:, :, ::-1])


def _cut_off(name: str, content: bytes) -> str:
    """What is wrong with a file of a format without an end mark, which OpenCV fills up in grey."""
    if content.startswith((b'\xff\xd8', b'\x89PNG')):  # flaw has looked at these
        return ''
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(name) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return ''  # OpenCV may know more of it
    except (OSError, SyntaxError, ValueError) as error:
        return f'the file is damaged: {error}' if 'trunc' in str(error) else ''
    return ''


def _read_by_pillow(name: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(name) as image:
            return _of_pillow(image, name)
    except BadImage:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(name, 'it is not an image that OpenCV or Pillow can decode') from error


# ---- videos --------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A video, its first frame looked at.

    Raises:
        UserError: it cannot be read.
    """
    import cv2

    if not path.is_file():
        raise UserError(f'the video {path} does not exist; correct its path')
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened() or not capture.read()[0]:
            raise UserError(
                f'the video {path} cannot be read: it is damaged or empty, or OpenCV '
                f'{cv2.__version__} lacks its codec; ffmpeg -i {path} -c:v mjpeg '
                f'{path.stem}.avi makes one that it reads'
            )
        yield capture
    finally:
        capture.release()


def rate_of(path: Path) -> float:
    """The frames of a video in a second; 25 where it does not say."""
    import cv2

    with _opened(path) as capture:
        rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else 25.0


def count(sources: Iterable[Source], every: int) -> int | None:
    """How many images and frames there are, None where a video does not say."""
    import cv2

    total = 0
    for source in sources:
        if not source.video:
            total += 1
            continue
        with _opened(source.path) as capture:
            frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not math.isfinite(frames) or frames < 1:
            return None
        total += -(-int(frames) // every)
    return total


def frames_of(path: Path, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Every so-manieth frame of a video, H W 3 in RGB, with its number."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        number = 0
        while capture.grab():
            if number % every == 0:
                there, frame = capture.retrieve()
                if not there:
                    return
                yield number, np.ascontiguousarray(frame[:, :, ::-1])
            number += 1
    finally:
        capture.release()
