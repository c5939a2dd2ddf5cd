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

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..utils.boxes import (
    IGNORED,
    box_ious,
    class_name,
    decode_mask,
    is_ground,
    kept_objects,
    objects_of,
)
from ..utils.run_logs import main_score, read_scalars
from ..visualization.canvas import annotated_segments
from .canvas import (
    MAX_BOXES,
    PALETTE,
    WRONG,
    Grid,
    as_picture,
    class_colour,
    draw_objects,
    draw_seam,
    new_figure,
    read_image,
    save_figure,
    show_image,
    tint_labels,
    write_head,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# ------------------------------------------------------------------------------- matching


class Match(NamedTuple):
    """Which objects were found, and which predictions are right; by position in the lists given."""

    found: np.ndarray  # of the truth, bool
    right: np.ndarray  # of the predictions, bool


def match(truth: Mapping[str, Any], prediction: Mapping[str, Any], iou: float = 0.5) -> Match:
    """Pairs predictions with objects as COCO does: best score first, each object at most once.

    Args:
        truth: ``boxes`` N 4 and ``labels`` N.
        prediction: ``boxes`` M 4, ``labels`` M and ``scores`` M.
        iou: the overlap from which a prediction of the right class counts.
    """
    boxes, labels, _ = objects_of(truth)
    predicted, predicted_labels, scores = objects_of(prediction)
    overlaps = box_ious(predicted, boxes)
    found, right = np.zeros(len(boxes), bool), np.zeros(len(predicted), bool)
    for number in np.argsort(-scores, kind='stable'):
        free = (labels == predicted_labels[number]) & ~found & (overlaps[number] >= iou)
        if free.any():
            found[np.argmax(np.where(free, overlaps[number], -1))] = True
            right[number] = True
    return Match(found, right)


# ------------------------------------------------------------------------------- figures


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

    images = [as_picture(image) for image in images]
    _same_length(images, truths, predictions)
    truths = [kept_objects(truth, -math.inf) for truth in truths]
    predictions = [kept_objects(prediction, score) for prediction in predictions]
    used = sorted(
        {int(label) for objects in (*truths, *predictions) for label in objects['labels']}
    )
    grid = Grid(images, ('truth', 'predictions'), len(used) + 1, title)
    for image, truth, prediction, (left, right) in zip(
        images, truths, predictions, grid.axes, strict=True
    ):
        pairs = match(truth, prediction, iou)
        missed, false = int((~pairs.found).sum()), int((~pairs.right).sum())
        draw_objects(left, image, truth, pairs.found, classes, 'missed', False)
        draw_objects(right, image, prediction, pairs.right, classes, 'false', True)
        told = f'predictions \u2265 {score:g}: {len(pairs.right)}'
        if false:
            told += f', {false} false'
        if len(pairs.right) > MAX_BOXES:
            told += f' (best {MAX_BOXES} drawn)'
        write_head(
            left, f'ground truth: {len(pairs.found)}' + (f', {missed} missed' if missed else '')
        )
        write_head(right, told)
    entries: list[tuple[Any, str]] = [
        (
            Patch(facecolor=class_colour(label), edgecolor='black', linewidth=0.6),
            class_name(classes, label),
        )
        for label in used
    ]
    mistake = Line2D([], [], color='black', linestyle=(0, (3, 2)), linewidth=1.7)
    mistake.set_path_effects(draw_seam())
    grid.legend([*entries, (mistake, 'missed (left) or false (right)')])
    return save_figure(grid.figure, out)


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

    images = [as_picture(image) for image in images]
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
    grid = Grid(images, ('truth', 'prediction', 'difference'), len(used) + 2, title)
    for image, truth, prediction, (left, middle, right) in zip(
        images, truths, predictions, grid.axes, strict=True
    ):
        counted = truth != ignore
        wrong = counted & (truth != prediction)
        show_image(left, tint_labels(image, truth, classes, ignore))
        show_image(middle, tint_labels(image, prediction, classes, ignore))
        grey = image.mean(2, keepdims=True).repeat(3, 2) * 0.5 + 90
        grey[~counted] = 255
        grey[wrong] = np.array(to_rgb(WRONG)) * 255
        show_image(right, grey.clip(0, 255).astype(np.uint8))
        write_head(left, 'ground truth')
        write_head(
            middle, f'prediction: mIoU of this picture {_mean_iou(truth, prediction, counted):.2f}'
        )
        write_head(right, f'wrong pixels: {wrong.sum() / max(counted.sum(), 1):.1%}')
    grid.legend(
        [
            (
                Patch(
                    facecolor='white' if is_ground(classes, label) else class_colour(label),
                    edgecolor='black',
                    linewidth=0.6,
                ),
                class_name(classes, label) + (' (untinted)' if is_ground(classes, label) else ''),
            )
            for label in used
        ]
        + [
            (Patch(facecolor=WRONG), 'wrong'),
            (Patch(facecolor='white', edgecolor='black', linewidth=0.6), 'not counted'),
        ]
    )
    return save_figure(grid.figure, out)


def _mean_iou(truth: np.ndarray, prediction: np.ndarray, counted: np.ndarray) -> float:
    """Mean over the classes that the picture or its prediction holds."""
    truth, prediction = truth[counted], prediction[counted]
    ious = []
    for label in np.union1d(truth, prediction):
        there, said = truth == label, prediction == label
        ious.append((there & said).sum() / (there | said).sum())
    return float(np.mean(ious)) if ious else float('nan')


# ------------------------------------------------------------------------------- curves


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
    figure = new_figure(6.4 * len(panels), 4.6)
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
    return save_figure(figure, out)


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


def _plot_scores(
    axes: Axes, name: str, lines: Mapping[str, tuple[list[float], list[float]]]
) -> None:
    short = {key: key.rsplit('/')[-1] for key in lines}
    main = main_score(lines) or next(iter(lines))
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
    indices = spread(len(dataset), count)
    if indices:
        written.append(
            _draw_predictions(model, dataset, indices, out_dir / 'predictions.png', score)
        )
    work_dir = getattr(run, 'work_dir', None)
    if work_dir and any(read_scalars(work_dir)):
        written.append(curves(work_dir, out_dir / 'curves.png', title=Path(work_dir).name))
    return written


def spread(length: int, count: int) -> list[int]:
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
    was_training = model.training
    model.eval()
    # One at a time: a segmentor's result has a score for every class and pixel.
    results = (model.test_step(pseudo_collate([dataset[index]]))[0] for index in indices)
    infos = [dataset.get_data_info(index) for index in indices]
    try:
        with torch.no_grad():
            return draw_results(results, infos, dataset.metainfo.get('classes') or (), out, score)
    finally:
        model.train(was_training)


def draw_results(
    results: Iterable[Any],
    infos: Iterable[Mapping[str, Any]],
    classes: Sequence[str],
    out: Path,
    score: float = 0.3,
    title: str = 'Predictions beside ground truth',
) -> Path:
    """Draws what a detector or segmentor said of some images beside the truth.

    Args:
        results: its data samples.
        infos: what the data set knows of each image.
        classes: names, in the order of the labels.
        out: the PNG to write.
        score: predictions below it are left out.
        title: the line above all pictures.

    Returns:
        ``out``.
    """
    images: list[np.ndarray] = []
    truths: list[Any] = []
    predictions: list[Any] = []
    for result, info in zip(results, infos, strict=True):
        images.append(read_image(info['img_path']))
        truth, prediction = _pair(result, info, images[-1], len(classes))
        truths.append(truth)
        predictions.append(prediction)
    if isinstance(predictions[0], np.ndarray):
        return segmentation_beside_truth(out, images, truths, predictions, classes, title=title)
    return predictions_beside_truth(
        out, images, truths, predictions, classes, score=score, title=title
    )


def _pair(result: Any, info: Mapping[str, Any], image: np.ndarray, count: int) -> tuple[Any, Any]:
    """Truth and prediction of an image: label maps, or objects."""
    if 'pred_sem_seg' in result:
        truth = _labels_of(result.gt_sem_seg, image) if 'gt_sem_seg' in result else None
        return (
            np.full(image.shape[:2], IGNORED) if truth is None else truth,
            _labels_of(result.pred_sem_seg, image),
        )
    if 'pred_panoptic_seg' in result:
        return (
            annotated_segments(info, image),
            _classes_of(result.pred_panoptic_seg, image, count),
        )
    found = _predicted(result.pred_instances)
    return _annotated(info, image, 'masks' in found), found


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
        truth['masks'] = np.stack(
            [decode_mask(each['mask'], *image.shape[:2]) for each in instances]
        )
    return truth
