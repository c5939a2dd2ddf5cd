"""Decide which files a prediction writes, and refuse places where they cannot or must not go.

OUT/pictures/NAME.jpg                   images with the predictions on them; videos as .mp4
OUT/labels/NAME.png                     semantic: a pixel is a class index
OUT/labels/NAME.txt, OUT/classes.txt    detectors, --save-txt: a line an object, as YOLO has it
OUT/crops/CLASS/NAME_0001.jpg           detectors, --save-crops: each object, best score first
OUT/panoptic/NAME.png                   panoptic: a pixel is a segment's number, as COCO has it
OUT/.../NAME/000012.png                 any of these, of a frame of a video
OUT/predictions.json                    detectors: COCO's format of results
OUT/predictions.images.json             and the images and categories that it numbers
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .crops import name_folder
from .inputs import Source
from .videos import CODECS

PREDICTIONS = 'predictions.json'


@dataclass(frozen=True)
class ObjectFiles:
    """The files that the objects of each image go to, beside the json.

    Attributes:
        texts: a text file of an image, as YOLO has it.
        scores: the scores in it.
        crops: a picture of each object.
    """

    texts: bool = False
    scores: bool = False
    crops: bool = False


@dataclass(frozen=True)
class OutputPlan:
    """The files that the results of a run go to.

    Attributes:
        out: the folder.
        table: the json file.
        task: of the model.
        pictures: whether any are drawn.
        names: of the classes.
        num_things: how many of them, from the first on, are countable.
        vid_stride: every N-th frame of a video is predicted on.
        object_files: of a detector.
    """

    out: Path
    table: Path
    task: str
    pictures: bool
    names: tuple[str, ...]
    num_things: int = 0
    vid_stride: int = 1
    object_files: ObjectFiles = ObjectFiles()

    @property
    def images_file(self) -> Path:
        """Return the json file of a detector's images."""
        return self.table.with_name(f'{self.table.stem}.images.json')

    @property
    def maps_folder(self) -> Path | None:
        """Return the folder of maps of classes or segments; None of a detector."""
        folder = {'semantic': 'labels', 'panoptic': 'panoptic'}.get(self.task)
        return None if folder is None else self.out / folder

    @property
    def uses_folder(self) -> bool:
        """Tell whether anything is written to the folder."""
        return bool(self.folders) or self.table.parent == self.out

    @property
    def folders(self) -> list[Path]:
        """Return the folders that files of images and objects go to."""
        folders = [] if self.maps_folder is None else [self.maps_folder]
        if self.pictures:
            folders.append(self.out / 'pictures')
        if self.object_files.texts:
            folders.append(self.out / 'labels')
        if self.object_files.crops:
            folders.append(self.out / 'crops')
        return folders

    @property
    def classes_file(self) -> Path:
        """Return the file of the names that the numbers of text files stand for."""
        return self.out / 'classes.txt'

    def frame_rate(self, source: Source) -> float:
        """Return the predicted frames of a video a second."""
        return source.rate / self.vid_stride

    def picture_path(self, source: Source, suffix: str = '') -> Path:
        """Return the file of an annotated image, or of an annotated video."""
        return (
            self.out
            / 'pictures'
            / (source.name + (suffix or (CODECS[0][0] if source.video else '.jpg')))
        )

    def map_path(self, source: Source, frame: int | None) -> Path:
        """Return the file of the map of an image or a frame."""
        assert self.maps_folder is not None
        return self.maps_folder / f'{_name_image(source, frame)}.png'

    def text_path(self, source: Source, frame: int | None) -> Path:
        """Return the text file of the objects of an image or a frame."""
        return self.out / 'labels' / f'{_name_image(source, frame)}.txt'

    def crop_path(self, source: Source, frame: int | None, class_name: str, number: int) -> Path:
        """Return the picture of an object of an image or a frame, numbered from 1."""
        name = f'{_name_image(source, frame)}_{number:04d}.jpg'
        return self.out / 'crops' / name_folder(class_name) / name


def _name_image(source: Source, frame: int | None) -> str:
    """Return the name of an image, or the folder and name of a frame."""
    return source.name if frame is None else f'{source.name}/{frame:06d}'


def check_outputs(
    plan: OutputPlan, sources: Sequence[Source], others: Iterable[str | os.PathLike], force: bool
) -> None:
    """Refuse to write where results would replace a file that is read, or those of another run.

    Args:
        plan: where the results go.
        sources: the images and videos.
        others: other files that are read.
        force: replace results of another run.

    Raises:
        UserError: with what to do instead.
    """
    files = [source.path for source in sources if source.stream is None]
    _check_reads(plan, [*files, *map(Path, others)])
    if plan.table.suffix != '.json' or plan.table.is_dir():
        raise UserError(
            f'--json {plan.table}: results are written as a json file; give a name '
            'that ends in .json',
            code='option.suffix',
        )
    if plan.uses_folder:
        check_folder(plan.out, '--out')
    check_folder(plan.table.parent, '--json')
    if not force:
        _check_existing(plan)


def _check_reads(plan: OutputPlan, read: Iterable[Path]) -> None:
    """Refuse to replace a file that is read."""
    files = plan.table, plan.images_file, plan.classes_file
    written = {Path(os.path.realpath(p)) for p in (*files, *plan.folders)}
    for path in read:
        real = Path(os.path.realpath(path))
        if not written.isdisjoint((real, *real.parents)):
            raise UserError(
                f'{path} is read, and results would be written to its place; name '
                'another --out or --json',
                code='option.overwrites-input',
            )


def _check_existing(plan: OutputPlan) -> None:
    """Refuse to replace the results of another run."""
    if plan.uses_folder and plan.out.is_dir():
        existing = sorted(path.name for path in plan.out.iterdir())
        if existing:
            raise UserError(
                f'--out {plan.out}: the folder has files of another run '
                f'({", ".join(existing[:4])}{", ..." if existing[4:] else ""}); name another, or '
                'give --force, which replaces those of the same names and leaves the rest',
                code='option.exists',
            )
    for file in (plan.table, plan.images_file):
        if file.exists():
            raise UserError(
                f'--json {plan.table}: {file} exists; name another, or give --force to replace it',
                code='option.exists',
            )


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder, which may not exist yet, in which no file can be made."""
    parent = folder  # the nearest that exists
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        if not parent.is_dir():
            raise NotADirectoryError(0, f'{parent} is a file')
        handle, name = tempfile.mkstemp(prefix='.mmresnest.', dir=parent)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise UserError(
            f'{option} {folder}: no file can be made there ({error.strerror}); name '
            'another folder, or have its owner let you write into it',
            code='file.unwritable',
        ) from error
