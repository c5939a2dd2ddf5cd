"""Pictures of a run: predictions beside the truth, and curves of losses and scores.

The drawing functions take plain arrays (images H W 3 in RGB, boxes x0 y0 x1 y1 in pixels of the
image, labels as indices into the class names) and know nothing of mmengine. ``write_pictures``
feeds them from a trained model and its test data. Every figure is an object of its own: no pyplot,
no display, no global state. A picture is written under another name first and moved into place, so
it is never seen half-written.

Colors never carry a meaning alone: what was missed and what is false is also told by the line and
a word.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..utils.boxes import IGNORED, object_arrays, objects_above
from ..utils.masks import decode_mask
from ..utils.matching import match_boxes
from ..utils.run_logs import read_scalars
from .canvas import (
    MAX_BOXES,
    WRONG,
    class_entries,
    color_entry,
    draw_objects,
    draw_sheet,
    mistake_entry,
    panoptic_classes,
    read_image,
    show_image,
    shrink_map,
    shrink_objects,
    tint_labels,
    to_rgb_image,
    write_title,
)
from .curves import plot_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Match(NamedTuple):
    """Which objects were found, and which predictions are right; by position in the lists given."""

    found: np.ndarray  # of the truth, bool
    right: np.ndarray  # of the predictions, bool


def match_objects(
    truth: Mapping[str, Any], prediction: Mapping[str, Any], iou: float = 0.5
) -> Match:
    """Pair predictions with objects as COCO does: best score first, each object at most once.

    Args:
        truth: ``boxes`` N 4 and ``labels`` N.
        prediction: ``boxes`` M 4, ``labels`` M and ``scores`` M.
        iou: the overlap from which a prediction of the right class counts.
    """
    boxes, labels, _ = object_arrays(truth)
    partner, _ = match_boxes(*object_arrays(prediction), boxes, labels, iou)
    found = np.zeros(len(boxes), bool)
    found[partner[partner >= 0]] = True
    return Match(found, partner >= 0)


def draw_detections(
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
    """Draw objects: at the left of each pair what is there, at the right what the model says.

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
    images = [to_rgb_image(image) for image in images]
    _check_lengths(images, truths, predictions)
    truths = [objects_above(truth, -math.inf) for truth in truths]
    predictions = [objects_above(prediction, score) for prediction in predictions]

    def draw_pair(number: int, left: Axes, right: Axes) -> None:
        pairs = match_objects(truths[number], predictions[number], iou)
        missed, false = int((~pairs.found).sum()), int((~pairs.right).sum())
        image, objects = shrink_objects(images[number], truths[number])
        draw_objects(left, image, objects, pairs.found, classes, 'missed', False)
        image, objects = shrink_objects(images[number], predictions[number])
        draw_objects(right, image, objects, pairs.right, classes, 'false', True)
        there = f'ground truth: {len(pairs.found)}' + (f', {missed} missed' if missed else '')
        said = f'predictions \u2265 {score:g}: {len(pairs.right)}'
        said += f', {false} false' if false else ''
        said += f' (best {MAX_BOXES} drawn)' if len(pairs.right) > MAX_BOXES else ''
        write_title(left, there)
        write_title(right, said)

    used = {int(label) for objects in (*truths, *predictions) for label in objects['labels']}
    entries = [
        *class_entries(sorted(used), classes, untinted=False),
        mistake_entry('missed (left) or false (right)'),
    ]
    return draw_sheet(out, images, ('truth', 'predictions'), entries, title, draw_pair)


def _check_lengths(*lists: Sequence[Any]) -> None:
    if len({len(each) for each in lists}) != 1:
        raise ValueError(
            f'images, truths and predictions differ in number: {[len(each) for each in lists]}'
        )
    if not lists[0]:
        raise ValueError('no picture to draw')


def draw_segmentations(
    out: str | os.PathLike,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    classes: Sequence[str],
    *,
    ignore: int = IGNORED,
    title: str = 'Predictions beside ground truth',
) -> Path:
    """Draw semantic masks: what is there, what the model says, and the pixels where they differ.

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

    images = [to_rgb_image(image) for image in images]
    truths = [np.asarray(truth).squeeze() for truth in truths]
    predictions = [np.asarray(prediction).squeeze() for prediction in predictions]
    _check_lengths(images, truths, predictions)
    for image, truth, prediction in zip(images, truths, predictions, strict=True):
        if not image.shape[:2] == truth.shape == prediction.shape:
            raise ValueError(
                f'image {image.shape[:2]}, truth {truth.shape} and '
                f'prediction {prediction.shape} differ in size'
            )

    def draw_triple(number: int, left: Axes, middle: Axes, right: Axes) -> None:
        truth, prediction = truths[number], predictions[number]
        counted = truth != ignore
        wrong = counted & (truth != prediction)
        score = _mean_iou(truth, prediction, counted)
        share = wrong.sum() / max(counted.sum(), 1)
        image, truth, prediction, counted, wrong = map(
            shrink_map, (images[number], truth, prediction, counted, wrong)
        )
        gray = image.mean(2, keepdims=True).repeat(3, 2) * 0.5 + 90
        gray[~counted] = 255
        gray[wrong] = np.array(to_rgb(WRONG)) * 255
        show_image(left, tint_labels(image, truth, classes, ignore))
        show_image(middle, tint_labels(image, prediction, classes, ignore))
        show_image(right, gray.clip(0, 255).astype(np.uint8))
        write_title(left, 'ground truth')
        write_title(middle, f'prediction: mIoU of this picture {score:.2f}')
        write_title(right, f'wrong pixels: {share:.1%}')

    used = {int(label) for mask in (*truths, *predictions) for label in np.unique(mask)} - {ignore}
    entries = [
        *class_entries(sorted(used), classes),
        color_entry(WRONG, 'wrong', edge=False),
        color_entry('white', 'not counted'),
    ]
    panels = ('truth', 'prediction', 'difference')
    return draw_sheet(out, images, panels, entries, title, draw_triple)


def _mean_iou(truth: np.ndarray, prediction: np.ndarray, counted: np.ndarray) -> float:
    """Return mean over the classes that the picture or its prediction holds."""
    truth, prediction = truth[counted], prediction[counted]
    ious = []
    for label in np.union1d(truth, prediction):
        there, said = truth == label, prediction == label
        ious.append((there & said).sum() / (there | said).sum())
    return float(np.mean(ious)) if ious else float('nan')


def write_pictures(
    run: Any,
    model: Any,
    dataset: Any,
    out_dir: str | os.PathLike,
    count: int = 8,
    *,
    score: float = 0.3,
) -> list[Path]:
    """Draw what a trained model says about some pictures of a data set, and how it learned.

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
    indices = spread_indices(len(dataset), count)
    if indices:
        written.append(
            _draw_predictions(model, dataset, indices, out_dir / 'predictions.png', score)
        )
    work_dir = getattr(run, 'work_dir', None)
    if work_dir and any(read_scalars(work_dir)):
        written.append(plot_curves(work_dir, out_dir / 'curves.png', title=Path(work_dir).name))
    return written


def spread_indices(length: int, count: int) -> list[int]:
    """Return ``count`` positions at equal steps over a list, the first one included."""
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
    """Draw what a detector or segmentor said of some images beside the truth.

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
        truth, prediction = _pair_result(result, info, images[-1], len(classes))
        truths.append(truth)
        predictions.append(prediction)
    if isinstance(predictions[0], np.ndarray):
        return draw_segmentations(out, images, truths, predictions, classes, title=title)
    return draw_detections(out, images, truths, predictions, classes, score=score, title=title)


def _pair_result(
    result: Any, info: Mapping[str, Any], image: np.ndarray, count: int
) -> tuple[Any, Any]:
    """Return ground truth and prediction of an image: label maps, or objects."""
    if 'pred_sem_seg' in result:
        truth = _label_map(result.gt_sem_seg, image) if 'gt_sem_seg' in result else None
        return (
            np.full(image.shape[:2], IGNORED) if truth is None else truth,
            _label_map(result.pred_sem_seg, image),
        )
    if 'pred_panoptic_seg' in result:
        return (
            panoptic_classes(info, image),
            _panoptic_label_map(result.pred_panoptic_seg, image, count),
        )
    found = _predicted_objects(result.pred_instances)
    return _annotated_objects(info, image, 'masks' in found), found


def _label_map(data: Any, image: np.ndarray) -> np.ndarray:
    """Return class indices H W from mmengine's PixelData, at the size of the image."""
    import cv2

    # mmseg calls the tensor `data`, mmdet `sem_seg`.
    labels = (data.data if 'data' in data else data.sem_seg).squeeze(0).cpu().numpy()
    if labels.shape != image.shape[:2]:
        size = image.shape[1::-1]
        labels = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    return labels.astype(np.int64)


def _panoptic_label_map(data: Any, image: np.ndarray, count: int) -> np.ndarray:
    """Return class indices H W of a panoptic prediction, whose values are class + 1000 * object."""
    # The 1000 is INSTANCE_OFFSET, which the versions of mmdet keep in different modules.
    labels = _label_map(data, image) % 1000
    return np.where(labels < count, labels, IGNORED)


def _predicted_objects(instances: Any) -> dict[str, np.ndarray]:
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


def _annotated_objects(
    info: Mapping[str, Any], image: np.ndarray, with_masks: bool
) -> dict[str, Any]:
    """Return the truth in pixels of the file: the pipeline's own copy may have been resized."""
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
