"""What a prediction leaves behind: pictures, label images, annotated videos, and one json.

    OUT/pictures/NAME.jpg                   images with the predictions on them; videos as .mp4
    OUT/labels/NAME.png                     semantic: a pixel is a class index
    OUT/panoptic/NAME.png                   panoptic: a pixel is a segment's number, as COCO has it
    OUT/.../NAME/000012.png                 either, of a frame of a video
    OUT/predictions.json                    detectors: COCO's format of results
    OUT/predictions.images.json             and the images and categories that it numbers

Each file is written under another name and moved into place when it is whole.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..utils.files import write_whole
from .inputs import Item, Source, rate_of
from .results import Detections, Result, Segmentation

QUALITY = 92  # of JPEG
PREDICTIONS = 'predictions.json'

#: suffix and code of the codecs that a video is tried to be written by
CODECS = (('.mp4', 'mp4v'), ('.avi', 'MJPG'))


@dataclass(frozen=True)
class Plan:
    """Where the results of a run go.

    Attributes:
        out: the folder.
        table: the json.
        task: of the model.
        pictures: whether any are drawn.
        names: of the classes.
        things: how many of them, from the first on, are countable.
        every: of so many frames of a video one is predicted on.
    """

    out: Path
    table: Path
    task: str
    pictures: bool
    names: tuple[str, ...]
    things: int = 0
    every: int = 1

    @property
    def images(self) -> Path:
        """The json of a detector's images."""
        return self.table.with_name(f'{self.table.stem}.images.json')

    @property
    def maps(self) -> Path | None:
        """The folder of maps of classes or segments."""
        folder = {'semantic': 'labels', 'panoptic': 'panoptic'}.get(self.task)
        return None if folder is None else self.out / folder

    @property
    def uses_out(self) -> bool:
        """Whether anything is written to the folder."""
        return self.pictures or self.maps is not None or self.table.parent == self.out

    def picture(self, source: Source, suffix: str = '') -> Path:
        """The picture of an image, or the video of a video."""
        return (
            self.out
            / 'pictures'
            / (source.name + (suffix or (CODECS[0][0] if source.video else '.jpg')))
        )

    def map(self, source: Source, frame: int | None) -> Path:
        """The map of an image or a frame."""
        assert self.maps is not None
        number = '' if frame is None else f'/{frame:06d}'
        return self.maps / f'{source.name}{number}.png'


def check(
    plan: Plan, sources: Sequence[Source], others: Iterable[str | os.PathLike], force: bool
) -> None:
    """Makes sure that the results can be written and take nothing's place that is needed.

    Args:
        plan: where they go.
        sources: the images and videos.
        others: further files that are read.
        force: replace results of another run.

    Raises:
        UserError: with what to do instead.
    """
    written = {
        Path(os.path.realpath(place))
        for place in (plan.table, plan.images, plan.out / 'pictures', plan.maps or plan.table)
    }
    for path in (*(source.path for source in sources), *map(Path, others)):
        real = Path(os.path.realpath(path))
        if not written.isdisjoint((real, real.parent)):
            raise UserError(
                f'{path} is read, and results would be written to its place; name '
                'another --out or --json'
            )
    if plan.table.suffix != '.json' or plan.table.is_dir():
        raise UserError(
            f'--json {plan.table}: results are written as a json file; give a name '
            'that ends in .json'
        )
    if plan.uses_out:
        check_folder(plan.out, '--out')
    check_folder(plan.table.parent, '--json')
    if force:
        return
    there: list[str] = []
    if plan.uses_out and plan.out.is_dir():
        there = sorted(path.name for path in plan.out.iterdir())
    if there:
        raise UserError(
            f'--out {plan.out}: the folder has files of another run '
            f'({", ".join(there[:4])}{", ..." if there[4:] else ""}); name another, or '
            'give --force, which replaces those of the same names and leaves the rest'
        )
    for file in (plan.table, plan.images):
        if file.exists():
            raise UserError(
                f'--json {plan.table}: {file} exists; name another, or give --force to replace it'
            )


def check_folder(folder: Path, option: str) -> None:
    """Makes sure that files can be made in a folder that may yet have to be made."""
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        if not above.is_dir():
            raise NotADirectoryError(0, f'{above} is a file')
        handle, name = tempfile.mkstemp(prefix='.mmresnest.', dir=above)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise UserError(
            f'{option} {folder}: no file can be made there ({error.strerror}); name '
            'another folder, or have its owner let you write into it'
        ) from error


# ---- writing -------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Takes the results as they come, and writes what they need.

    Attributes:
        plan: where to.
        files: what was written for itself; pictures and maps by their folder.
        objects: how many were found.
        shown: predicted images and frames.
        notes: what could not be written.
    """

    plan: Plan
    files: list[Path] = field(default_factory=list)
    objects: int = 0
    shown: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rows: list[tuple[int, Any]] = []
        self._images: list[tuple[int, dict[str, Any]]] = []
        self._videos: dict[str, _Video] = {}

    def add(self, item: Item, result: Result) -> None:
        """Writes the picture and the map of an image, and keeps the rest for the json."""
        self.shown += 1
        of: dict[str, Any] = dict(file_name=item.source.path.as_posix())
        if item.frame is not None:
            of['frame'] = item.frame
        height, width = result.size
        image = dict(id=item.id, **of, width=width, height=height)
        if isinstance(result, Detections):
            self.objects += len(result)
            self._rows += [(item.id, {**row, **of}) for row in result.to_coco(item.id)]
        else:
            file = self.plan.map(item.source, item.frame)
            if isinstance(result, Segmentation):
                _write_image(file, _small(result.labels))
                image.update(labels=self._named(file), shares=result.shares)
            else:
                self.objects += len(result.segments)
                _write_image(file, result.coloured())
                place = file.relative_to(self.plan.maps or file).as_posix()
                self._rows.append((item.id, {**result.to_coco(item.id), 'file_name': place}))
        self._images.append((item.id, image))
        if self.plan.pictures:
            self._draw(item, result)

    def close(self) -> None:
        """Completes the videos, and writes the json."""
        for video in self._videos.values():
            path = video.close()
            if path is None:
                self.notes.append(
                    f'no annotated video of {video.source.path}: OpenCV writes '
                    f'neither {" nor ".join(code for _, code in CODECS)} here; its '
                    'frames are in the json'
                )
        self._videos.clear()
        images = [image for _, image in sorted(self._images, key=lambda pair: pair[0])]
        rows = [row for _, row in sorted(self._rows, key=lambda pair: pair[0])]
        categories: list[dict[str, Any]] = [
            dict(id=label + 1, name=name) for label, name in enumerate(self.plan.names)
        ]
        if self.plan.task == 'semantic':
            self._write_json(self.plan.table, dict(classes=list(self.plan.names), images=images))
        elif self.plan.task == 'panoptic':
            for label, category in enumerate(categories):
                category['isthing'] = int(label < self.plan.things)
            self._write_json(
                self.plan.table, dict(images=images, annotations=rows, categories=categories)
            )
        else:
            self._write_json(self.plan.table, rows)
            self._write_json(self.plan.images, dict(images=images, categories=categories))
        if self.plan.maps is not None:
            self.files.append(self.plan.maps)
        if self.plan.pictures:
            self.files.append(self.plan.out / 'pictures')

    def abandon(self) -> None:
        """Takes away the videos that are not complete."""
        for video in self._videos.values():
            video.abandon()

    def _named(self, file: Path) -> str:
        """How the json names a file: by its place from there, where that is below."""
        with suppress(ValueError):
            return file.relative_to(self.plan.table.parent).as_posix()
        return file.as_posix()

    def _write_json(self, path: Path, content: Any) -> None:
        write_whole(path, lambda out: out.write(json.dumps(content).encode()))
        self.files.append(path)

    def _draw(self, item: Item, result: Result) -> None:
        picture = result.draw(item.image)
        if not item.source.video:
            _write_image(self.plan.picture(item.source), picture, QUALITY)
            return
        if item.source.name not in self._videos:
            self._videos[item.source.name] = _Video(
                item.source,
                [self.plan.picture(item.source, suffix) for suffix, _ in CODECS],
                rate_of(item.source.path) / self.plan.every,
            )
        self._videos[item.source.name].add(picture)


def _small(labels: np.ndarray) -> np.ndarray:
    """Class indices in the fewest bytes."""
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


def _write_image(path: Path, array: np.ndarray, quality: int = 0) -> None:
    """Writes an image H W or H W 3 in RGB, in the format of its suffix."""
    import cv2

    given = array[:, :, ::-1] if array.ndim == 3 else array
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else []
    _, coded = cv2.imencode(path.suffix, np.ascontiguousarray(given), settings)
    write_whole(path, lambda out: out.write(coded.tobytes()))


class _Video:
    """An annotated video, under another name until it is complete.

    Args:
        source: the video it is made from.
        paths: its names, by codec.
        rate: frames in a second.
    """

    def __init__(self, source: Source, paths: Sequence[Path], rate: float) -> None:
        self.source, self.paths, self.rate = source, paths, rate
        self.writer: Any = None
        self.path, self.part = paths[0], paths[0]
        self.failed = False

    def add(self, picture: np.ndarray) -> None:
        """Adds a frame."""
        if self.writer is None and not self.failed:
            self._open(picture)
        if self.writer is not None:
            self.writer.write(np.ascontiguousarray(picture[:, :, ::-1]))

    def _open(self, picture: np.ndarray) -> None:
        import cv2

        for path, (suffix, code) in zip(self.paths, CODECS):
            path.parent.mkdir(parents=True, exist_ok=True)
            # The suffix decides on the format, so it is the beginning of the name that differs.
            part = path.with_name(f'.{path.stem}.{os.getpid()}.part{suffix}')
            writer = cv2.VideoWriter(
                str(part), cv2.VideoWriter.fourcc(*code), self.rate, picture.shape[1::-1]
            )
            if writer.isOpened():
                self.writer, self.path, self.part = writer, path, part
                return
            part.unlink(missing_ok=True)
        self.failed = True

    def close(self) -> Path | None:
        """Moves it into place; None if none could be written."""
        if self.writer is None:
            return None
        self.writer.release()
        self.writer = None
        os.replace(self.part, self.path)
        return self.path

    def abandon(self) -> None:
        """Takes away what there is of it."""
        if self.writer is not None:
            self.writer.release()
            self.writer = None
            self.part.unlink(missing_ok=True)
