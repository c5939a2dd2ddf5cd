"""What a data folder is: its splits, classes and files."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .checks.findings import Finding

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
IGNORED = 255
"""The value of a mask's pixels that no loss and no score counts."""

SPLITS = ('train', 'val', 'test')
JSON_NAMES = (
    '{split}.json',
    'annotations/{split}.json',
    'annotations/instances_{split}.json',
    'annotations/instances_{split}2017.json',
)
"""Where the annotations of boxes and instance masks may be."""
PANOPTIC_NAMES = (
    'panoptic_{split}.json',
    'annotations/panoptic_{split}.json',
    'annotations/panoptic_{split}2017.json',
)
IMAGE_FOLDERS = ('{split}', '{split}2017', 'images/{split}', 'images', '')


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
        scored: whether it has annotations; a ``test`` without is for predictions to submit.
        listing: the file that lists the images of a folder of masks; empty if all are meant.
    """

    name: str
    annotations: str
    images: str
    image_count: int
    object_count: int = 0
    masks: str = ''
    scored: bool = True
    listing: str = ''


@dataclass(frozen=True)
class DataFolder:
    """What a data folder holds.

    Attributes:
        kind: ``coco``, ``panoptic`` or ``ade20k``.
        root: absolute path.
        classes: names in the order that labels have: for COCO that of the ``categories`` list,
            which is how mmdet numbers them; for masks the pixel value.
        splits: ``train``, ``val`` and, where the folder has one, ``test``.
        has_masks: whether every object of a COCO folder has a mask.
        coded_masks: whether any object, crowds left out, has its mask as run lengths.
        maskless: where the first object without a mask stands; empty if ``has_masks``.
        things: for panoptic data, how many classes, from the first on, are countable.
        img_suffix: how image names end in a folder of masks.
        seg_map_suffix: what takes the place of ``img_suffix`` in the name of the mask.
        format: what the folder was taken for, where that is another format than this package's.
        cache: the folder of what was derived from it, if anything was.
        notes: what a person should know of the reading, such as images that are left out.
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
    format: str = ''
    cache: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_test(self) -> bool:
        """Whether there is a test split that can be scored."""
        return 'test' in self.splits and self.splits['test'].scored

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of images by split."""
        return {name: split.image_count for name, split in self.splits.items()}

    def split(self, name: str) -> Split:
        """Return the split of that name; ``val`` stands in for a missing ``test``."""
        return self.splits['val' if name == 'test' and name not in self.splits else name]

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {name}' for name, count in self.counts.items())
        taken = f'taken for {self.format}' if self.format else self.kind
        written = f'; read into {self.cache}' if self.cache else ''
        return f'{self.root} ({taken}: {counts} images; {len(self.classes)} classes{written})'


Reading = Generator[Finding, None, DataFolder]
"""The reading of a folder: yields what is wrong with it, and returns what it holds."""


def find_first(root: Path, patterns: Iterable[str], split: str) -> Path | None:
    """Return the first of the named files that exists."""
    paths = (root / pattern.format(split=split) for pattern in patterns)
    return next((path for path in paths if path.is_file()), None)


def describe_contents(root: Path) -> str:
    """Return what a folder holds, for the end of a message."""
    names = sorted(entry.name + ('/' if entry.is_dir() else '') for entry in root.iterdir())
    if not names:
        return 'The folder is empty'
    more = f' and {len(names) - 8} more' if names[8:] else ''
    return 'It holds: ' + ', '.join(names[:8]) + more


def make_relative(path: Path, root: Path) -> str:
    """Return a path as seen from the root, empty for the root itself, absolute outside of it."""
    if not path.is_relative_to(root):
        return str(path)
    text = path.relative_to(root).as_posix()
    return '' if text == '.' else text


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is no data: hidden, or put into an archive by macOS."""
    return name.startswith('.') or name == '__MACOSX'


def list_files(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Yield names of the files below a folder, relative to it, that end in one of the suffixes.

    Hidden files and folders are passed over: ``.ipynb_checkpoints`` has copies of images.
    """
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if name.lower().endswith(tuple(suffixes)) and not name.startswith('.'):
                yield (Path(where) / name).relative_to(folder).as_posix()
