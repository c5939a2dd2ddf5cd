"""What stands behind the page: a model, the pictures it was given, and what it found on them.

The network runs once on a picture. What it found is kept with all scores from ``LEAST_SCORE`` on,
so that a threshold or a choice of classes only filters it.
"""

from __future__ import annotations

import io
import re
import secrets
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...utils.boxes import class_name, is_background
from ...utils.text import printable
from ...visualization.canvas import MAX_BOXES, class_color
from ..base import BasePredictor
from ..class_filter import filter_by_class
from ..images import BadImage, read_image
from ..inputs import Item, Source
from ..option_checks import BOXES
from ..outputs import PREDICTIONS, OutputPlan
from ..results import VOID, Detections, Result, Segmentation
from ..writer import ResultWriter, encode_image

LEAST_SCORE = 0.05
"""The lowest threshold of the page: what mmdet's detectors leave out by default."""
MAX_PIXELS = 2**26
"""Pixels of a picture: half of what ``predict`` reads, since several are kept."""
MAX_KEPT = 8
MAX_BYTES = 2**30
"""How many pictures are kept with their results, and how large all of them are, but the newest."""


@dataclass(frozen=True)
class View:
    """What of a result is shown and saved.

    Attributes:
        score: objects with a lower one are left out.
        labels: of the classes that are shown; None for all.
    """

    score: float
    labels: frozenset[int] | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what was found on it.

    Attributes:
        name: of its file.
        image: H W 3 in RGB.
        result: with all that the model found.
    """

    name: str
    image: np.ndarray
    result: Result

    @property
    def bytes(self) -> int:
        """Return how much memory it takes."""
        arrays = [getattr(self.result, name, None) for name in ('masks', 'labels', 'ids')]
        return self.image.nbytes + sum(array.nbytes for array in arrays if array is not None)


class PageSession:
    """A model, and the pictures that it was tried on; used by several threads.

    Args:
        model: a predictor that leaves out no object from ``LEAST_SCORE`` on.
        title: what the page calls the model.
        score_thr: the threshold at first.
    """

    def __init__(self, model: BasePredictor, title: str, score_thr: float = 0.3) -> None:
        self.model, self.title, self.score_thr = model, title, score_thr
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._working = threading.Lock()  # neither models nor matplotlib take two at a time

    def describe_model(self) -> dict[str, Any]:
        """Return what the page says of the model."""
        names = self.model.names
        return dict(
            title=printable(self.title),
            task=self.model.task,
            classes=[
                dict(label=label, name=printable(name), color=_format_color(label, names))
                for label, name in enumerate(names)
            ],
            score=self.score_thr,
            least=min(LEAST_SCORE, self.score_thr),
            scored=self.model.task in BOXES,
        )

    def add_picture(self, name: str, content: bytes) -> dict[str, Any]:
        """Predict on a picture, and keep both.

        Args:
            name: of its file, as the browser says.
            content: of its file.

        Returns:
            the id by which it is asked for, its name and size, and the seconds it took.

        Raises:
            UserError: the picture cannot be used, or the model refuses it.
        """
        name = clean_name(name)
        begun = time.monotonic()
        with self._working:
            image = _decode_image(name, content)
            try:
                result = self.model(image)
            except BadImage as error:
                raise BadImage(name, error.reason, error.code) from error
            picture = Picture(name, image, result)
            number = secrets.token_hex(8)  # not guessed by others who reach the page
            self._pictures[number] = picture
            self._forget_oldest()
        height, width = image.shape[:2]
        seconds = round(time.monotonic() - begun, 2)
        return dict(id=number, name=name, width=width, height=height, seconds=seconds)

    def _forget_oldest(self) -> None:
        kept = self._pictures
        while len(kept) > 1 and (
            len(kept) > MAX_KEPT or sum(one.bytes for one in kept.values()) > MAX_BYTES
        ):
            kept.popitem(last=False)

    def find_picture(self, number: str) -> Picture:
        """Return the picture of an id.

        Raises:
            UserError: it is no longer kept.
        """
        try:
            return self._pictures[number]
        except KeyError:
            raise UserError(
                f'this picture is no longer kept: the last {MAX_KEPT} are, until the command '
                'ends; drop it here again',
                code='page.forgotten',
            ) from None

    def describe_result(self, number: str, view: View) -> dict[str, Any]:
        """Return what the page lists beside a picture: a row for each object or class."""
        result = filter_result(self.find_picture(number).result, view)
        names = self.model.names
        if isinstance(result, Detections):
            rows = [
                (int(label), f'{score:.2f}') for label, score in zip(result.labels, result.scores)
            ]
            note = f'the best {MAX_BOXES} are drawn' if len(rows) > MAX_BOXES else ''
        else:
            labels, counts = np.unique(result.labels, return_counts=True)
            rows = [
                (int(labels[at]), f'{counts[at] / result.labels.size:.1%}')
                for at in np.argsort(-counts, kind='stable')
                if labels[at] != VOID and (view.labels is None or labels[at] in view.labels)
            ]
            note = 'share of the pixels'
            if view.labels is not None and isinstance(result, Segmentation):
                note += '; what is saved has all classes'
        return dict(
            note=note,
            rows=[
                dict(
                    name=printable(class_name(names, label)),
                    color=_format_color(label, names),
                    value=value,
                )
                for label, value in rows
            ],
        )

    def draw_picture(self, number: str, view: View) -> bytes:
        """Return a picture with its result drawn on it, a JPEG."""
        picture = self.find_picture(number)
        result = filter_result(picture.result, view)
        if isinstance(result, Segmentation) and view.labels is not None:
            shown = np.isin(result.labels, list(view.labels))
            result = replace(result, labels=np.where(shown, result.labels, VOID))
        with self._working:
            return encode_image('.jpg', result.draw(picture.image))

    def save_result(self, number: str, view: View, file: str) -> bytes:
        """Return a file of a result: the json, or all that ``predict`` writes in one archive.

        Raises:
            UserError: the picture is no longer kept.
        """
        picture, model, drawn = self.find_picture(number), self.model, file != PREDICTIONS
        source = Source(Path(picture.name), Path(picture.name).stem, False)
        with tempfile.TemporaryDirectory() as name, self._working:
            folder, table = Path(name), Path(name) / PREDICTIONS
            writer = ResultWriter(
                OutputPlan(
                    folder, table, model.task, drawn, model.names, num_things=model.num_things
                )
            )
            result = filter_result(picture.result, view)
            writer.add_result(Item(1, source, None, picture.image), result)
            writer.close()
            if not drawn:
                return table.read_bytes()
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(path for path in folder.rglob('*') if path.is_file()):
                    archive.write(path, path.relative_to(folder).as_posix())
            return packed.getvalue()


def filter_result(result: Result, view: View) -> Result:
    """Return a result with the objects that are shown; of a semantic one, all."""
    if isinstance(result, Detections):
        result = result.filter_by_score(view.score)
    if view.labels is not None:
        result = filter_by_class(result, view.labels)
    return result


def clean_name(name: str) -> str:
    """Return the name of a file without its folder, and without what a file system refuses."""
    last = printable(re.split(r'[/\\]', name)[-1])
    return re.sub(r'[<>:"|?*]', '_', last).strip(' .')[-100:] or 'picture'


def _decode_image(name: str, content: bytes) -> np.ndarray:
    """Return the pixels of a file H W 3 in RGB, by the reader of ``predict``, which reads files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'picture'
        path.write_bytes(content)
        try:
            return read_image(path, MAX_PIXELS)
        except BadImage as error:
            raise BadImage(name, error.reason, error.code) from error


def _format_color(label: int, names: tuple[str, ...]) -> str:
    """Return the color of a class for the page; that of a background is none."""
    if is_background(names, label):
        return 'transparent'
    return '#' + ''.join(f'{round(255 * part):02x}' for part in class_color(label))
