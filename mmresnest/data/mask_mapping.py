"""Turn masks of any values or colors into index masks, and recognize those that need it.

A segmentor reads a pixel as the index of its class, and 255 as "ignored". Masks out of drawing
tools often hold something else: 0 and 255, antialiased edges between them, colors. Read as indices
they train a model on the background alone, or on 255 classes, and score well at it. So such masks
are recognized when a folder is read, refused, and accepted with a mapping::

    0=background,255=object                  gray values
    0:0:0=background,128:0:0=plane           colors, or #800000=plane
    0=background,1=car,2=car,7=ignore        several values of one class; values that are left out

The masks themselves stay as they are: index masks are written into the cache, once for each state
of the originals.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from .checks.images import map_files

IGNORED = 255
"""The value of a mask's pixels that no loss and no score counts."""

IGNORE = 'ignore'
"""The name that stands for :data:`IGNORED` in a mapping."""

RARE, RARE_IN_ALL = 0.02, 0.25
"""Shares of the pixels that values between two classes may have, each and together: edges."""

_FEW = 20
"""No more values than these may all be gray levels, be they frequent or rare."""
FAR_APART = 50
"""From this distance on, two values are gray levels, no indices; from half of it, three or more."""

Value = int | tuple[int, int, int]

_COLOR = re.compile(r'#([0-9a-fA-F]{6})|(\d{1,3}):(\d{1,3}):(\d{1,3})')
_FORM = (
    'write VALUE=NAME,VALUE=NAME with gray values (0=background,255=object) or colors (128:0:0=cat)'
)


@dataclass(frozen=True)
class MaskMapping:
    """Which class each gray value, or each color, of a mask stands for.

    Attributes:
        entries: value and name, in the order of the classes' indices.
    """

    entries: tuple[tuple[Value, str], ...]

    @classmethod
    def parse(cls, text: str) -> MaskMapping:
        """Read a mapping as the command line takes it.

        Raises:
            UserError: an entry that is no value and name, a value named twice, values and colors
                mixed, or no class at all.
        """
        entries: dict[Value, str] = {}
        for part in filter(None, (part.strip() for part in text.split(','))):
            left, equals, name = (piece.strip() for piece in part.partition('='))
            if not equals or not left or not name:
                raise _mapping_error(f'{part!r} is no value and name')
            value = _parse_value(left)
            if value in entries:
                raise _mapping_error(f'{left} is named twice')
            entries[value] = name
        if len({isinstance(value, tuple) for value in entries}) > 1:
            raise _mapping_error('gray values and colors are mixed')
        if not set(entries.values()) - {IGNORE}:
            raise _mapping_error('it names no class')
        return cls(tuple(entries.items()))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by index: each once, in the order in which they are first given."""
        return tuple(dict.fromkeys(name for _, name in self.entries if name != IGNORE))

    @property
    def by_color(self) -> bool:
        """Whether the values are colors."""
        return isinstance(self.entries[0][0], tuple)

    def __str__(self) -> str:
        return ','.join(f'{format_value(value)}={name}' for value, name in self.entries)

    def index_of(self, name: str) -> int:
        """Return the index that pixels of a name get."""
        return IGNORED if name == IGNORE else self.classes.index(name)

    def read_values(self, path: Path) -> np.ndarray:
        """Read the values of a mask, colors as one number each.

        Args:
            path: an image file. Of a palette image the indices count where the mapping has gray
                values, its colors where it has colors. Three equal channels are gray.

        Returns:
            H W, int64.

        Raises:
            UserError: colors where gray values are mapped, or a file that cannot be read.
        """
        from PIL import Image

        try:
            with Image.open(path) as image:
                if self.by_color:
                    return pack_colors(np.asarray(image.convert('RGB')))
                if image.mode in ('RGBA', 'LA', 'CMYK', 'YCbCr'):
                    image = image.convert('LA' if image.mode == 'LA' else 'RGB')  # noqa: PLW2901
                pixels = np.asarray(image).astype(np.int64)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f'the mask {path} cannot be read: {error}', code='data.label-unreadable'
            ) from error
        if image.mode == 'LA':
            return pixels[..., 0]
        if pixels.ndim == 3:
            if (pixels != pixels[..., :1]).any():
                raise UserError(
                    f'the mask {path} holds colors, and --mask-values {self} maps gray values; '
                    'name colors, as in 128:0:0=cat',
                    code='data.label-values',
                )
            pixels = pixels[..., 0]
        return pixels

    def to_indices(self, values: np.ndarray, where: object = 'a mask') -> np.ndarray:
        """Turn values into class indices.

        A value that is not listed takes the class of the nearest one that is, as long as it is rare
        enough to be an edge; see :data:`RARE`.

        Args:
            values: H W, as :meth:`read_values` returns them.
            where: what they are of, for the message.

        Returns:
            H W, uint8.

        Raises:
            UserError: a value that is not listed and holds more pixels than an edge does.
        """
        listed = np.array([_as_number(value) for value, _ in self.entries])
        indices = np.array([self.index_of(name) for _, name in self.entries], np.uint8)
        found, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        unlisted = ~np.isin(found, listed)
        share = counts / max(1, values.size)
        if share[unlisted].sum() > RARE_IN_ALL or (share[unlisted] > RARE).any():
            most = found[unlisted][share[unlisted].argmax()]
            value = unpack_color(most) if self.by_color else int(most)
            raise UserError(
                f'{where} holds the value {format_value(value)} '
                f'({share[unlisted].max():.0%} of its pixels), which --mask-values {self} does not '
                f'name; add {format_value(value)}=NAME, or {format_value(value)}={IGNORE}',
                code='data.label-values',
            )
        return indices[self._nearest(found, listed)][inverse].reshape(values.shape)

    def _nearest(self, found: np.ndarray, listed: np.ndarray) -> np.ndarray:
        """Return for each value found the position of the nearest one that is listed."""
        if self.by_color:
            one, two = (np.stack([x >> 16, x >> 8 & 255, x & 255], -1) for x in (found, listed))
            return ((one[:, None] - two[None]) ** 2).sum(-1).argmin(1)
        return np.abs(found[:, None] - listed[None]).argmin(1)


def _mapping_error(why: str) -> UserError:
    return UserError(f'--mask-values: {why}; {_FORM}', code='option.mask-values')


def _parse_value(text: str) -> Value:
    color = _COLOR.fullmatch(text)
    if color and color[1]:
        return tuple(bytes.fromhex(color[1]))  # type: ignore[return-value]
    if color:
        red, green, blue = (int(part) for part in color.groups()[1:])
        if max(red, green, blue) > 255:
            raise _mapping_error(f'{text} is no color: channels are 0 to 255')
        return red, green, blue
    if not text.isdecimal() or int(text) > 65535:
        raise _mapping_error(f'{text!r} is neither a gray value, 0 to 65535, nor a color')
    return int(text)


def _as_number(value: Value) -> int:
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


def pack_colors(pixels: np.ndarray) -> np.ndarray:
    """Turn colors, H W 3, into one number each, H W."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def unpack_color(number: int) -> tuple[int, int, int]:
    """Return the color of a number of :func:`pack_colors`."""
    return int(number) >> 16, int(number) >> 8 & 255, int(number) & 255


def format_value(value: Value) -> str:
    """Spell a value or a color as a mapping does."""
    return str(value) if isinstance(value, int) else ':'.join(map(str, value))


def count_values(masks: Iterable[Path], most: int = 64) -> dict[int, float]:
    """Return the share of the pixels that each gray value has, over some of the masks."""
    from PIL import Image

    counts: Counter[int] = Counter()
    for path in list(masks)[:most]:
        with Image.open(path) as image:
            found, number = np.unique(np.asarray(image), return_counts=True)
        counts.update(dict(zip(found.tolist(), number.tolist())))
    total = sum(counts.values())
    return {value: count / total for value, count in sorted(counts.items())}


def suggest_mapping(shares: Mapping[int, float], names: Sequence[str] = ()) -> str:
    """Return the mapping that masks seem to need, empty if they look like class indices.

    Args:
        shares: share of the pixels of each value, see :func:`count_values`.
        names: the classes of ``classes.txt``, if there are any.

    Returns:
        for values far apart, one class beside 255, many rare values between frequent ones, or class
        indices beside 65535: a mapping to write after ``--mask-values``.
    """
    if max(shares) == 65535 and len(shares) > 1 and sorted(shares)[-2] < IGNORED:
        indices = range(max(len(names), sorted(shares)[-2] + 1))  # 16 bits, ignored by their 255
        named = [*names, *(f'class_{index}' for index in indices[len(names) :])]
        return ','.join([*(f'{i}={named[i]}' for i in indices), f'65535={IGNORE}'])
    levels = sorted(value for value, share in shares.items() if share > RARE)
    rare = [value for value in shares if value not in levels]
    edges = [value for value in rare if levels and levels[0] < value < levels[-1]]
    values = sorted(shares)
    far = len(values) <= _FEW and min(np.diff(values), default=0) >= FAR_APART // 2
    if len(values) == 2 or far:  # however small the objects are
        levels, rare = values, []
    inner = [value for value in values if value != IGNORED]
    if len(inner) > 1 and inner[-1] < len(names):
        return ''  # as many names as values, though some do not occur
    if len(levels) < 2 or rare and len(edges) < max(8, len(rare) - 2):
        return ''
    gap = min(np.diff(levels))
    one_class = len(levels) == 2 and levels[1] == IGNORED  # 255 is ignored: a single class is left
    if not one_class and gap < (FAR_APART if len(levels) == 2 else FAR_APART // 2):
        return ''
    if len(names) != len(levels):
        names = ['background', *(f'class_{index}' for index in range(1, len(levels)))]
        if len(levels) == 2:
            names[1] = 'object'
    return ','.join(f'{value}={name}' for value, name in zip(levels, names))


def write_index_masks(
    masks: Sequence[Path], root: Path, mapping: MaskMapping, folder: Path | None = None
) -> Path:
    """Write the index masks of some masks, once for each state of the originals.

    Args:
        masks: image files below ``root``.
        root: their folder; names below it are kept, with the suffix ``.png``.
        mapping: what their values stand for.
        folder: where to write; by default a folder of the cache that is named after the mapping
            and the names, sizes and times of the originals.

    Returns:
        the folder that stands for ``root``.

    Raises:
        UserError: a mask that cannot be read, or holds a value that the mapping does not name.
    """
    from PIL import Image

    folder = folder or _cache_folder(masks, root, mapping)
    done = folder / '.complete'
    if done.is_file():
        return folder

    def write_mask(mask: Path) -> None:
        target = (folder / mask.relative_to(root)).with_suffix('.png')
        target.parent.mkdir(parents=True, exist_ok=True)
        indices = mapping.to_indices(mapping.read_values(mask), f'the mask {mask}')
        beside = target.with_name(f'.{target.name}.{os.getpid()}')
        Image.fromarray(indices).save(beside, format='PNG')
        beside.replace(target)

    for _ in map_files(write_mask, masks, f'mapping the values of {len(masks)} masks'):
        pass
    done.touch()
    return folder


def _cache_folder(masks: Sequence[Path], root: Path, mapping: MaskMapping) -> Path:
    digest = hashlib.sha256(f'{root}\0{mapping}\n'.encode())
    for mask in masks:
        stat = mask.stat()
        digest.update(f'{mask}\0{stat.st_size}\0{stat.st_mtime_ns}\n'.encode())
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return home / 'mmresnest' / f'masks-{root.name}-{digest.hexdigest()[:16]}'
