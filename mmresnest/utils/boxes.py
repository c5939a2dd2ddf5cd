"""Boxes, labels and scores of annotated or predicted objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IGNORED = 255  # label of pixels that are left out of training and scores


def class_name(classes: Sequence[str], label: int) -> str:
    """Return the name of a class, whatever its number."""
    return str(classes[label]) if 0 <= label < len(classes) else f'class {label}'


def box_ious(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return intersection over union of every box of one list with every box of another: N M."""
    corner = np.maximum(one[:, None, :2], two[None, :, :2])
    sides = np.clip(np.minimum(one[:, None, 2:], two[None, :, 2:]) - corner, 0, None)
    common = sides[..., 0] * sides[..., 1]
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (one, two)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def object_arrays(objects: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes N 4, labels N and scores N (1 where there are none) of objects."""
    boxes = np.asarray(objects['boxes'], np.float64).reshape(-1, 4)
    labels = np.asarray(objects['labels'], np.int64).reshape(-1)
    scores = objects.get('scores')
    scores = np.ones(len(boxes)) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    if not len(boxes) == len(labels) == len(scores):
        raise ValueError(f'{len(boxes)} boxes, {len(labels)} labels and {len(scores)} scores')
    return boxes, labels, scores


def objects_above(objects: Mapping[str, Any], score: float) -> dict[str, np.ndarray]:
    """Return the objects from a score up, best first."""
    boxes, labels, scores = object_arrays(objects)
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= score]
    kept = {'boxes': boxes[order], 'labels': labels[order], 'scores': scores[order]}
    for name in ('masks', 'ids'):
        if objects.get(name) is not None:
            kept[name] = np.asarray(objects[name])[order]
    return kept


def is_background(classes: Sequence[str], label: int) -> bool:
    """Return whether a class is what is left of an image, which is not tinted."""
    return class_name(classes, label).lower() == 'background'
