"""Read images as mmdet's and mmseg's test pipelines do, so that a prediction is that of a test.

OpenCV decodes; what it does not know, Pillow may. Gray, 16 bits, palettes, alpha and CMYK become
8-bit RGB. An image is turned as its EXIF says where training and test turn it: JPEG, PNG, TIFF.
"""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

import numpy as np

from ..data.checks.images import find_flaw, is_webp_turned
from ..errors import UserError

DEEP = 256  # brightnesses of 16 bits for each of 8
MAX_PIXELS = 2**27
"""Pixels of a file: a compressed image of a few KiB may claim any number of them."""
TOO_LARGE = 'and at most {} million are read; scale it down, or cut it into tiles'


class BadImage(UserError):
    """An image cannot be used.

    Args:
        name: its path, or what it is.
        reason: what is wrong with it.
        code: the same as a name that stays; docs/errors.md has the list.
    """

    def __init__(self, name: str, reason: str, code: str = 'image.unreadable') -> None:
        super().__init__(f'{name}: {reason}', code)
        self.name, self.reason = name, reason


def to_rgb_array(image: Any) -> np.ndarray:
    """Return the pixels of an image, H W 3 in RGB, 8 bits.

    Args:
        image: a path, a PIL image, or an array H W 3 in RGB or H W, 8 bits.

    Raises:
        UserError: it is none of these.
        BadImage: the file cannot be used.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, np.ndarray):
        return _convert_array(image)
    from PIL import Image

    if isinstance(image, Image.Image):
        return _convert_pillow(image, 'the PIL image')
    raise UserError(
        f'an image is a path, a PIL image or a numpy array H W 3 in RGB, and '
        f'{type(image).__name__} is none of these',
        code='image.type',
    )


def _convert_array(array: np.ndarray) -> np.ndarray:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_image or not array.size:
        raise UserError(
            f'an array must be H W 3 in RGB, with whole numbers of 0 to 255 (uint8), '
            f'and this is {" ".join(map(str, array.shape))} of {array.dtype}; one of '
            'OpenCV is turned by image[:, :, ::-1], one of 0 to 1 by (255 * image)'
            ".astype('uint8'), and several images are given as a list",
            code='image.type',
        )
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, 2)


def _convert_pillow(image: Any, name: str) -> np.ndarray:
    from PIL import ImageOps

    if image.format != 'WEBP' or is_webp_turned():  # as in training and test
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):  # 16 bits, also where they are kept in 32
        deep = np.asarray(image).astype(np.int64)
        return _convert_array((deep.clip(0, DEEP * 256 - 1) // DEEP).astype(np.uint8))
    if image.mode == 'F':
        raise BadImage(name, 'its pixels are fractions, of no known range; save it with 8 bits')
    # A palette may have transparent entries; alpha is left out, as OpenCV does.
    return np.array(image.convert('RGBA' if image.mode == 'P' else image.mode).convert('RGB'))


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image file, H W 3 in RGB.

    Args:
        path: the file.
        max_pixels: an image of more is refused before any is decoded.

    Raises:
        BadImage: it is missing, empty, truncated, too large, or no image.
    """
    import cv2

    name = os.fspath(path)
    content = _read_bytes(name)
    _check_pixels(name, max_pixels)
    wrong = find_flaw(name) or _truncation_error(name, content)
    if wrong:
        raise BadImage(name, wrong)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if 'CV_IO_MAX_IMAGE' in str(error):
            raise BadImage(
                name, 'it claims more pixels than OpenCV decodes', code='image.too-large'
            ) from error
        image = None
    if image is None:
        return _read_with_pillow(name)
    return np.ascontiguousarray(image[:, :, ::-1])


def _read_bytes(name: str) -> bytes:
    if os.path.isdir(name):
        raise BadImage(name, 'it is a folder')
    try:
        with open(name, 'rb') as file:
            return file.read()
    except FileNotFoundError:
        raise BadImage(name, 'it does not exist', code='image.missing') from None
    except OSError as error:
        raise BadImage(name, f'it cannot be read: {error.strerror}') from error


def _check_pixels(name: str, most: int) -> None:
    """Refuse an image with more pixels than ``most``, before any is decoded.

    Raises:
        BadImage: with its size.
    """
    from PIL import Image

    too_large = TOO_LARGE.format(most // 10**6)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            with Image.open(name) as image:
                width, height = image.size
        except Image.DecompressionBombError as error:
            number = re.search(r'\d+', str(error))
            pixels = f'{int(number[0]) // 10**6} million' if number else 'too many'
            raise BadImage(
                name, f'it has {pixels} pixels, {too_large}', code='image.too-large'
            ) from error
        except Exception:  # of damaged headers; OpenCV says what is wrong, and has a limit too
            return
    if width * height > most:
        raise BadImage(
            name, f'it has {width} x {height} pixels, {too_large}', code='image.too-large'
        )


def _truncation_error(name: str, content: bytes) -> str:
    """Say what is wrong with a truncated file, which OpenCV would fill up in gray.

    Only for formats without an end mark: ``find_flaw`` has looked at JPEG and PNG.
    """
    if content.startswith((b'\xff\xd8', b'\x89PNG')):
        return ''
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(name) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return ''  # OpenCV may be able to read it
    except (OSError, SyntaxError, ValueError) as error:
        return f'the file is damaged: {error}' if 'trunc' in str(error) else ''
    return ''


def _read_with_pillow(name: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(name) as image:
            return _convert_pillow(image, name)
    except BadImage:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(name, 'it is not an image that OpenCV or Pillow can decode') from error
