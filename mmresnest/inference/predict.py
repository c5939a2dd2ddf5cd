"""Predict on images and videos, in one function: ``mmresnest predict``."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config.options import build_options
from ..errors import UserError
from ..utils.files import no_empty_folders
from .base import BasePredictor, StreamPredictor
from .class_filter import filter_by_class, find_labels
from .images import BadImage, read_image
from .inputs import Item, Source, count_images, find_sources
from .option_checks import check_sources, check_task, check_values, needed_score, tile_overlap
from .options import ExportedOptions, ImageOptions, PredictOptions
from .outputs import PREDICTIONS, ObjectFiles, OutputPlan, check_outputs
from .results import Result
from .slicing import SlicedPredictor
from .streams import iter_stream, stop_on_signal
from .tracking import follow_objects
from .videos import iter_frames
from .writer import ResultWriter

if TYPE_CHECKING:
    from mmengine.config import Config

OUT = 'predictions'


class Progress(Protocol):
    """What a prediction reports its progress to."""

    def step(self) -> None:
        """Count one more image or frame."""

    def say(self, line: str) -> None:
        """Show a line that the user should know of."""


class NoProgress:
    """A progress that is shown to nobody."""

    def step(self) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""


MakeProgress = Callable[[int | None], AbstractContextManager[Progress]]


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
    checkpoint: str | os.PathLike | None,
    images: Sequence[str | os.PathLike],
    options: PredictOptions | None = None,
    /,
    *,
    progress: MakeProgress | None = None,
    **given: Any,
) -> PredictResult:
    """Predict on images and videos, and write what was found.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest; or the work folder
            of a training, of which config and checkpoint are taken.
        checkpoint: weights of the config's model; its classes are those it was trained with. None
            for the best of the work folder.
        images: files, folders, patterns, videos, addresses of streams or numbers of cameras.
        options: what is asked for, see :class:`~mmresnest.inference.options.PredictOptions`.
        progress: makes what is told of the progress, from the number of images and frames.
        **given: options by keyword, such as ``score_thr=0.5``.

    Returns:
        counts and files.

    Raises:
        UserError: if something given cannot be used, or no image can.
    """
    from ..config.architecture import load_with_arch
    from ..data.request import DataRequest
    from ..engine.trained_run import resolve_run
    from .predictor import Predictor

    config, checkpoint, _ = resolve_run(config, checkpoint)
    options = build_options(PredictOptions, options, given)
    file = getattr(config, 'filename', config)

    def make() -> Predictor:
        predictor = Predictor(
            load_with_arch(config, options.arch),
            checkpoint,
            options.device,
            needed_score(options),
            data=DataRequest.parse(
                options.data, options.mask_values, options.data_format, options.split
            ),
            demo=options.demo,
            options=options.cfg_options,
            fused=options.fuse,
            runtime=options.runtime,
            max_regions=options.max_regions,
        )
        return predictor.use_tta() if options.tta else predictor

    read = [path for path in (file, checkpoint) if path]
    return _run_prediction(make, read, images, options, progress)


def predict_exported(
    model: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    options: ExportedOptions | None = None,
    /,
    *,
    progress: MakeProgress | None = None,
    **given: Any,
) -> PredictResult:
    """Predict by a file of ``mmresnest export``, without torch and without an mm library.

    Args:
        model: an ``.onnx`` or ``.xml``.
        images: files, folders, patterns, videos, addresses of streams or numbers of cameras.
        options: what is asked for, see :class:`~mmresnest.inference.options.ExportedOptions`.
        progress: as for :func:`predict`.
        **given: options by keyword.

    Returns:
        counts and files.

    Raises:
        UserError: if something given cannot be used, or no image can.
    """
    from .exported import ExportedModel

    options = build_options(ExportedOptions, options, given)
    if options.tta:
        raise UserError(
            '--tta merges several views by the config of a training, which an exported file does '
            'not hold; predict by config and checkpoint, or leave --tta out',
            code='option.conflict',
        )
    return _run_prediction(
        lambda: ExportedModel(model, needed_score(options), options.device),
        [model],
        images,
        options,
        progress,
    )


def _run_prediction(
    make: Callable[[], BasePredictor],
    read: Sequence[str | os.PathLike],
    images: Sequence[str | os.PathLike],
    options: ImageOptions,
    progress: MakeProgress | None,
) -> PredictResult:
    """Predict by what ``make`` makes from files that are ``read``."""
    start = time.monotonic()
    check_values(options)
    sources = find_sources(images)
    check_sources(options, sources)
    folder = Path(OUT if options.out is None else options.out).expanduser()
    table = folder / PREDICTIONS if options.json is None else Path(options.json).expanduser()
    # Checked before the model is loaded, which takes long, and again when its task is known.
    plan = OutputPlan(
        folder,
        table,
        '',
        options.vis,
        (),
        vid_stride=options.vid_stride,
        object_files=ObjectFiles(options.save_txt, options.save_conf, options.save_crops),
    )
    check_outputs(plan, sources, read, options.force)
    model = make()
    check_task(options, model.task)
    labels = None if options.classes is None else find_labels(options.classes, model.names)
    plan = replace(plan, task=model.task, names=model.names, num_things=model.num_things)
    check_outputs(plan, sources, read, options.force)
    writer = ResultWriter(plan)
    shown = progress or (lambda total: nullcontext(NoProgress()))
    with (
        shown(count_images(sources, options.vid_stride)) as shown_progress,
        _discard_on_failure(writer),
        ExitStack() as signals,
    ):
        skipped, stop = Skipped(shown_progress), threading.Event()
        if any(source.stream for source in sources):
            signals.enter_context(stop_on_signal(stop))
        items = _iter_items(sources, plan.vid_stride, skipped, stop)
        predictor: StreamPredictor = model
        if options.slice is not None:
            predictor = SlicedPredictor(model, options.slice, tile_overlap(options))
        # A film stays in its order: where the size of its frames changes, none waits for others.
        groups = groupby(items, lambda item: item.image.shape if item.source.video else None)
        results: Iterable[tuple[Item, Result]] = chain.from_iterable(
            predictor.stream(
                ((item, item.image) for item in group), options.batch_size, skipped.add_item
            )
            for _, group in groups
        )
        if labels is not None:
            results = ((item, filter_by_class(result, labels)) for item, result in results)
        if options.track:
            results = follow_objects(results, plan.frame_rate, options.score_thr)
        _write_all(writer, results, skipped)
        for note in writer.notes:
            shown_progress.say(note)
    seconds = time.monotonic() - start
    return PredictResult(writer.shown, writer.objects, skipped.reasons, writer.files, seconds)


def _write_all(
    writer: ResultWriter, results: Iterable[tuple[Item, Result]], skipped: Skipped
) -> None:
    """Write results as they come.

    Raises:
        UserError: if there are none.
    """
    for item, result in results:
        writer.add_result(item, result)
        skipped.progress.step()
    if not writer.shown:
        bad = skipped.reasons
        if not bad:  # a stream was ended before its first picture
            raise KeyboardInterrupt
        some = '; '.join(f'{name} ({reason})' for name, reason in list(bad.items())[:3])
        raise UserError(
            f'none of the {len(bad)} images can be used: {some}'
            f'{"; ..." if len(bad) > 3 else ""}. Give others',
            code='image.unreadable',
        )
    writer.close()


def _iter_items(
    sources: Iterable[Source], vid_stride: int, skipped: Skipped, stop: threading.Event
) -> Iterator[Item]:
    """Read images and frames one after the other, and report what cannot be used.

    Args:
        sources: the images and videos.
        vid_stride: every N-th frame of a video is read.
        skipped: is told.
        stop: ends streams, and what would come after them.
    """
    number = 0
    for source in sources:
        if stop.is_set():
            return
        if source.video:
            frames = (
                iter_frames(source.path, vid_stride)
                if source.stream is None
                else iter_stream(source.stream, vid_stride, skipped.progress.say, stop)
            )
            before = number
            for frame, image in frames:
                if source.stream is None and stop.is_set():
                    return
                number += 1
                yield Item(number, source, frame, image)
            if number == before and not stop.is_set():
                skipped.add_image(source.label, 'it gives no picture')
            continue
        number += 1
        try:
            image = read_image(source.path)
        except BadImage as error:
            skipped.add_image(error.name, error.reason)
            continue
        yield Item(number, source, None, image)


class Skipped:
    """The images that cannot be used.

    Args:
        progress: is told of each.

    Attributes:
        reasons: image -> why it was skipped.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.reasons: dict[str, str] = {}

    def add_item(self, item: Item, reason: str) -> None:
        """Record an image or a frame, and report it."""
        self.add_image(item.display_name, reason)

    def add_image(self, name: str, reason: str) -> None:
        """Record an image, and report it."""
        self.reasons[name] = reason
        self.progress.say(f'skipped: {name}: {reason}')
        self.progress.step()


@contextmanager
def _discard_on_failure(writer: ResultWriter) -> Iterator[None]:
    """Remove incomplete videos, and folders that stayed empty, in the end."""
    plan = writer.plan
    try:
        with no_empty_folders(*plan.folders, plan.out, plan.table.parent):
            try:
                yield
            finally:
                writer.discard_videos()
    except OSError as error:
        raise UserError(
            f'{error.filename or plan.out} cannot be written: {error.strerror}; make '
            'room, or name another --out',
            code='file.unwritable',
        ) from error
