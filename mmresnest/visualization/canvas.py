"""What all pictures are drawn with: colors, letters, grids, and images and masks as they are read.

Everything takes plain arrays: images H W 3 in RGB, boxes x0 y0 x1 y1 in pixels of the image, labels
as indices into the class names.
"""

from __future__ import annotations

import colorsys
import io
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..utils.boxes import IGNORED, class_name, is_background
from ..utils.files import write_whole
from ..utils.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by all common kinds of color vision; black is for totals.
PALETTE = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7')
WRONG = '#E8002B'

PANEL = 3.1  # inches: width of one picture
SHARP = 2048  # pixels of the longer side of an image in a sheet: six times what its panel has
TALLEST = 1.6  # height of a picture over its width, at most
DPI = 110
MAX_BOXES = 60  # predictions drawn in a picture, by score: more cannot be read


def class_color(label: int) -> tuple[float, float, float]:
    """Return the RGB color, 0..1, of a class: always the same for the same index."""
    from matplotlib.colors import to_rgb

    if label < len(PALETTE):
        return to_rgb(PALETTE[label])
    # Beyond the palette hues a golden section apart, at changing lightness.
    number = label - len(PALETTE)
    return colorsys.hls_to_rgb(0.61803399 * number % 1, (0.45, 0.65, 0.35)[number % 3], 0.75)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches, of no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out: str | os.PathLike) -> Path:
    """Write a figure as PNG, whole or not at all."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as empty boxes; that is no reason to stop.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        figure.savefig(png, format='png', dpi=figure.dpi)
    write_whole(out, lambda file: file.write(png.getbuffer()))
    return Path(out)


def to_rgb_image(image: np.ndarray) -> np.ndarray:
    """Return any image as H W 3, uint8."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8:
        image = image.astype(np.float64)
        low, high = np.nanmin(image), np.nanmax(image)
        image = np.nan_to_num((image - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


def shrink_map(array: np.ndarray, most: int = SHARP) -> np.ndarray:
    """Scale an image or a map H W down to a longer side of ``most``, before it is worked on."""
    import cv2

    longer = max(array.shape[:2])
    if longer <= most:
        return array
    height, width = (max(1, round(side * most / longer)) for side in array.shape[:2])
    if array.dtype == np.uint8 and array.ndim == 3:
        return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)
    # Nearest, by indexing: cv2.resize takes neither bool nor 64 bits.
    rows = np.arange(height) * array.shape[0] // height
    columns = np.arange(width) * array.shape[1] // width
    return array[rows[:, None], columns]


def shrink_objects(
    image: np.ndarray, objects: Mapping[str, np.ndarray], most: int = SHARP
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scale an image down, and its objects with it; see :func:`shrink_map`."""
    small, scaled = shrink_map(image, most), dict(objects)
    if small is not image:
        scale = [small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]] * 2
        scaled['boxes'] = np.asarray(scaled['boxes']) * scale
        if scaled.get('masks') is not None:
            masks = [shrink_map(np.asarray(mask), most) for mask in scaled['masks']]
            scaled['masks'] = np.array(masks, bool).reshape(-1, *small.shape[:2])
    return small, scaled


class Grid:
    """Axes for rows of pictures: ``groups`` pictures side by side, each as ``panels`` panels.

    By default one picture, or two where more than two of up to two panels are there.
    """

    GAP, HEAD, LEGEND_ROW, TOP = 0.06, 0.28, 0.24, 0.34  # inches

    def __init__(
        self,
        images: Sequence[np.ndarray],
        panels: Sequence[str],
        entries: int,
        title: str,
        groups: int = 0,
    ) -> None:
        groups = groups or (1 if len(images) < 3 or len(panels) > 2 else 2)
        self.columns = groups * len(panels)
        rows = [images[start : start + groups] for start in range(0, len(images), groups)]
        heights = [
            max(min(image.shape[0] / image.shape[1], TALLEST) for image in row) * PANEL
            for row in rows
        ]
        width = self.columns * (PANEL + self.GAP) + (groups - 1) * 2 * self.GAP + self.GAP
        self.legend_columns = max(1, int(width / 1.5))
        legend = math.ceil(entries / self.legend_columns) * self.LEGEND_ROW + 0.12
        height = self.TOP + sum(heights) + len(rows) * (self.HEAD + self.GAP) + legend
        self.figure = new_figure(width, height)
        self.figure.text(
            0.5, 1 - 0.12 / height, title, ha='center', va='top', fontsize=11, weight='bold'
        )
        self.axes: list[list[Axes]] = []
        top = height - self.TOP
        for row, tall in zip(rows, heights, strict=True):
            left = self.GAP
            for _ in row:
                group = []
                for _ in panels:
                    axes = self.figure.add_axes(
                        (
                            left / width,
                            (top - self.HEAD - tall) / height,
                            PANEL / width,
                            tall / height,
                        )
                    )
                    axes.set_axis_off()
                    group.append(axes)
                    left += PANEL + self.GAP
                self.axes.append(group)
                left += 2 * self.GAP
            top -= tall + self.HEAD + self.GAP

    def add_legend(self, entries: Sequence[tuple[Any, str]]) -> None:
        """Add a legend at the foot: pairs of an artist and its text."""
        if not entries:
            return
        # The texts are set afterwards: a label that starts with an underscore would be dropped.
        legend = self.figure.legend(
            [artist for artist, _ in entries],
            ['.'] * len(entries),
            loc='lower center',
            frameon=False,
            ncols=min(self.legend_columns, len(entries)),
            fontsize=8,
            borderaxespad=0.1,
            handlelength=1.8,
        )
        for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
            text.set_parse_math(False)
            text.set_text(printable(name))


def draw_sheet(
    out: str | os.PathLike,
    images: Sequence[np.ndarray],
    panels: Sequence[str],
    entries: Sequence[tuple[Any, str]],
    title: str,
    draw: Callable[..., None],
    groups: int = 0,
) -> Path:
    """Draw a sheet of pictures with a legend, and write it.

    Args:
        out: the PNG to write.
        images: H W 3 in RGB.
        panels: what is drawn of each image.
        entries: of the legend.
        title: the line above all.
        draw: is given the number of an image, and the axes of each of its panels.
        groups: images side by side; see :class:`Grid`.

    Returns:
        ``out`` as a path.
    """
    grid = Grid(images, panels, len(entries), title, groups)
    for number, axes in enumerate(grid.axes):
        draw(number, *axes)
    grid.add_legend(entries)
    return save_figure(grid.figure, out)


def color_entry(color: Any, text: str, edge: bool = True) -> tuple[Any, str]:
    """Return the line of a legend that explains a color."""
    from matplotlib.patches import Patch

    edges: dict[str, Any] = dict(edgecolor='black', linewidth=0.6) if edge else {}
    return Patch(facecolor=color, **edges), text


def class_entries(
    labels: Iterable[int], classes: Sequence[str], untinted: bool = True
) -> list[tuple[Any, str]]:
    """Return the lines of a legend for classes; the background may be left untinted."""
    return [
        color_entry('white', f'{class_name(classes, label)} (untinted)')
        if untinted and is_background(classes, label)
        else color_entry(class_color(label), class_name(classes, label))
        for label in labels
    ]


def mistake_entry(text: str) -> tuple[Any, str]:
    """Return the line of a legend that explains a dashed line."""
    from matplotlib.lines import Line2D

    line = Line2D([], [], color='black', linestyle=(0, (3, 2)), linewidth=1.7)
    line.set_path_effects(_seam(WRONG, 4.2))
    return line, text


def _seam(color: str, width: float) -> list[Any]:
    """Return the effect that sets a line off from what lies below it."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width, foreground=color), Normal()]


def write_title(axes: Axes, text: str) -> None:
    """Write above a panel, on its left."""
    axes.set_title(printable(text), fontsize=8, pad=3, loc='left').set_parse_math(False)


def text_color_on(color: Sequence[float]) -> str:
    """Return black or white, whichever is read better on a color."""
    return 'black' if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 0.5 else 'white'


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Show an image pixel by pixel in its own frame."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation='antialiased')
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


class BoxStyle(NamedTuple):
    """How the box of an object is drawn, on whatever canvas."""

    color: tuple[float, float, float]
    seam: str  # around the line
    plate: Any  # the color below its words
    ink: str  # of its words


def box_style(label: int, mistake: bool) -> BoxStyle:
    """Return how an object is drawn: of the color of its class, and a mistake flagged.

    A dark seam keeps a bright line visible on a bright ground, a red one flags a mistake.
    """
    color = class_color(label)
    if mistake:
        return BoxStyle(color, WRONG, WRONG, 'white')
    return BoxStyle(color, 'black', color, text_color_on(color))


def draw_objects(
    axes: Axes,
    image: np.ndarray,
    objects: Mapping[str, np.ndarray],
    good: np.ndarray,
    classes: Sequence[str],
    bad: str,
    with_scores: bool,
) -> None:
    """Draw one panel: good objects in whole lines, others in dashed ones with the word ``bad``."""
    masks, ids = objects.get('masks'), objects.get('ids')
    # Objects that are followed have colors of their own, the others that of their class.
    colors = [int(label) for label in objects['labels']]
    if ids is not None:
        colors = [int(one) - 1 if one > 0 else color for one, color in zip(ids, colors)]
    if masks is not None and len(masks):
        image = image.copy()
        for mask, color in zip(masks, colors, strict=True):
            mask = np.asarray(mask, bool)
            tint = np.array(class_color(color)) * 255
            image[mask] = (0.5 * image[mask] + 0.5 * tint).astype(np.uint8)
    show_image(axes, image)
    # Mistakes lie on top of what is right, and the best score on top of the others.
    drawn = range(min(len(good), MAX_BOXES) if with_scores else len(good))
    for number in sorted(drawn, key=lambda number: (not good[number], -number)):
        label = int(objects['labels'][number])
        words = [] if good[number] else [bad]
        if ids is not None and ids[number] > 0:
            words.append(f'#{ids[number]}')
        words.append(class_name(classes, label))
        if with_scores:
            words.append(f'{objects["scores"][number]:.2f}')
        style = box_style(colors[number], not good[number])
        _draw_box(axes, objects['boxes'][number], style, ' '.join(words), image.shape[:2])


def _draw_box(
    axes: Axes, box: np.ndarray, style: BoxStyle, words: str, size: tuple[int, int]
) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box
    mistake = style.seam == WRONG
    line = Rectangle(
        (x0, y0),
        x1 - x0,
        y1 - y0,
        fill=False,
        edgecolor=style.color,
        linewidth=1.7,
        linestyle=(0, (3, 2)) if mistake else '-',
    )
    line.set_path_effects(_seam(style.seam, 4.2 if mistake else 3.0))
    axes.add_patch(line)
    inside = y0 < 0.06 * size[0]
    write_plate(
        axes, min(max(x0, 0), size[1] - 1), y0, words, style, va='top' if inside else 'bottom'
    )


def write_plate(axes: Axes, x: float, y: float, words: str, style: BoxStyle, **place: Any) -> None:
    """Write words on a plate of color."""
    text = axes.text(
        x,
        y,
        printable(words),
        fontsize=6.5,
        clip_on=True,
        color=style.ink,
        bbox=dict(facecolor=style.plate, edgecolor='none', pad=0.8, alpha=0.9, clip_on=True),
        **place,
    )
    text.set_parse_math(False)


def tint_labels(
    image: np.ndarray, mask: np.ndarray, classes: Sequence[str], ignore: int
) -> np.ndarray:
    """Return the image with its classes laid over it, and a dark line where they meet."""
    tinted = image.astype(np.float64)
    for label in np.unique(mask):
        where = mask == label
        if label == ignore:
            tinted[where] = 255
        elif not is_background(classes, int(label)):
            tinted[where] = 0.4 * tinted[where] + 0.6 * 255 * np.array(class_color(int(label)))
    tinted[region_borders(mask)] *= 0.3
    return tinted.astype(np.uint8)


def region_borders(regions: np.ndarray) -> np.ndarray:
    """Return the pixels of a map H W at which another region begins."""
    border = np.zeros(regions.shape, bool)
    border[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    border[1:] |= regions[1:] != regions[:-1]
    return border


def panoptic_classes(info: Mapping[str, Any], image: np.ndarray) -> np.ndarray:
    """Return class indices H W of a panoptic truth: the colors of its file number the segments."""
    labels = np.full(image.shape[:2], IGNORED, np.int64)
    if info.get('seg_map_path'):
        numbers = read_image(info['seg_map_path']).astype(np.int64) @ (1, 256, 256**2)
        for segment in info.get('segments_info', ()):
            labels[numbers == segment['id']] = segment['category']
    return labels


def read_image(path: str) -> np.ndarray:
    """Read an image as the pipelines of mm* do, from a file or a remote store, as RGB."""
    import cv2
    from mmengine import fileio

    image = cv2.imdecode(np.frombuffer(fileio.get(path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(
            f'pictures: {path} is not an image that OpenCV can read; put a whole one in its place',
            code='image.unreadable',
        )
    return image[:, :, ::-1]
