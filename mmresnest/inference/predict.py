"""Prediction on images and videos, as one function: ``mmresnest predict``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UserError
from ..utils.files import no_empty_folders
from . import inputs, outputs
from .base import Asked
from .inputs import BadImage, Item, Source

if TYPE_CHECKING:
    from mmengine.config import Config

OUT = 'predictions'


class Progress(Protocol):
    """Is told how far a prediction is."""

    def step(self) -> None:
        """One more image or frame is done."""

    def say(self, line: str) -> None:
        """Something the user should know."""


class Silent:
    """Tells nobody."""

    def step(self) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class PredictResult:
    """What a prediction did.

    Attributes:
        images: images and frames that were predicted on.
        objects: how many were found; 0 for semantic models.
        bad: image -> why it was skipped.
        files: what was written, pictures and maps by their folders.
        seconds: wall time of the whole call.
    """

    images: int
    objects: int
    bad: dict[str, str]
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0


def predict(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    out: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    demo: bool = False,
    batch_size: int = 1,
    score_thr: float = 0.3,
    device: str = 'auto',
    json: str | os.PathLike | None = None,
    pictures: bool = True,
    every: int = 1,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int | None], AbstractContextManager[Progress]] | None = None,
) -> PredictResult:
    """Predicts on images and videos, and writes what was found.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        checkpoint: weights of the config's model; its classes are those it was trained with.
        images: files, folders, patterns or videos.
        out: the folder to write to, ``predictions`` by default; see :mod:`.outputs`.
        data: see :class:`~.predictor.Predictor`.
        demo: the checkpoint is of ``train(..., demo=True)``.
        batch_size: images of one size that go through the model together.
        score_thr: objects that are less certain are left out.
        device: ``auto``, ``cpu`` or ``cuda``.
        json: the file for the results, instead of the one in ``out``.
        pictures: draw the predictions.
        every: of so many frames of a video one is predicted on.
        force: replace results of another run.
        options: settings to override, dotted names to values.
        progress: makes what is told of the progress, from the number of images and frames.

    Returns:
        counts and files.

    Raises:
        UserError: if something given cannot be used, or no image can.
    """
    from .predictor import Predictor

    file = getattr(config, 'filename', config)
    return _predict(
        lambda: Predictor(
            config, checkpoint, device, score_thr, data=data, demo=demo, options=options
        ),
        [path for path in (file, checkpoint) if path],
        images,
        out=out,
        batch_size=batch_size,
        json=json,
        pictures=pictures,
        every=every,
        force=force,
        progress=progress,
    )


def predict_exported(
    model: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    score_thr: float = 0.3,
    device: str = 'auto',
    **more: Any,
) -> PredictResult:
    """Predicts by a file of ``mmresnest export``, and imports neither torch nor an mm library.

    Args:
        model: an ``.onnx`` or ``.xml``.
        images: files, folders, patterns or videos.
        score_thr: objects that are less certain are left out.
        device: see :class:`~mmresnest.inference.exported.ExportedModel`.
        **more: ``out``, ``batch_size``, ``json``, ``pictures``, ``every``, ``force`` and
            ``progress``, as for :func:`predict`.

    Returns:
        counts and files.

    Raises:
        UserError: if something given cannot be used, or no image can.
    """
    from .exported import ExportedModel

    return _predict(lambda: ExportedModel(model, score_thr, device), [model], images, **more)


def _predict(
    make: Callable[[], Asked],
    read: Sequence[str | os.PathLike],
    images: Sequence[str | os.PathLike],
    *,
    out: str | os.PathLike | None = None,
    batch_size: int = 1,
    json: str | os.PathLike | None = None,
    pictures: bool = True,
    every: int = 1,
    force: bool = False,
    progress: Callable[[int | None], AbstractContextManager[Progress]] | None = None,
) -> PredictResult:
    """Predicts by what ``make`` makes from files that are ``read``."""
    start = time.monotonic()
    for name, value in (('--every', every), ('--batch-size', batch_size)):
        if value < 1:
            raise UserError(f'{name} {value}: at least 1 is needed')
    found = inputs.find(images)
    folder = Path(OUT if out is None else out).expanduser()
    table = folder / outputs.PREDICTIONS if json is None else Path(json).expanduser()
    # Before anything dear is done; what the task adds is looked at when it is known.
    plan = outputs.Plan(folder, table, '', pictures, (), every=every)
    outputs.check(plan, found, read, force)
    model = make()
    plan = outputs.Plan(folder, table, model.task, pictures, model.names, model.things, every)
    outputs.check(plan, found, read, force)
    bad: dict[str, str] = {}
    writer = outputs.Writer(plan)
    shown = progress or (lambda total: nullcontext(Silent()))
    with shown(inputs.count(found, every)) as said, _whole_or_gone(writer):
        _feed(model, writer, found, batch_size, bad, said)
        for note in writer.notes:
            said.say(note)
    return PredictResult(writer.shown, writer.objects, bad, writer.files, time.monotonic() - start)


def _feed(
    predictor: Asked,
    writer: outputs.Writer,
    found: Iterable[Source],
    batch_size: int,
    bad: dict[str, str],
    said: Progress,
) -> None:
    """Has everything predicted on and written.

    Raises:
        UserError: if nothing can be used.
    """

    def skip(item: Item, reason: str) -> None:
        _skip(BadImage(item.called, reason), bad, said)

    items = _items(found, writer.plan.every, bad, said)
    images = ((item, item.image) for item in items)
    for item, result in predictor.stream(images, batch_size, skip):
        writer.add(item, result)
        said.step()
    if not writer.shown:
        some = '; '.join(f'{name} ({reason})' for name, reason in list(bad.items())[:3])
        raise UserError(
            f'none of the {len(bad)} images can be used: {some}'
            f'{"; ..." if len(bad) > 3 else ""}. Give others'
        )
    writer.close()


def _items(
    found: Iterable[Source], every: int, bad: dict[str, str], said: Progress
) -> Iterator[Item]:
    """Images and frames one after the other; what cannot be used is noted."""
    number = 0
    for source in found:
        if source.video:
            for frame, image in inputs.frames_of(source.path, every):
                number += 1
                yield Item(number, source, frame, image)
            continue
        number += 1
        try:
            image = inputs.read_image(source.path)
        except BadImage as error:
            _skip(error, bad, said)
            continue
        yield Item(number, source, None, image)


def _skip(error: BadImage, bad: dict[str, str], said: Progress) -> None:
    bad[error.name] = error.reason
    said.say(f'skipped: {error}')
    said.step()


@contextmanager
def _whole_or_gone(writer: outputs.Writer) -> Iterator[None]:
    """Takes away, in the end, parts of videos, and folders that were made for nothing."""
    plan = writer.plan
    try:
        with no_empty_folders(plan.out / 'pictures', plan.maps or plan.out, plan.table.parent):
            try:
                yield
            finally:
                writer.abandon()
    except OSError as error:
        raise UserError(
            f'{error.filename or plan.out} cannot be written: {error.strerror}; make '
            'room, or name another --out'
        ) from error
