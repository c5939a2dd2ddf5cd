"""Find the images and videos to predict on, and name each so that no two results collide."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.base import IMAGE_SUFFIXES, is_hidden
from ..errors import UserError
from .streams import Stream, find_stream, is_stream
from .videos import examine_video

MORE_IMAGES = ('.pgm', '.pbm', '.jp2', '.gif', '.avif', '.jfif', '.jpe')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')


@dataclass(frozen=True)
class Source:
    """A file or a stream to predict on.

    Attributes:
        path: as it was given; of a stream the name of what is written of it.
        name: under which its results are written; no two have the same.
        video: whether it has frames.
        stream: where they come from, if not from a file.
        rate: of the frames, a second.
        frames: how many there are, 1 of an image; None where it is not known.
    """

    path: Path
    name: str
    video: bool
    stream: Stream | None = None
    rate: float = 0.0
    frames: int | None = 1

    @property
    def label(self) -> str:
        """Return how messages and results call it."""
        return self.path.as_posix() if self.stream is None else self.stream.label


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
    def display_name(self) -> str:
        """Return how messages call it."""
        return self.source.label + ('' if self.frame is None else f', frame {self.frame}')


def find_sources(given: Sequence[str | os.PathLike]) -> list[Source]:
    """Return the images and videos that paths, folders, patterns and addresses mean, each once.

    A file that is named is listed even if it does not exist: it is skipped later, as a bad image.

    Raises:
        UserError: nothing is given, a folder has no image, a pattern matches nothing, or a video
            or a stream cannot be read.
    """
    if not given:
        raise UserError(
            'nothing to predict on: give images, folders, patterns or videos', code='image.none'
        )
    paths: dict[str, Path] = {}
    streams: dict[str, Stream] = {}
    for item in given:
        text = os.fspath(item)
        if is_stream(text):
            if text not in streams:
                streams[text] = find_stream(text)
                paths[text] = Path(streams[text].file_name)
            continue
        for path in _expand_pattern(text):
            paths.setdefault(os.path.realpath(path), path)
    names = distinct_names(list(paths.values()))
    return [
        _make_source(path, name, streams.get(key))
        for (key, path), name in zip(paths.items(), names)
    ]


def _make_source(path: Path, name: str, stream: Stream | None) -> Source:
    if stream is not None:
        return Source(path, name, True, stream, stream.rate, stream.frames)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Source(path, name, True, None, *examine_video(path))
    return Source(path, name, False)


def _expand_pattern(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        return _list_folder(path)
    if path.exists() or not glob.has_magic(text):
        return [path]
    matches = sorted(
        Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match)
    )
    if not matches:
        raise UserError(
            f'the pattern {text} matches no file below {Path.cwd()}; correct it, and '
            'write ** for folders of any depth',
            code='image.missing',
        )
    return matches


def _list_folder(folder: Path) -> list[Path]:
    """List the images and videos of a folder, without those of its subfolders.

    A link to nothing is listed, and skipped by name later, as a bad image.
    """
    known = (*IMAGE_SUFFIXES, *MORE_IMAGES, *VIDEO_SUFFIXES)
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in known and not is_hidden(path.name) and not path.is_dir()
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
            f'...){hint or "; name another"}',
            code='image.missing',
        )
    return found


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file, such that no two results have the same file name.

    A name is the stem; with the suffix, where another file of the folder has the same stem; with
    as many parent folders as make it unique; and at last with a number. Upper and lower case are
    not told apart, since many file systems do not.
    """
    paths = [path.absolute() for path in paths]
    stems = Counter((path.parent, path.stem.lower()) for path in paths)
    short = [
        path.stem
        if stems[path.parent, path.stem.lower()] == 1
        else f'{path.stem}_{path.suffix[1:]}'
        for path in paths
    ]
    depths = [0] * len(paths)
    for _ in range(max((len(path.parts) for path in paths), default=0)):
        names = [
            _name_with_folders(path, depth, name) for path, depth, name in zip(paths, depths, short)
        ]
        counts = Counter(name.lower() for name in names)
        if len(counts) == len(names):
            return names
        depths = [depth + (counts[name.lower()] > 1) for depth, name in zip(depths, names)]
    return [f'{name}_{number}' for number, name in enumerate(names, 1)]


def _name_with_folders(path: Path, depth: int, name: str) -> str:
    """Return the name with the names of its last ``depth`` folders before it."""
    parents = [part.strip('/\\:') for part in path.parent.parts]
    return '_'.join([*filter(None, parents[max(0, len(parents) - depth) :]), name])


def count_images(sources: Iterable[Source], every: int) -> int | None:
    """Count images and predicted frames; return None where a video does not say how long it is."""
    total = 0
    for source in sources:
        if source.frames is None:
            return None
        total += -(-source.frames // every)
    return total
