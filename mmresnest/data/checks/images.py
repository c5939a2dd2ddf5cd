"""Read image and label files as training reads them: whole, and turned where they are.

PIL reads them: OpenCV decodes a file that is cut off, and says nothing. What PIL takes for a bomb,
images above 179 megapixels, OpenCV reads, as it does in training.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ...utils.console import show_progress
from ...utils.threads import count_processors

One = TypeVar('One')
Result = TypeVar('Result')

_TRACKED_FROM = 1000
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_COMPARED = 128
_MEASURED = 8
_DARK = 12
"""Bits of 16 up to which an image is read nearly black: the upper 8 are kept."""
_TOO_LARGE = (
    'has more than 178 megapixels, which is more than Pillow reads, by which masks are read in '
    'training; cut image and mask into tiles'
)
#: how the file of a kind begins, and what stands near its end if it is whole
ENDS = ((b'\xff\xd8', b'\xff\xd9'), (b'\x89PNG', b'IEND'))
NEAR = 4096
_HUGE = Lock()
"""Held by the one thread that reads an image of hundreds of megabytes."""
_LABEL_MODES = ('L', 'P', '1', 'I', 'I;16')


class ImageFile(NamedTuple):
    """What an image file is.

    Attributes:
        fault: the kind of what is wrong, without its first word; empty if it can be read.
        why: in words.
        size: width and height as it lies in the file.
        turned: whether its orientation (EXIF) swaps them.
        oriented: whether it has an orientation that changes the image at all.
        bits: how many of 16 bits its values use; 0 for images of 8.
        values: what the pixels of a label image hold.
        mode: PIL's name for its channels.
    """

    fault: str = ''
    why: str = ''
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    oriented: bool = False
    bits: int = 0
    values: tuple[int, ...] = ()
    mode: str = ''


def read_image_file(path: Path) -> ImageFile:
    """Read all of an image file, at the least resolution that shows whether it is whole."""
    return _read_file(path, _parse_image)


def read_image_header(path: Path, measure_bits: bool = False) -> ImageFile:
    """Read the size and the orientation of an image file, and little else.

    Args:
        path: the file.
        measure_bits: read the pixels of an image of 16 bits, too.
    """
    return _read_file(path, partial(_parse_header, measure_bits=measure_bits))


def read_headers(paths: Sequence[Path]) -> Iterator[ImageFile]:
    """Read the headers of images; of the first few how many bits they use, too."""
    few = set(paths[:_MEASURED])
    return map_files(
        lambda path: read_image_header(path, path in few), paths, f'reading {len(paths)} images'
    )


def find_mismatch(
    seen: ImageFile, stated: tuple[int, int] | None, follows_exif: bool
) -> tuple[str, str]:
    """Return the kind of what is wrong with an image file, and why; empty if nothing is.

    Args:
        seen: the file.
        stated: width and height that are annotated, if they are.
        follows_exif: whether the orientation in the file is followed in training.
    """
    size = get_shown_size(seen, follows_exif)
    if seen.fault:
        return f'image-{seen.fault}', seen.why
    if stated is not None and size != stated:
        turned = stated == seen.size or (follows_exif and seen.turned and stated == size[::-1])
        why = f'is {size[0]} x {size[1]}, annotated {stated[0]} x {stated[1]}'
        return 'image-turned' if turned else 'image-size', why
    # Sizes that fit tell that a turned image is annotated as it is shown, unless it is a square.
    if follows_exif and seen.oriented and not (seen.turned and stated and size[0] != size[1]):
        return 'image-oriented', 'its orientation says so'
    if 0 < seen.bits <= _DARK:
        return 'image-dark', f'{seen.bits} bits'
    return '', ''


def get_shown_size(seen: ImageFile, follows_exif: bool) -> tuple[int, int]:
    """Return width and height of an image as training reads it."""
    width, height = seen.size
    return (height, width) if follows_exif and seen.turned else (width, height)


def find_flaw(file: Any, failed: bool = False) -> str:
    """Return what is wrong with an image file as such, empty if nothing seems to be.

    Args:
        file: its path; anything else, such as an address, is not looked at.
        failed: it could not be decoded; else look only whether it was all there.
    """
    if not isinstance(file, (str, os.PathLike)) or '://' in str(file):
        return ''
    try:
        with open(file, 'rb') as stream:
            begin = stream.read(4)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - NEAR))
            end = stream.read()
    except OSError as error:  # a backend may have read it elsewhere
        return f'the file cannot be read: {error.strerror}' if failed else ''
    if not size:
        return 'the file is empty'
    endless = any(begin.startswith(first) and last not in end for first, last in ENDS)
    # A camera may have appended anything to a whole picture.
    if not (endless or failed) or not read_image_file(Path(file)).fault:
        return ''
    return f'the file is cut off after {size} bytes' if endless else 'the file cannot be decoded'


def read_label_file(path: Path) -> ImageFile:
    """Read a label image, whose one channel holds class indices."""
    return _read_file(path, _parse_label)


def read_panoptic_file(path: Path) -> ImageFile:
    """Read a panoptic mask, whose colours number the segments of an image."""
    return _read_file(path, _parse_colors)


def _read_file(path: Path, read: Callable[[Any], ImageFile]) -> ImageFile:
    from PIL import Image, UnidentifiedImageError

    if not os.path.isfile(path):
        return ImageFile('missing', 'does not exist')
    try:
        if not path.stat().st_size:
            return ImageFile('empty', 'has no bytes')
        with Image.open(path) as image:
            return read(image)
    except UnidentifiedImageError:
        return ImageFile('unreadable', 'is no image')
    except Image.DecompressionBombError as error:
        if read is _parse_label:
            return ImageFile('unreadable', _TOO_LARGE)
        return _refuse(error) if read is _parse_colors else _read_huge(path)
    # A damaged file can trip its decoder anywhere.
    except (
        OSError,
        SyntaxError,
        ValueError,
        LookupError,
        TypeError,
        EOFError,
        MemoryError,
        ArithmeticError,
        AttributeError,
    ) as error:
        cut = 'truncated' in str(error) or isinstance(error, EOFError)
        return ImageFile('truncated' if cut else 'unreadable', f'{type(error).__name__}: {error}')


def _refuse(error: Exception) -> ImageFile:
    return ImageFile('unreadable', str(error))


def _read_huge(path: Path) -> ImageFile:
    """Read an image that PIL refuses for its size."""
    import cv2

    try:
        with _HUGE:
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # its own limit is 2**30 pixels
        image = None
    if image is None:
        return ImageFile('unreadable', 'has more pixels than OpenCV reads')
    return ImageFile(size=image.shape[1::-1], mode='L' if image.ndim == 2 else 'RGB')


@cache
def is_webp_turned() -> bool:
    """Return whether OpenCV, which training reads with, obeys the EXIF orientation of WebP.

    Version 5 does, 4 does not.
    """
    import cv2
    from PIL import Image

    exif, file = Image.Exif(), io.BytesIO()
    exif[_ORIENTATION] = 6
    Image.new('RGB', (2, 1)).save(file, format='WEBP', exif=exif)
    read: Any = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return read.shape[0] == 2


def _parse_header(image: Any, measure_bits: bool = True) -> ImageFile:
    bits = _measure_bits(image) if measure_bits else 0
    # Of a PNG, PIL decodes all of the image to find an orientation behind it.
    late = image.format == 'PNG' and 'exif' not in image.info
    ignored = image.format == 'WEBP' and not is_webp_turned()
    orientation = 1 if late or ignored else image.getexif().get(_ORIENTATION, 1)
    return ImageFile(
        size=image.size,
        turned=orientation in _TURNED,
        oriented=orientation in range(2, 9),
        bits=bits,
        mode=image.mode,
    )


def _measure_bits(image: Any) -> int:
    """Return how many bits the values of an image of 16 bits use, 0 for any other."""
    import cv2

    deep = image.mode.startswith('I;16') or (
        image.format == 'PNG' and image.tile and '16' in str(image.tile[0][3])
    )
    pixels = cv2.imread(image.filename, cv2.IMREAD_UNCHANGED) if deep else None
    if pixels is None or pixels.dtype != np.uint16:
        return 0
    return int(pixels.max()).bit_length()


def _parse_image(image: Any) -> ImageFile:
    header = _parse_header(image)
    image.draft(None, (1, 1))  # JPEG at an eighth of its size: all bytes, few pixels
    image.load()
    return header._replace(mode=image.mode)


def _describe_channels(image: Any) -> str:
    pixels = np.asarray(image)
    if image.mode not in ('RGB', 'RGBA') or (pixels[..., :3] != pixels[..., :1]).any():
        return 'colours'
    return 'three equal channels'


def _parse_label(image: Any) -> ImageFile:
    if image.mode == 'F':
        why = 'holds fractions (mode F); a mask has whole numbers, the indices of classes'
        return ImageFile('colours', why, image.size)
    if image.mode not in _LABEL_MODES:
        return ImageFile(
            'colours',
            f'has {_describe_channels(image)} (mode {image.mode}); a mask has one channel whose '
            'values are class indices, 0, 1, 2 ...',
            image.size,
        )
    pixels = np.asarray(image)
    if pixels.dtype == np.uint8:
        values = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
    else:
        values = np.unique(pixels).astype(int)
    return ImageFile(size=image.size, values=tuple(values.tolist()), mode=image.mode)


def _parse_colors(image: Any) -> ImageFile:
    if image.mode not in ('RGB', 'RGBA', 'P'):
        return ImageFile('colours', f'has no colours (mode {image.mode})', image.size)
    pixels = np.asarray(image.convert('RGB'), np.int64)
    values = np.unique(pixels @ (1, 256, 256**2))
    return ImageFile(size=image.size, values=tuple(values.tolist()), mode=image.mode)


def map_files(read: Callable[[One], Result], files: Sequence[One], what: str) -> Iterator[Result]:
    """Read many files in parallel, with a bar on stderr where that takes long."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(16, count_processors())) as pool:
        warnings.simplefilter('ignore')  # PIL's, of large and of odd files
        yield from track_rows(pool.map(read, files), len(files), what)


def track_rows(rows: Iterable[Result], total: int, what: str) -> Iterable[Result]:
    """Return the same rows, with a progress bar on stderr if they are many."""
    with show_progress(total, what, lines=False, shown=total >= _TRACKED_FROM) as bar:
        for row in rows:
            yield row
            bar.step()


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause the search for garbage, which takes seconds where millions of rows stay."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def find_shared_images(
    ours: Sequence[Path], theirs: Sequence[Path], contents: bool
) -> list[tuple[Path, Path]]:
    """Return images that two sets have in common.

    Args:
        ours: the files of the one.
        theirs: of the other.
        contents: whether to compare all of the same number of bytes; otherwise the first of those
            that also have the same name.

    Returns:
        pairs of a file of ours and one of theirs.
    """
    names = {path.name for path in ours} & {path.name for path in theirs}

    def group_by_size(paths: Iterable[Path]) -> Mapping[tuple, list[Path]]:
        found = defaultdict(list)
        for path in paths:
            if (contents or path.name in names) and os.path.isfile(path):
                size = os.stat(path).st_size
                found[(size,) if contents else (path.name, size)].append(path)
        return found

    one, two = group_by_size(ours), group_by_size(theirs)
    pairs = []
    for both in sorted(one.keys() & two.keys())[: None if contents else _COMPARED]:
        digests = {_hash_file(path): path for path in two[both]}
        pairs += [
            (path, digests[digest]) for path in one[both] if (digest := _hash_file(path)) in digests
        ]
    return sorted(pairs)


def group_duplicates(paths: Sequence[Path]) -> list[list[int]]:
    """Return the positions of equal files, a list for each content, in order of the first."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for at, path in enumerate(paths):
        sizes[os.stat(path).st_size].append(at)
    groups: dict[Any, list[int]] = defaultdict(list)
    for same in sizes.values():
        for at in same:
            groups[_hash_file(paths[at]) if len(same) > 1 else at].append(at)
    return sorted(groups.values())


def _hash_file(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return os.fsencode(path)
