"""Pictures of single cases: found best, found worst, missed and false, with the truth beside.

A case is an object or a detection; of a segmentor, a class in a picture.  There are more of them
than a page can hold: classes take turns, each with its next best case, so that every class shows
what it has before one shows all.  A picture is a JPEG of at most ``BYTES``.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..evaluation.matching import Matches, false, missed
from ..evaluation.predictions import Detections, LabelMaps, ignored, read_png
from ..utils.boxes import class_name, decode_mask
from ..visualization.canvas import WRONG, class_colour, ink_on, read_image, tint_labels

if TYPE_CHECKING:
    from PIL.Image import Image

BYTES = 16_000  # of a picture as JPEG, at most
PANEL = 232  # px: a side of each half of an object's picture
MAP = 200  # px: the width of each third of a label map's
CONTEXT = 2.2  # sides of an object that its picture shows

KINDS = {'best': 'found best', 'worst': 'found worst', 'missed': 'missed', 'false': 'false'}


class Case(NamedTuple):
    """What one picture shows.

    ``label`` is the class it is filed under, ``rows`` the true object and the detection (-1: none);
    of a label map, ``rows`` is (-1, -1) and ``rank`` what the case was chosen by.
    """

    kind: str
    picture: int
    label: int
    rank: float
    rows: tuple[int, int] = (-1, -1)


@dataclass(frozen=True)
class Shown:
    """A case as it stands on the page."""

    kind: str
    label: int
    path: str
    caption: str
    jpeg: bytes
    size: tuple[int, int]


# ---- choosing ------------------------------------------------------------------------------------


def object_cases(results: Detections, matches: Matches) -> dict[str, list[Case]]:
    """All cases of a detector by kind, those to be shown first in front."""
    truth, found = results.truth, results.found
    right = np.flatnonzero((matches.partner >= 0) & matches.shown)
    quality = found.score[right] * matches.overlap[right]
    pairs = [(int(matches.partner[row]), int(row)) for row in right]
    cases = {
        'best': [
            Case('best', int(found.picture[pair[1]]), int(found.label[pair[1]]), -rank, pair)
            for pair, rank in zip(pairs, quality)
        ],
        'worst': [
            Case('worst', int(found.picture[pair[1]]), int(found.label[pair[1]]), rank, pair)
            for pair, rank in zip(pairs, quality)
        ],
        'missed': [
            Case(
                'missed',
                int(truth.picture[row]),
                int(truth.label[row]),
                -float(truth.area[row]),
                (int(row), -1),
            )
            for row in np.flatnonzero(missed(results, matches))
        ],
        'false': [
            Case(
                'false',
                int(found.picture[row]),
                int(found.label[row]),
                -float(found.score[row]),
                (int(matches.confused[row]), int(row)),
            )
            for row in np.flatnonzero(false(matches))
        ],
    }
    return {kind: sorted(several, key=lambda case: case.rank) for kind, several in cases.items()}


def map_cases(results: LabelMaps) -> dict[str, list[Case]]:
    """The same of a segmentor: every class of every picture, by IoU and by wrong pixels."""
    right, lost, made_up = (results.counts[..., number].astype(float) for number in range(3))
    iou = right / np.maximum(right + lost + made_up, 1)
    there = right + lost > 0
    ranks = {
        'best': (-iou, there & (right > 0)),
        'worst': (iou, there & (iou < 1)),
        'missed': (-lost, lost > 0),
        'false': (-made_up, made_up > 0),
    }
    cases = {
        kind: [
            Case(kind, int(picture), int(label), float(rank[picture, label]))
            for picture, label in np.argwhere(chosen)
        ]
        for kind, (rank, chosen) in ranks.items()
    }
    return {kind: sorted(several, key=lambda case: case.rank) for kind, several in cases.items()}


def chosen(cases: Sequence[Case], count: int) -> list[Case]:
    """That many of them: in each round every class has its next one."""
    turn: dict[int, int] = {}
    rounds = []
    for case in cases:
        rounds.append(turn.setdefault(case.label, 0))
        turn[case.label] += 1
    order = np.argsort(np.array(rounds, int), kind='stable')
    return [cases[number] for number in order[:count]]


# ---- drawing -------------------------------------------------------------------------------------


def draw_objects(
    results: Detections, matches: Matches, cases: Iterable[Case]
) -> tuple[list[Shown], int]:
    """Draws cases of a detector.

    Returns:
        the pictures in the order of the cases, and how many could not be read.
    """
    by_picture = list(results.truth.by_picture(len(results.pictures)))
    found_by_picture = list(results.found.by_picture(len(results.pictures)))

    def draw(case: Case, image: np.ndarray) -> tuple[Image, str]:
        rows = by_picture[case.picture], found_by_picture[case.picture]
        return _object_picture(results, matches, case, image, rows)

    return _drawn(results, cases, draw)


def draw_maps(results: LabelMaps, cases: Iterable[Case]) -> tuple[list[Shown], int]:
    """The same of a segmentor."""

    def draw(case: Case, image: np.ndarray) -> tuple[Image, str]:
        return _map_picture(results, case, image)

    return _drawn(results, cases, draw)


def _drawn(
    results: Detections | LabelMaps, cases: Iterable[Case], draw: Any
) -> tuple[list[Shown], int]:
    """Reads each picture once, whatever the number of its cases."""
    cases = list(cases)
    shown: dict[int, Shown] = {}
    lost = 0
    for image, numbers in _images(results, cases):
        for number in numbers:
            if image is None:
                lost += 1
                continue
            picture, caption = draw(cases[number], image)
            case = cases[number]
            shown[number] = Shown(
                case.kind,
                case.label,
                results.pictures[case.picture].path,
                caption,
                _jpeg(picture),
                picture.size,
            )
    return [shown[number] for number in sorted(shown)], lost


def _images(
    results: Detections | LabelMaps, cases: Sequence[Case]
) -> Iterator[tuple[np.ndarray | None, list[int]]]:
    """Each image that is needed, None where it is not to be had, and its cases."""
    wanted: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        wanted.setdefault(case.picture, []).append(number)
    for picture, numbers in wanted.items():
        try:
            yield read_image(results.pictures[picture].path), numbers
        except (OSError, UserError) as error:
            logging.getLogger(__name__).info('left out of the pictures: %s', error)
            yield None, numbers


def _jpeg(picture: Image) -> bytes:
    """As JPEG, of the best quality that stays below ``BYTES``; of noise, a smaller picture."""
    while True:
        for quality in (82, 70, 55, 40, 25):
            out = io.BytesIO()
            picture.save(out, 'JPEG', quality=quality, optimize=True)
            if out.tell() <= BYTES:
                return out.getvalue()
        picture = picture.resize((-(-picture.width // 2), -(-picture.height // 2)))


def _window(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """A square of the picture around a box, as far as there is one: x0 y0 x1 y1."""
    side = min(max(CONTEXT * float(max(box[2:] - box[:2])), 64.0), float(max(width, height)))
    middle = (box[:2] + box[2:]) / 2
    start = []
    for centre, length in zip(middle, (width, height)):
        start.append(max(0, min(round(float(centre) - side / 2), round(length - side))))
    return (
        start[0],
        start[1],
        min(width, start[0] + round(side)),
        min(height, start[1] + round(side)),
    )


def _object_picture(
    results: Detections,
    matches: Matches,
    case: Case,
    image: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
) -> tuple[Image, str]:
    from PIL import Image as images

    truth, found, classes = results.truth, results.found, results.classes
    there, said = case.rows
    focus = np.array(
        [truth.box[row] for row in [there] if row >= 0]
        + [found.box[row] for row in [said] if row >= 0]
    )
    whole = np.concatenate([focus[:, :2].min(axis=0), focus[:, 2:].max(axis=0)])
    x0, y0, x1, y1 = _window(whole, image.shape[1], image.shape[0])
    scale = PANEL / max(x1 - x0, y1 - y0, 1)
    sheet = images.new('RGB', (2 * PANEL + 4, PANEL), '#dddddd')
    shown = rows[1][matches.shown[rows[1]]]
    halves = (truth, rows[0], there), (found, shown, said)
    for place, (objects, several, one) in enumerate(halves):
        half = images.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
        half = half.resize((max(round(half.width * scale), 1), max(round(half.height * scale), 1)))
        if one >= 0 and found.masks is not None and objects.masks is not None:
            inside = decode_mask(objects.masks[one], *image.shape[:2])[y0:y1, x0:x1]
            half = _outlined(half, inside, class_colour(int(objects.label[one])))
        words = (
            {}
            if one < 0
            else {one: _words(case.kind, place, classes, objects.label[one], objects.score[one])}
        )
        for row in [*(row for row in several if row != one), *([one] if one >= 0 else [])]:
            box = (objects.box[row] - (x0, y0, x0, y0)) * scale
            _draw_box(half, box, class_colour(int(objects.label[row])), words.get(row))
        sheet.paste(half, (place * (PANEL + 4), 0))
    return sheet, _caption(results, matches, case)


def _outlined(half: Image, inside: np.ndarray, colour: tuple[float, float, float]) -> Image:
    """Draws the border of a mask: laid over an object, colour would change what it looks like."""
    from PIL import Image as images

    mask = images.fromarray(inside.astype(np.uint8) * 255).resize(half.size)
    grown = np.pad(np.asarray(mask) > 127, 2)
    height, width = half.height, half.width
    near = [
        grown[2 + y : 2 + y + height, 2 + x : 2 + x + width]
        for y, x in ((-2, 0), (2, 0), (0, -2), (0, 2), (0, 0))
    ]
    border = np.logical_or.reduce(near) & ~np.logical_and.reduce(near)
    pixels = np.array(half)
    pixels[border] = [round(255 * part) for part in colour]
    return images.fromarray(pixels)


def _words(kind: str, place: int, classes: Sequence[str], label: int, score: float) -> str:
    name = class_name(classes, int(label))
    if place == 0:
        return f'missed {name}' if kind == 'missed' else name
    return f'{"false " if kind == "false" else ""}{name} {score:.2f}'


def _draw_box(
    half: Image, box: np.ndarray, colour: tuple[float, float, float], words: str | None
) -> None:
    """A box; the one that the case is about is thicker, and has its words."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(half)
    ink = tuple(round(255 * part) for part in colour)
    corners = [float(value) for value in box]
    wide = 3 if words else 2
    dark = [corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1]
    mistake = words is not None and words.startswith(('missed ', 'false '))
    # A dark seam keeps a bright line visible on a bright ground, a red one flags a mistake.
    pen.rectangle(dark, outline=WRONG if mistake else 'black', width=wide + 2)
    pen.rectangle(corners, outline=ink, width=wide)
    if words is None:
        return
    font = _font()
    left, top, right, bottom = font.getbbox(words)
    x = max(0.0, min(corners[0], half.width - right - 4))
    y = corners[1] - bottom - 3 if corners[1] > bottom + 4 else max(corners[1], 0.0)
    pen.rectangle([x, y, x + right + 4, y + bottom + 3], fill=WRONG if mistake else ink)
    pen.text((x + 2, y + 1), words, font=font, fill='white' if mistake else ink_on(colour))


@cache
def _font() -> Any:
    """The font of our other pictures, which has more letters than Pillow's own."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'), 12)


def _caption(results: Detections, matches: Matches, case: Case) -> str:
    there, said = case.rows
    classes, truth, found = results.classes, results.truth, results.found
    if case.kind == 'missed':
        width, height = truth.box[there, 2:] - truth.box[there, :2]
        return f'{classes[case.label]}, {width:.0f} x {height:.0f} px'
    score = f'{classes[case.label]} {found.score[said]:.2f}'
    if case.kind != 'false':
        return f'{score}, IoU {matches.overlap[said]:.2f}'
    if there >= 0:
        return f'{score}, is {classes[int(truth.label[there])]}'
    return f'{score}, of no object, or not near enough'


def _map_picture(results: LabelMaps, case: Case, image: np.ndarray) -> tuple[Image, str]:
    from PIL import Image as images

    truth, said = map(read_png, results.maps[case.picture])
    outside = ignored(len(results.classes))
    small = np.asarray(images.fromarray(np.ascontiguousarray(image)).resize(truth.shape[::-1]))
    # Where the truth does not count, what was said is left out too.
    said = np.where(truth == outside, outside, said)
    grey = small.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5 + 90
    grey[truth == outside] = 255
    grey[(truth != said) & ((truth == case.label) | (said == case.label))] = (232, 0, 43)
    panels = [
        tint_labels(small, truth, results.classes, outside),
        tint_labels(small, said, results.classes, outside),
        grey.clip(0, 255).astype(np.uint8),
    ]
    height = max(round(MAP * truth.shape[0] / truth.shape[1]), 1)
    sheet = images.new('RGB', (3 * MAP + 8, height), 'white')
    for place, panel in enumerate(panels):
        sheet.paste(images.fromarray(panel).resize((MAP, height)), (place * (MAP + 4), 0))
    right, lost, made_up = results.counts[case.picture, case.label].tolist()
    iou = right / max(right + lost + made_up, 1)
    return sheet, (
        f'{results.classes[case.label]}: IoU {iou:.2f}, {lost} px missed, {made_up} px false'
    )
