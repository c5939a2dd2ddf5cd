"""Pictures of single cases, with the ground truth beside: JPEGs of at most ``BYTES``."""

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
from ..evaluation.matching import Matches
from ..evaluation.predictions import Detections, LabelMaps, Objects, decode_label_map, ignore_label
from ..utils.boxes import class_name
from ..utils.masks import decode_mask
from ..utils.text import printable
from ..visualization.canvas import BoxStyle, box_style, class_color, read_image, tint_labels
from .cases import Case

if TYPE_CHECKING:
    from PIL.Image import Image

BYTES = 16_000  # of a picture as JPEG, at most
PANEL = 232  # px: a side of each half of an object's picture
MAP = 200  # px: the width of each third of a label map's
CONTEXT = 2.2  # sides of an object that its picture shows


@dataclass(frozen=True)
class GalleryItem:
    """A case as it stands on the page."""

    kind: str
    label: int
    path: str
    caption: str
    jpeg: bytes
    size: tuple[int, int]


def draw_object_cases(
    results: Detections, matches: Matches, cases: Iterable[Case]
) -> tuple[list[GalleryItem], int]:
    """Draw cases of a detector.

    Returns:
        the pictures in the order of the cases, and how many could not be read.
    """
    split_by_image = list(results.truth.split_by_image(len(results.pictures)))
    found_by_picture = list(results.found.split_by_image(len(results.pictures)))

    def draw_case(case: Case, image: np.ndarray) -> tuple[Image, str]:
        rows = split_by_image[case.picture], found_by_picture[case.picture]
        return _object_picture(results, matches, case, image, rows)

    return _draw_items(results, cases, draw_case)


def draw_map_cases(results: LabelMaps, cases: Iterable[Case]) -> tuple[list[GalleryItem], int]:
    """Return the same of a segmentor."""

    def draw_case(case: Case, image: np.ndarray) -> tuple[Image, str]:
        return _map_picture(results, case, image)

    return _draw_items(results, cases, draw_case)


def _draw_items(
    results: Detections | LabelMaps, cases: Iterable[Case], draw: Any
) -> tuple[list[GalleryItem], int]:
    """Read each picture once, whatever the number of its cases."""
    cases = list(cases)
    shown: dict[int, GalleryItem] = {}
    lost = 0
    for image, numbers in _read_images(results, cases):
        for number in numbers:
            if image is None:
                lost += 1
                continue
            picture, caption = draw(cases[number], image)
            case = cases[number]
            shown[number] = GalleryItem(
                case.kind,
                case.label,
                results.pictures[case.picture].path,
                caption,
                _encode_jpeg(picture),
                picture.size,
            )
    return [shown[number] for number in sorted(shown)], lost


def _read_images(
    results: Detections | LabelMaps, cases: Sequence[Case]
) -> Iterator[tuple[np.ndarray | None, list[int]]]:
    """Return each image that is needed, None where it is not to be had, and its cases."""
    wanted: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        wanted.setdefault(case.picture, []).append(number)
    for picture, numbers in wanted.items():
        try:
            yield read_image(results.pictures[picture].path), numbers
        except (OSError, UserError) as error:
            logging.getLogger(__name__).info('left out of the pictures: %s', error)
            yield None, numbers


def _encode_jpeg(picture: Image) -> bytes:
    """Encode as JPEG of the best quality that stays below ``BYTES``; noise is made smaller."""
    while True:
        for quality in (82, 70, 55, 40, 25):
            out = io.BytesIO()
            picture.save(out, 'JPEG', quality=quality, optimize=True)
            if out.tell() <= BYTES:
                return out.getvalue()
        picture = picture.resize((-(-picture.width // 2), -(-picture.height // 2)))


def _crop_window(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a square of the picture around a box, as far as there is one: x0 y0 x1 y1."""
    side = min(max(CONTEXT * float(max(box[2:] - box[:2])), 64.0), float(max(width, height)))
    middle = (box[:2] + box[2:]) / 2
    start = []
    for center, length in zip(middle, (width, height)):
        start.append(max(0, min(round(float(center) - side / 2), round(length - side))))
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
    """Draw the objects and the detections around a case, each on its half."""
    from PIL import Image as images

    window = _crop_window(_case_box(results, case), image.shape[1], image.shape[0])
    sheet = images.new('RGB', (2 * PANEL + 4, PANEL), '#dddddd')
    halves = (
        Half('truth', results.truth, rows[0], case.rows[0]),
        Half('found', results.found, rows[1][matches.shown[rows[1]]], case.rows[1]),
    )
    for place, half in enumerate(halves):
        picture = _draw_half(results, case, half, image, window)
        sheet.paste(picture, (place * (PANEL + 4), 0))
    return sheet, _format_caption(results, matches, case)


class Half(NamedTuple):
    """What one half of a picture shows: the rows of some objects, of which one is the case."""

    side: str
    objects: Objects
    rows: np.ndarray
    focus: int  # -1 for none


def _case_box(results: Detections, case: Case) -> np.ndarray:
    """Return the box around the object and the detection of a case."""
    boxes = [
        objects.box[row]
        for objects, row in zip((results.truth, results.found), case.rows)
        if row >= 0
    ]
    return np.concatenate([np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]])


def _draw_half(
    results: Detections,
    case: Case,
    half: Half,
    image: np.ndarray,
    window: tuple[int, int, int, int],
) -> Image:
    from PIL import Image as images

    x0, y0, x1, y1 = window
    scale = PANEL / max(x1 - x0, y1 - y0, 1)
    picture = images.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    width, height = (max(round(side * scale), 1) for side in picture.size)
    picture = picture.resize((width, height))
    objects, focus = half.objects, half.focus
    if focus >= 0 and results.found.masks is not None and objects.masks is not None:
        inside = decode_mask(objects.masks[focus], *image.shape[:2])[y0:y1, x0:x1]
        picture = _outline_mask(picture, inside, class_color(int(objects.label[focus])))
    for row in [*half.rows[half.rows != focus], *([focus] if focus >= 0 else [])]:
        words = _box_text(results, case, half) if row == focus else None
        mistake = words is not None and words.startswith(('missed ', 'false '))
        box = (objects.box[row] - (x0, y0, x0, y0)) * scale
        _draw_box(picture, box, box_style(int(objects.label[row]), mistake), words)
    return picture


def _outline_mask(half: Image, inside: np.ndarray, color: tuple[float, float, float]) -> Image:
    """Draw the border of a mask: laid over an object, color would change what it looks like."""
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
    pixels[border] = [round(255 * part) for part in color]
    return images.fromarray(pixels)


def _box_text(results: Detections, case: Case, half: Half) -> str:
    name = printable(class_name(results.classes, int(half.objects.label[half.focus])))
    if half.side == 'truth':
        return f'missed {name}' if case.kind == 'missed' else name
    false = 'false ' if case.kind == 'false' else ''
    return f'{false}{name} {half.objects.score[half.focus]:.2f}'


def _draw_box(half: Image, box: np.ndarray, style: BoxStyle, words: str | None) -> None:
    """Draw a box; the one that the case is about is thicker, and has its words."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(half)
    corners = [float(value) for value in box]
    dark = [corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1]
    wide = 3 if words else 2
    pen.rectangle(dark, outline=style.seam, width=wide + 2)
    pen.rectangle(corners, outline=_to_bytes(style.color), width=wide)
    if words is None:
        return
    font = _load_font()
    left, top, right, bottom = font.getbbox(words)
    x = max(0.0, min(corners[0], half.width - right - 4))
    y = corners[1] - bottom - 3 if corners[1] > bottom + 4 else max(corners[1], 0.0)
    plate = style.plate if isinstance(style.plate, str) else _to_bytes(style.plate)
    pen.rectangle([x, y, x + right + 4, y + bottom + 3], fill=plate)
    pen.text((x + 2, y + 1), words, font=font, fill=style.ink)


def _to_bytes(color: tuple[float, float, float]) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in color)


@cache
def _load_font() -> Any:
    """Return the font of our other pictures, which has more letters than Pillow's own."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'), 12)


def _format_caption(results: Detections, matches: Matches, case: Case) -> str:
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

    truth, said = map(decode_label_map, results.maps[case.picture])
    outside = ignore_label(len(results.classes))
    small = np.asarray(images.fromarray(np.ascontiguousarray(image)).resize(truth.shape[::-1]))
    # Where the truth does not count, what was said is left out too.
    said = np.where(truth == outside, outside, said)
    gray = small.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5 + 90
    gray[truth == outside] = 255
    gray[(truth != said) & ((truth == case.label) | (said == case.label))] = (232, 0, 43)
    panels = [
        tint_labels(small, truth, results.classes, outside),
        tint_labels(small, said, results.classes, outside),
        gray.clip(0, 255).astype(np.uint8),
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
