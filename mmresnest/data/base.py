"""What a data folder is: its splits, classes and files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
IGNORED = 255
"""The value of a mask's pixels that no loss and no score counts."""

_CHECKED_IMAGES = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        annotations: the json file, or the folder of masks, relative to the root.
        images: the folder that the image names start from, relative to the root.
        image_count: how many images it lists.
        object_count: how many objects are annotated; 0 for masks.
        masks: the folder of panoptic masks, relative to the root; empty for other kinds.
    """

    name: str
    annotations: str
    images: str
    image_count: int
    object_count: int = 0
    masks: str = ''


@dataclass(frozen=True)
class DataFolder:
    """What a data folder holds.

    Attributes:
        kind: ``coco``, ``panoptic`` or ``ade20k``.
        root: absolute path.
        classes: names in the order that labels have: for COCO that of the ``categories`` list,
            which is how mmdet numbers them; for masks the pixel value.
        splits: ``train``, ``val`` and, where the folder has one with annotations, ``test``.
        has_masks: whether every object of a COCO folder has a mask.
        coded_masks: whether any object, crowds left out, has its mask as run lengths.
        maskless: where the first object without a mask stands; empty if ``has_masks``.
        things: for panoptic data, how many classes, from the first on, are countable.
        img_suffix: how image names end in a folder of masks.
        seg_map_suffix: what takes the place of ``img_suffix`` in the name of the mask.
    """

    kind: str
    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, Split] = field(default_factory=dict)
    has_masks: bool = False
    coded_masks: bool = False
    maskless: str = ''
    things: int = 0
    img_suffix: str = '.jpg'
    seg_map_suffix: str = '.png'

    @property
    def has_test(self) -> bool:
        """Whether there is a test split that can be scored."""
        return 'test' in self.splits

    @property
    def counts(self) -> dict[str, int]:
        """Images by split."""
        return {name: split.image_count for name, split in self.splits.items()}

    def split(self, name: str) -> Split:
        """The split of that name; ``val`` stands in for a missing ``test``."""
        return self.splits['val' if name == 'test' and not self.has_test else name]

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {name}' for name, count in self.counts.items())
        return f'{self.root} ({self.kind}: {counts} images; {len(self.classes)} classes)'


def _first(root: Path, patterns: Iterable[str], split: str) -> Path | None:
    """The first of the named files that exists."""
    paths = (root / pattern.format(split=split) for pattern in patterns)
    return next((path for path in paths if path.is_file()), None)


def _what_is_there(root: Path) -> str:
    names = sorted(entry.name + ('/' if entry.is_dir() else '') for entry in root.iterdir())
    if not names:
        return 'The folder is empty'
    more = f' and {len(names) - 8} more' if names[8:] else ''
    return 'It holds: ' + ', '.join(names[:8]) + more


def _relative(path: Path, root: Path) -> str:
    text = path.relative_to(root).as_posix()
    return '' if text == '.' else text


def _files(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Names of the files below a folder, relative to it, that end in one of the suffixes."""
    for where, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(tuple(suffixes)) and not name.startswith('.'):
                yield (Path(where) / name).relative_to(folder).as_posix()


def _within(values: dict[int, Path], classes: Sequence[str], where: Path) -> None:
    beyond = sorted(value for value in values if len(classes) <= value != IGNORED)
    if beyond:
        raise UserError(
            f'{where}: there are {len(classes)} classes, and the mask '
            f'{values[beyond[0]]} holds the label {beyond[0]}; labels run from 0 to '
            f'{len(classes) - 1}, and {IGNORED} is left out'
        )
