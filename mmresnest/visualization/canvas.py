"""What all pictures are drawn with: colours, letters, grids, and images and masks as they are read.

Everything takes plain arrays: images H W 3 in RGB, boxes x0 y0 x1 y1 in pixels of the image, labels
as indices into the class names.
"""

from __future__ import annotations

import colorsys
import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..utils.boxes import IGNORED, class_name, is_ground

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by all common kinds of colour vision; black is for totals.
PALETTE = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7')
WRONG = '#E8002B'

PANEL = 3.1  # inches: width of one picture
TALLEST = 1.6  # height of a picture over its width, at most
DPI = 110
MAX_BOXES = 60  # predictions drawn in a picture, by score: more cannot be read


def class_colour(label: int) -> tuple[float, float, float]:
    """The RGB colour, 0..1, of a class: always the same for the same index."""
    from matplotlib.colors import to_rgb

    if label < len(PALETTE):
        return to_rgb(PALETTE[label])
    # Beyond the palette hues a golden section apart, at changing lightness.
    number = label - len(PALETTE)
    return colorsys.hls_to_rgb(0.61803399 * number % 1, (0.45, 0.65, 0.35)[number % 3], 0.75)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, of no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out: str | os.PathLike) -> Path:
    """Writes a figure as PNG and moves it into place."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{out.name}.', suffix='.png', dir=out.parent)
    os.close(handle)
    try:
        with warnings.catch_warnings():
            # A script that the font lacks is drawn as empty boxes; that is no reason to stop.
            warnings.filterwarnings('ignore', message='Glyph .* missing from')
            figure.savefig(name, format='png', dpi=figure.dpi)
        os.chmod(name, 0o644)
        os.replace(name, out)
    finally:
        if os.path.exists(name):
            os.unlink(name)
    return out


def as_picture(image: np.ndarray) -> np.ndarray:
    """Any image as H W 3, uint8."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8:
        image = image.astype(np.float64)
        low, high = np.nanmin(image), np.nanmax(image)
        image = np.nan_to_num((image - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


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

    def legend(self, entries: Sequence[tuple[Any, str]]) -> None:
        """Adds a legend at the foot: pairs of an artist and its text."""
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
            text.set_text(name)


def write_head(axes: Axes, text: str) -> None:
    """Writes above a panel, on its left."""
    axes.set_title(text, fontsize=8, pad=3, loc='left').set_parse_math(False)


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever is read better on a colour."""
    return 'black' if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.5 else 'white'


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Shows an image pixel by pixel in its own frame."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation='antialiased')
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def draw_objects(
    axes: Axes,
    image: np.ndarray,
    objects: Mapping[str, np.ndarray],
    good: np.ndarray,
    classes: Sequence[str],
    bad: str,
    with_scores: bool,
) -> None:
    """One panel: good objects in whole lines, the others in dashed ones with the word ``bad``."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    masks = objects.get('masks')
    if masks is not None and len(masks):
        image = image.copy()
        for mask, label in zip(masks, objects['labels'], strict=True):
            mask = np.asarray(mask, bool)
            tint = np.array(class_colour(int(label))) * 255
            image[mask] = (0.5 * image[mask] + 0.5 * tint).astype(np.uint8)
    show_image(axes, image)
    # Mistakes lie on top of what is right, and the best score on top of the others.
    drawn = range(min(len(good), MAX_BOXES) if with_scores else len(good))
    for number in sorted(drawn, key=lambda number: (not good[number], -number)):
        x0, y0, x1, y1 = objects['boxes'][number]
        label = int(objects['labels'][number])
        colour = class_colour(label)
        box = Rectangle(
            (x0, y0),
            x1 - x0,
            y1 - y0,
            fill=False,
            edgecolor=colour,
            linewidth=1.7,
            linestyle='-' if good[number] else (0, (3, 2)),
        )
        # A dark seam keeps a bright line visible on a bright ground, a red one flags a mistake.
        seam = 'black' if good[number] else WRONG
        box.set_path_effects(
            [Stroke(linewidth=3.0 if good[number] else 4.2, foreground=seam), Normal()]
        )
        axes.add_patch(box)
        words = [class_name(classes, label)]
        if with_scores:
            words.append(f'{objects["scores"][number]:.2f}')
        if not good[number]:
            words.insert(0, bad)
        inside = y0 < 0.06 * image.shape[0]
        text = axes.text(
            min(max(x0, 0), image.shape[1] - 1),
            y0,
            ' '.join(words),
            fontsize=6.5,
            clip_on=True,
            va='top' if inside else 'bottom',
            color=ink_on(colour) if good[number] else 'white',
            bbox={
                'facecolor': colour if good[number] else WRONG,
                'edgecolor': 'none',
                'pad': 0.8,
                'alpha': 0.9,
                'clip_on': True,
            },
        )
        text.set_parse_math(False)


def draw_seam() -> list[Any]:
    """The effect that sets a line off from what lies below it."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=4.2, foreground=WRONG), Normal()]


def tint_labels(
    image: np.ndarray, mask: np.ndarray, classes: Sequence[str], ignore: int
) -> np.ndarray:
    """The image with its classes laid over it, and a dark line where they meet."""
    tinted = image.astype(np.float64)
    for label in np.unique(mask):
        where = mask == label
        if label == ignore:
            tinted[where] = 255
        elif not is_ground(classes, int(label)):
            tinted[where] = 0.4 * tinted[where] + 0.6 * 255 * np.array(class_colour(int(label)))
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    tinted[border] *= 0.3
    return tinted.astype(np.uint8)


def annotated_segments(info: Mapping[str, Any], image: np.ndarray) -> np.ndarray:
    """Class indices H W of a panoptic truth: the colours of its file number the segments."""
    labels = np.full(image.shape[:2], IGNORED, np.int64)
    if info.get('seg_map_path'):
        numbers = read_image(info['seg_map_path']).astype(np.int64) @ (1, 256, 256**2)
        for segment in info.get('segments_info', ()):
            labels[numbers == segment['id']] = segment['category']
    return labels


def read_image(path: str) -> np.ndarray:
    """Reads an image as the pipelines of mm* do, from a file or a remote store, as RGB."""
    import cv2
    from mmengine import fileio

    image = cv2.imdecode(np.frombuffer(fileio.get(path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(
            f'pictures: {path} is not an image that OpenCV can read; put a whole one in its place'
        )
    return image[:, :, ::-1]
