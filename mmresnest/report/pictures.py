"""Pictures of a run: predictions beside the truth, and curves of losses and scores.

The drawing functions take plain arrays (images H W 3 in RGB, boxes x0 y0 x1 y1 in pixels of the
image, labels as indices into the class names) and know nothing of mmengine. ``write_pictures``
feeds them from a trained model and its test data. Every figure is an object of its own: no pyplot,
no display, no global state. A picture is written under another name first and moved into place, so
it is never seen half-written.

Colours never carry a meaning alone: what was missed and what is false is also told by the line and
a word.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmresnest.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by all common kinds of colour vision; black is for totals.
PALETTE = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7')
WRONG = '#E8002B'
IGNORED = 255

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


# ------------------------------------------------------------------------------- matching


class Match(NamedTuple):
    """Which objects were found, and which predictions are right; by position in the lists given."""

    found: np.ndarray  # of the truth, bool
    right: np.ndarray  # of the predictions, bool


def box_ious(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of one list with every box of another: N M."""
    corner = np.maximum(one[:, None, :2], two[None, :, :2])
    sides = np.clip(np.minimum(one[:, None, 2:], two[None, :, 2:]) - corner, 0, None)
    common = sides[..., 0] * sides[..., 1]
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (one, two)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def match(truth: Mapping[str, Any], prediction: Mapping[str, Any], iou: float = 0.5) -> Match:
    """Pairs predictions with objects as COCO does: best score first, each object at most once.

    Args:
        truth: ``boxes`` N 4 and ``labels`` N.
        prediction: ``boxes`` M 4, ``labels`` M and ``scores`` M.
        iou: the overlap from which a prediction of the right class counts.
    """
    boxes, labels, _ = _objects(truth)
    predicted, predicted_labels, scores = _objects(prediction)
    overlaps = box_ious(predicted, boxes)
    found, right = np.zeros(len(boxes), bool), np.zeros(len(predicted), bool)
    for number in np.argsort(-scores, kind='stable'):
        free = (labels == predicted_labels[number]) & ~found & (overlaps[number] >= iou)
        if free.any():
            found[np.argmax(np.where(free, overlaps[number], -1))] = True
            right[number] = True
    return Match(found, right)


def _objects(objects: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = np.asarray(objects['boxes'], np.float64).reshape(-1, 4)
    labels = np.asarray(objects['labels'], np.int64).reshape(-1)
    scores = objects.get('scores')
    scores = np.ones(len(boxes)) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    if not len(boxes) == len(labels) == len(scores):
        raise ValueError(f'{len(boxes)} boxes, {len(labels)} labels and {len(scores)} scores')
    return boxes, labels, scores


def _keep(objects: Mapping[str, Any], score: float) -> dict[str, np.ndarray]:
    """The objects from a score up, best first."""
    boxes, labels, scores = _objects(objects)
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= score]
    kept = {'boxes': boxes[order], 'labels': labels[order], 'scores': scores[order]}
    if objects.get('masks') is not None:
        kept['masks'] = np.asarray(objects['masks'])[order]
    return kept


# ------------------------------------------------------------------------------- figures


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, out: str | os.PathLike) -> Path:
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


def _picture(image: np.ndarray) -> np.ndarray:
    """Any image as H W 3, uint8."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8:
        image = image.astype(np.float64)
        low, high = np.nanmin(image), np.nanmax(image)
        image = np.nan_to_num((image - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


class _Grid:
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
        self.figure = _figure(width, height)
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


def _head(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=8, pad=3, loc='left').set_parse_math(False)


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever is read better on a colour."""
    return 'black' if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.5 else 'white'


def _name(classes: Sequence[str], label: int) -> str:
    return str(classes[label]) if 0 <= label < len(classes) else f'class {label}'


def _show(axes: Axes, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation='antialiased')
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def _draw_objects(
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
    _show(axes, image)
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
        words = [_name(classes, label)]
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
            color=_ink(colour) if good[number] else 'white',
            bbox={
                'facecolor': colour if good[number] else WRONG,
                'edgecolor': 'none',
                'pad': 0.8,
                'alpha': 0.9,
                'clip_on': True,
            },
        )
        text.set_parse_math(False)


def predictions_beside_truth(
    out: str | os.PathLike,
    images: Sequence[np.ndarray],
    truths: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    score: float = 0.3,
    iou: float = 0.5,
    title: str = 'Predictions beside ground truth',
) -> Path:
    """Draws objects: at the left of each pair what is there, at the right what the model says.

    Args:
        out: the PNG to write.
        images: H W 3 in RGB, or H W.
        truths: for every image ``boxes`` N 4, ``labels`` N and, if there are any, ``masks`` N H W.
        predictions: the same with ``scores`` N.
        classes: names, in the order of the labels.
        score: predictions below it are left out.
        iou: the overlap from which a prediction of the right class counts as right.
        title: the line above all pictures.

    Returns:
        ``out`` as a path.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    images = [_picture(image) for image in images]
    _same_length(images, truths, predictions)
    truths = [_keep(truth, -math.inf) for truth in truths]
    predictions = [_keep(prediction, score) for prediction in predictions]
    used = sorted(
        {int(label) for objects in (*truths, *predictions) for label in objects['labels']}
    )
    grid = _Grid(images, ('truth', 'predictions'), len(used) + 1, title)
    for image, truth, prediction, (left, right) in zip(
        images, truths, predictions, grid.axes, strict=True
    ):
        pairs = match(truth, prediction, iou)
        missed, false = int((~pairs.found).sum()), int((~pairs.right).sum())
        _draw_objects(left, image, truth, pairs.found, classes, 'missed', False)
        _draw_objects(right, image, prediction, pairs.right, classes, 'false', True)
        told = f'predictions \u2265 {score:g}: {len(pairs.right)}'
        if false:
            told += f', {false} false'
        if len(pairs.right) > MAX_BOXES:
            told += f' (best {MAX_BOXES} drawn)'
        _head(left, f'ground truth: {len(pairs.found)}' + (f', {missed} missed' if missed else ''))
        _head(right, told)
    entries: list[tuple[Any, str]] = [
        (
            Patch(facecolor=class_colour(label), edgecolor='black', linewidth=0.6),
            _name(classes, label),
        )
        for label in used
    ]
    mistake = Line2D([], [], color='black', linestyle=(0, (3, 2)), linewidth=1.7)
    mistake.set_path_effects(_seam())
    grid.legend([*entries, (mistake, 'missed (left) or false (right)')])
    return _save(grid.figure, out)


def _seam() -> list[Any]:
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=4.2, foreground=WRONG), Normal()]


def _same_length(*lists: Sequence[Any]) -> None:
    if len({len(each) for each in lists}) != 1:
        raise ValueError(
            f'images, truths and predictions differ in number: {[len(each) for each in lists]}'
        )
    if not lists[0]:
        raise ValueError('no picture to draw')


def segmentation_beside_truth(
    out: str | os.PathLike,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    classes: Sequence[str],
    *,
    ignore: int = IGNORED,
    title: str = 'Predictions beside ground truth',
) -> Path:
    """Draws semantic masks: what is there, what the model says, and the pixels where they differ.

    Args:
        out: the PNG to write.
        images: H W 3 in RGB, or H W.
        truths: for every image class indices H W.
        predictions: the same.
        classes: names, in the order of the indices; one named ``background`` is left untinted.
        ignore: the index in the truth that does not count.
        title: the line above all pictures.

    Returns:
        ``out`` as a path.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    images = [_picture(image) for image in images]
    truths = [np.asarray(truth).squeeze() for truth in truths]
    predictions = [np.asarray(prediction).squeeze() for prediction in predictions]
    _same_length(images, truths, predictions)
    for image, truth, prediction in zip(images, truths, predictions, strict=True):
        if not image.shape[:2] == truth.shape == prediction.shape:
            raise ValueError(
                f'image {image.shape[:2]}, truth {truth.shape} and '
                f'prediction {prediction.shape} differ in size'
            )
    used = sorted(
        {int(label) for mask in (*truths, *predictions) for label in np.unique(mask)} - {ignore}
    )
    grid = _Grid(images, ('truth', 'prediction', 'difference'), len(used) + 2, title)
    for image, truth, prediction, (left, middle, right) in zip(
        images, truths, predictions, grid.axes, strict=True
    ):
        counted = truth != ignore
        wrong = counted & (truth != prediction)
        _show(left, _tinted(image, truth, classes, ignore))
        _show(middle, _tinted(image, prediction, classes, ignore))
        grey = image.mean(2, keepdims=True).repeat(3, 2) * 0.5 + 90
        grey[~counted] = 255
        grey[wrong] = np.array(to_rgb(WRONG)) * 255
        _show(right, grey.clip(0, 255).astype(np.uint8))
        _head(left, 'ground truth')
        _head(
            middle, f'prediction: mIoU of this picture {_mean_iou(truth, prediction, counted):.2f}'
        )
        _head(right, f'wrong pixels: {wrong.sum() / max(counted.sum(), 1):.1%}')
    grid.legend(
        [
            (
                Patch(
                    facecolor='white' if _is_ground(classes, label) else class_colour(label),
                    edgecolor='black',
                    linewidth=0.6,
                ),
                _name(classes, label) + (' (untinted)' if _is_ground(classes, label) else ''),
            )
            for label in used
        ]
        + [
            (Patch(facecolor=WRONG), 'wrong'),
            (Patch(facecolor='white', edgecolor='black', linewidth=0.6), 'not counted'),
        ]
    )
    return _save(grid.figure, out)


def _is_ground(classes: Sequence[str], label: int) -> bool:
    return _name(classes, label).lower() == 'background'


def _tinted(image: np.ndarray, mask: np.ndarray, classes: Sequence[str], ignore: int) -> np.ndarray:
    """The image with its classes laid over it, and a dark line where they meet."""
    tinted = image.astype(np.float64)
    for label in np.unique(mask):
        where = mask == label
        if label == ignore:
            tinted[where] = 255
        elif not _is_ground(classes, int(label)):
            tinted[where] = 0.4 * tinted[where] + 0.6 * 255 * np.array(class_colour(int(label)))
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    tinted[border] *= 0.3
    return tinted.astype(np.uint8)


def _mean_iou(truth: np.ndarray, prediction: np.ndarray, counted: np.ndarray) -> float:
    """Mean over the classes that the picture or its prediction holds."""
    truth, prediction = truth[counted], prediction[counted]
    ious = []
    for label in np.union1d(truth, prediction):
        there, said = truth == label, prediction == label
        ious.append((there & said).sum() / (there | said).sum())
    return float(np.mean(ious)) if ious else float('nan')


# ------------------------------------------------------------------------------- curves


class Scalars(NamedTuple):
    """What a run has logged: name -> (iterations, values)."""

    losses: dict[str, tuple[list[float], list[float]]]
    scores: dict[str, tuple[list[float], list[float]]]


# Bookkeeping in mmengine's lines that is neither a loss nor a score.
_NO_SCORE = {
    'step',
    'iter',
    'epoch',
    'time',
    'data_time',
    'memory',
    'lr',
    'base_lr',
    'momentum',
    'grad_norm',
}


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """The records of a file with one JSON object a line; a line cut short by a crash is skipped."""
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError:
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _log_files(source: Path) -> list[Path]:
    """The logs of a work folder, oldest run first: its runs are folders named by their time."""
    if source.is_file():
        return [source]
    files = []
    for folder in (source, *sorted(each for each in source.glob('*') if each.is_dir())):
        inner = folder / 'vis_data' if (folder / 'vis_data').is_dir() else folder
        if (inner / 'scalars.json').is_file():
            files.append(inner / 'scalars.json')
        elif inner.name == 'vis_data':
            files.extend(sorted(inner.glob('*.json'))[:1])
    # A vis_data folder named itself also turns up as a subfolder of its run.
    return list(dict.fromkeys(files))


def read_scalars(source: str | os.PathLike) -> Scalars:
    """Reads losses and scores from what mmengine logs.

    Args:
        source: a work folder, the folder of one run, or a ``scalars.json``. Where a work folder
            holds several runs, a run that goes on from an earlier one is joined to it, and one that
            starts over replaces it.

    Returns:
        Curves over iterations; empty where nothing was logged.
    """
    runs = []
    for path in _log_files(Path(source)):
        run: list[tuple[float, str, float]] = []
        iteration = 0.0
        for record in _lines(path):
            numbers = _numbers(record)
            step = numbers.get('step', numbers.get('iter', iteration))
            losses = {key: value for key, value in numbers.items() if 'loss' in key.rsplit('/')[-1]}
            if losses:
                iteration = max(iteration, numbers.get('iter', step))
                run += [(iteration, key, value) for key, value in losses.items()]
                continue
            if 'lr' in numbers:
                iteration = max(iteration, numbers.get('iter', step))
                continue
            # The step of a score is the iteration or, where a run counts epochs, the epoch: then it
            # is smaller than the iteration before it.
            run += [
                (max(step, iteration), key, value)
                for key, value in numbers.items()
                if key.rsplit('/')[-1] not in _NO_SCORE
            ]
        if run:
            runs.append(run)
    if any('loss' in key for run in runs for _, key, _ in run):
        # A run without losses has only scored a checkpoint; its iterations mean nothing.
        runs = [run for run in runs if any('loss' in key for _, key, _ in run)]
    joined: list[tuple[float, str, float]] = []
    for run in runs:
        first = min(iteration for iteration, _, _ in run)
        joined = [point for point in joined if point[0] < first] + run
    curves_of: tuple[dict, dict] = ({}, {})
    for iteration, key, value in joined:
        # COCO gives -1 to a size range without objects.
        if math.isfinite(value) and ('loss' in key or value >= 0):
            line = curves_of['loss' not in key].setdefault(key, ([], []))
            line[0].append(iteration)
            line[1].append(value)
    return Scalars(*curves_of)


def curves(source: str | os.PathLike, out: str | os.PathLike, *, title: str = '') -> Path:
    """Plots the losses and the scores of a run over its iterations.

    Args:
        source: see ``read_scalars``.
        out: the PNG to write.
        title: the line above the plots.

    Returns:
        ``out`` as a path.

    Raises:
        UserError: nothing was logged there.
    """
    losses, scores = read_scalars(source)
    if not losses and not scores:
        raise UserError(
            f'curves: found no logged loss or score in {source}. '
            'Give the work folder of a run, or a scalars.json'
        )
    groups: dict[str, dict] = {}
    for key, line in scores.items():
        groups.setdefault(key.rpartition('/')[0], {})[key] = line
    panels = ([('losses', losses)] if losses else []) + list(groups.items())
    figure = _figure(6.4 * len(panels), 4.6)
    if title:
        figure.suptitle(title, fontsize=12).set_parse_math(False)
    for number, (name, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        if lines is losses:
            _plot_losses(axes, losses)
        else:
            _plot_scores(axes, name, lines)
        axes.set_xlabel('iteration')
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.set_xlim(left=0)
    figure.tight_layout()
    return _save(figure, out)


_STYLES = ('-', '--', '-.', ':')


def _line_look(number: int) -> dict[str, Any]:
    # Yellow is too pale for a thin line on white.
    inks = [ink for ink in PALETTE if ink != '#F0E442']
    return {
        'color': inks[number % len(inks)],
        'linestyle': _STYLES[number // len(inks) % len(_STYLES)],
    }


def _mark(points: Sequence[float]) -> str | None:
    return 'o' if len(points) < 25 else None


def _plot_losses(axes: Axes, losses: Mapping[str, tuple[list[float], list[float]]]) -> None:
    total = losses.get('loss')
    terms = [(key, line) for key, line in losses.items() if key != 'loss']
    for number, (key, (x, y)) in enumerate(terms[:18]):
        axes.plot(
            x, y, label=key, linewidth=1.3, marker=_mark(x), markersize=2.5, **_line_look(number)
        )
    if total:
        axes.plot(
            *total,
            label='loss (total)',
            color='black',
            linewidth=2.2,
            marker=_mark(total[0]),
            markersize=3.5,
        )
    # The first steps of a network from random weights would flatten all that follows.
    heights = total[1] if total else np.concatenate([line[1] for line in losses.values()])
    axes.set_ylim(0, max(float(np.quantile(heights, 0.98)) * 1.1, 1e-6))
    axes.set_title(
        'training loss' if total is None else f'training loss: {total[1][-1]:.3g} at the end'
    )
    axes.set_ylabel('loss')
    axes.legend(fontsize=8, framealpha=0.8)


# The score that a run is judged by, first found first.
_MAIN_SCORES = ('bbox_mAP', 'mIoU', 'PQ', 'segm_mAP', 'mAP', 'AP50')


def _plot_scores(
    axes: Axes, name: str, lines: Mapping[str, tuple[list[float], list[float]]]
) -> None:
    short = {key: key.rsplit('/')[-1] for key in lines}
    main = next(
        (key for score in _MAIN_SCORES for key in lines if short[key] == score), next(iter(lines))
    )
    order = [main] + [key for key in lines if key != main]
    for number, key in enumerate(order[:8]):
        x, y = lines[key]
        look = (
            {'color': 'black', 'linewidth': 2.2}
            if key == main
            else {'linewidth': 1.3, **_line_look(number - 1)}
        )
        axes.plot(x, y, label=short[key], marker=_mark(x), markersize=3.5, **look)
    x, y = lines[main]
    best = int(np.argmax(y))
    axes.set_title(f'{short[main]}: best {y[best]:.3g} at iteration {x[best]:g}')
    axes.set_ylim(0, 1 if max(max(line[1]) for line in lines.values()) <= 1 else 100)
    axes.set_ylabel(f'score on validation data{f" ({name})" if name else ""}')
    axes.legend(fontsize=8, framealpha=0.8)


# ------------------------------------------------------------------------------- a run


def write_pictures(
    run: Any,
    model: Any,
    dataset: Any,
    out_dir: str | os.PathLike,
    count: int = 8,
    *,
    score: float = 0.3,
) -> list[Path]:
    """Draws what a trained model says about some pictures of a data set, and how it learned.

    Args:
        run: mmengine's runner, or a config with ``work_dir``: where the log of the training lies.
        model: a detector of mmdet or a segmentor of mmseg, its weights loaded.
        dataset: the test data set, with the test pipeline of the config.
        out_dir: where ``predictions.png`` and ``curves.png`` go.
        count: how many pictures, taken at equal steps from the whole data set; 0 for none.
        score: predictions below it are left out.

    Returns:
        The files written: without a log there are no curves.
    """
    out_dir = Path(out_dir)
    written = []
    indices = _spread(len(dataset), count)
    if indices:
        written.append(
            _draw_predictions(model, dataset, indices, out_dir / 'predictions.png', score)
        )
    work_dir = getattr(run, 'work_dir', None)
    if work_dir and any(read_scalars(work_dir)):
        written.append(curves(work_dir, out_dir / 'curves.png', title=Path(work_dir).name))
    return written


def _spread(length: int, count: int) -> list[int]:
    """``count`` positions at equal steps over a list, the first one included."""
    count = min(length, count)
    return [number * length // count for number in range(count)]


def _draw_predictions(
    model: Any, dataset: Any, indices: Sequence[int], out: Path, score: float
) -> Path:
    import torch
    from mmengine.dataset import pseudo_collate
    from mmengine.model import is_model_wrapper

    model = model.module if is_model_wrapper(model) else model
    classes = list(dataset.metainfo.get('classes') or ())
    images: list[np.ndarray] = []
    truths: list[Any] = []
    predictions: list[Any] = []
    was_training = model.training
    model.eval()
    try:
        for index in indices:
            with torch.no_grad():
                result = model.test_step(pseudo_collate([dataset[index]]))[0]
            info = dataset.get_data_info(index)
            image = _read_image(info['img_path'])
            images.append(image)
            if 'pred_sem_seg' in result:
                semantic = True
                predictions.append(_labels_of(result.pred_sem_seg, image))
                truth = _labels_of(result.gt_sem_seg, image) if 'gt_sem_seg' in result else None
                truths.append(np.full(image.shape[:2], IGNORED) if truth is None else truth)
            elif 'pred_panoptic_seg' in result:
                semantic = True
                predictions.append(_classes_of(result.pred_panoptic_seg, image, len(classes)))
                truths.append(_annotated_segments(info, image))
            else:
                semantic = False
                predictions.append(_predicted(result.pred_instances))
                truths.append(_annotated(info, image, 'masks' in predictions[-1]))
    finally:
        model.train(was_training)
    if semantic:
        return segmentation_beside_truth(out, images, truths, predictions, classes)
    return predictions_beside_truth(out, images, truths, predictions, classes, score=score)


def _read_image(path: str) -> np.ndarray:
    """Reads an image as the pipelines of mm* do, from a file or a remote store, as RGB."""
    import cv2
    from mmengine import fileio

    image = cv2.imdecode(np.frombuffer(fileio.get(path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f'pictures: {path} is not an image that OpenCV can read')
    return image[:, :, ::-1]


def _labels_of(data: Any, image: np.ndarray) -> np.ndarray:
    """Class indices H W from mmengine's PixelData, at the size of the image."""
    import cv2

    # mmseg calls the tensor `data`, mmdet `sem_seg`.
    labels = (data.data if 'data' in data else data.sem_seg).squeeze(0).cpu().numpy()
    if labels.shape != image.shape[:2]:
        size = image.shape[1::-1]
        labels = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    return labels.astype(np.int64)


def _classes_of(data: Any, image: np.ndarray, count: int) -> np.ndarray:
    """Class indices H W of a panoptic prediction, whose values are class + 1000 * object."""
    # The 1000 is INSTANCE_OFFSET, which the versions of mmdet keep in different modules.
    labels = _labels_of(data, image) % 1000
    return np.where(labels < count, labels, IGNORED)


def _annotated_segments(info: Mapping[str, Any], image: np.ndarray) -> np.ndarray:
    """Class indices H W of a panoptic truth: the colours of its file number the segments."""
    labels = np.full(image.shape[:2], IGNORED, np.int64)
    if info.get('seg_map_path'):
        numbers = _read_image(info['seg_map_path']).astype(np.int64) @ (1, 256, 256**2)
        for segment in info.get('segments_info', ()):
            labels[numbers == segment['id']] = segment['category']
    return labels


def _predicted(instances: Any) -> dict[str, np.ndarray]:
    boxes = instances.bboxes
    boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    found = {
        'boxes': boxes.cpu().numpy(),
        'labels': instances.labels.cpu().numpy(),
        'scores': instances.scores.cpu().numpy(),
    }
    if 'masks' in instances:
        found['masks'] = np.asarray(instances.masks.cpu(), bool)
    return found


def _annotated(info: Mapping[str, Any], image: np.ndarray, with_masks: bool) -> dict[str, Any]:
    """The truth in pixels of the file: the pipeline's own copy may have been resized."""
    instances = [each for each in info.get('instances', ()) if not each.get('ignore_flag')]
    truth: dict[str, Any] = {
        'boxes': np.array([each['bbox'] for each in instances], np.float64).reshape(-1, 4),
        'labels': np.array([each['bbox_label'] for each in instances], np.int64),
    }
    if with_masks and instances and all('mask' in each for each in instances):
        truth['masks'] = np.stack([_decode(each['mask'], *image.shape[:2]) for each in instances])
    return truth


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A mask H W from COCO's polygons or run lengths."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        coded = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        coded = mask.frPyObjects(segmentation, height, width)
    else:
        coded = segmentation
    return mask.decode(coded).astype(bool)
