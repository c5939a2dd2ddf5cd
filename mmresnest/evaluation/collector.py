"""Collects what a model predicts on a split, with the truth, as the report wants it.

:class:`PredictionCollector` stands among the metrics of a loop and scores nothing. What it keeps
of an image is small: boxes and run lengths, or the counts of a label map and the map scaled down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from ..utils.masks import encode_rle, rle_to_json
from ..visualization.canvas import panoptic_classes
from .predictions import (
    Detections,
    ImageInfo,
    LabelMaps,
    Objects,
    Results,
    count_pixels,
    encode_label_map,
)

OFFSET = 1000  # of mmdet's panoptic maps: class + OFFSET * object


class PredictionCollector(BaseMetric):
    """Keeps predictions beside the truth; ``found`` has them once a loop is through.

    Args:
        dataset: of the loop.
        metrics: of the loop; one of COCO's knows the areas and crowds that COCO scores by, and one
            of label maps which label is left out.
        due: whether to keep what is predicted now; always by default.
    """

    default_prefix = 'report'  # of no score; without one mmengine warns

    def __init__(
        self, dataset: Any, metrics: Sequence[Any] = (), due: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(collect_device='cpu')
        self.dataset, self.due = dataset, due
        self.api: Any = next(
            (one._coco_api for one in metrics if getattr(one, '_coco_api', None) is not None), None
        )
        self.ignored: int | None = next(
            (one.ignore_index for one in metrics if hasattr(one, 'ignore_index')), None
        )
        self.found: Results | None = None

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return list((self.dataset_meta or {}).get('classes') or ())

    def process(self, data_batch: dict, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep a batch."""
        if self.due():
            self.results += [self._collect_sample(sample) for sample in data_samples]

    def evaluate(self, size: int) -> dict[str, float]:
        """Put all together, where anything was kept; mmengine would warn that nothing was."""
        return super().evaluate(size) if self.due() else {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Put all together; there is no score."""
        if results and 'pair' in results[0]:
            self.found = self._join_label_maps(results)
        else:
            self.found = self._join_detections(results)
        return {}

    def _collect_sample(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        height, width = sample['ori_shape'][:2]
        picture = _absolute_path(str(sample.get('img_path') or '')), int(width), int(height)
        if 'pred_sem_seg' in sample:
            said = _to_label_map(sample['pred_sem_seg']['data'])
            truth = _ground_truth_map(sample, said.shape)
            truth[truth == self.ignored] = -1  # may be the label of a class
            return dict(picture=picture, **self._count_pixels(truth, said))
        if 'pred_panoptic_seg' in sample:
            return dict(picture=picture, **self._count_pixels(*self._panoptic_maps(sample)))
        from .coco_metric import check_labels

        check_labels(sample, len(self.classes))
        return dict(picture=picture, sample=_image_keys(sample), **_predicted_instances(sample))

    def _count_pixels(self, truth: np.ndarray, said: np.ndarray) -> dict[str, Any]:
        classes = len(self.classes)
        return dict(
            pixels=count_pixels(truth, said, classes),
            pair=(encode_label_map(truth, classes), encode_label_map(said, classes)),
        )

    def _panoptic_maps(self, sample: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return label maps of truth and prediction; the truth is a file of numbered segments."""
        said = _to_label_map(sample['pred_panoptic_seg']['sem_seg']) % OFFSET
        return panoptic_classes(self._data_info(sample), np.empty(said.shape)), said

    def _data_info(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        if not hasattr(self, '_places'):
            self._places = index_by_path(self.dataset)
        return self.dataset.get_data_info(self._places[sample['img_path']])

    def _join_label_maps(self, results: Sequence[Mapping[str, Any]]) -> LabelMaps:
        tables = [one['pixels'] for one in results]
        counts = [
            np.stack(
                [
                    np.diag(table),
                    table.sum(axis=1) - np.diag(table),
                    table.sum(axis=0)[:-1] - np.diag(table),
                ],
                axis=1,
            )
            for table in tables
        ]
        return LabelMaps(
            self.classes,
            [ImageInfo(*one['picture']) for one in results],
            sum(tables[1:], start=tables[0]),
            np.stack(counts),
            [one['pair'] for one in results],
        )

    def _join_detections(self, results: Sequence[Mapping[str, Any]]) -> Detections:
        rows: list[tuple] = []
        masks: list[dict] = []
        for place, one in enumerate(results):
            for label, box, score in zip(one['labels'], one['boxes'], one['scores']):
                area = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
                rows.append((place, label, *box, score, area, False))
            masks += one['masks'] or ()
        found = Objects.from_rows(rows, masks if len(masks) == len(rows) > 0 else None)
        pictures = [ImageInfo(*one['picture']) for one in results]
        return Detections(self.classes, pictures, self._ground_truth(results), found)

    def _ground_truth(self, results: Sequence[Mapping[str, Any]]) -> Objects:
        rows, masks = [], []
        labels = (
            None
            if self.api is None
            else {
                number: label
                for label, number in enumerate(self.api.get_cat_ids(cat_names=self.classes))
            }
        )
        for place, one in enumerate(results):
            annotated = (
                self._dataset_ground_truth(one['sample'])
                if labels is None
                else self._coco_ground_truth(one['sample'], labels)
            )
            for row, mask in annotated:
                rows.append((place, *row))
                masks.append(mask)
        whole = bool(masks) and all(mask is not None for mask in masks)
        return Objects.from_rows(rows, masks if whole else None)

    def _coco_ground_truth(
        self, sample: Mapping[str, Any], labels: Mapping[int, int]
    ) -> Iterator[tuple[tuple, Any]]:
        """Return what COCO's metric scores by: also objects that mmdet's data sets pass over."""
        from .coco_api import NumberedCOCO

        image = sample['img_id']
        if isinstance(self.api, NumberedCOCO):
            image = self.api.images.find(image)
        for one in self.api.load_anns(self.api.get_ann_ids(img_ids=[image])):
            if one['category_id'] in labels:
                x, y, width, height = one['bbox']
                yield (
                    (
                        labels[one['category_id']],
                        x,
                        y,
                        x + width,
                        y + height,
                        1,
                        one.get('area', width * height),
                        bool(one.get('iscrowd')),
                    ),
                    rle_to_json(one.get('segmentation')),
                )

    def _dataset_ground_truth(self, sample: Mapping[str, Any]) -> Iterator[tuple[tuple, Any]]:
        for one in self._data_info(sample).get('instances', ()):
            box = one['bbox']
            yield (
                (
                    one['bbox_label'],
                    *box,
                    1,
                    (box[2] - box[0]) * (box[3] - box[1]),
                    bool(one.get('ignore_flag')),
                ),
                one.get('mask'),
            )


def index_by_path(dataset: Any) -> dict[str, int]:
    """Return path of an image -> its index in a data set."""
    infos = map(dataset.get_data_info, range(len(dataset)))
    return {info['img_path']: place for place, info in enumerate(infos)}


def _absolute_path(path: str) -> str:
    """Return a path that means the same file wherever the page is made."""
    return path if not path or '://' in path else os.path.abspath(path)


def _image_keys(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {key: sample[key] for key in ('img_path', 'img_id') if key in sample}


def _to_label_map(labels: Any) -> np.ndarray:
    """Return labels H W of a tensor 1 H W."""
    return labels.squeeze(0).cpu().numpy().astype(np.int64)


def _ground_truth_map(sample: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    if 'gt_sem_seg' not in sample:
        raise UserError(
            f'{sample.get("img_path") or "an image"} came without its mask; the '
            'val_dataloader.dataset.pipeline of the config needs '
            "dict(type='LoadAnnotations')",
            code='config.pipeline',
        )
    truth = _to_label_map(sample['gt_sem_seg']['data'])
    if truth.shape != shape:
        raise UserError(
            f'the mask of {sample.get("img_path")} has {truth.shape[::-1]} pixels, and '
            f'its prediction {shape[::-1]}; a mask has the size of its image',
            code='data.mask-size',
        )
    return truth


def _predicted_instances(sample: Mapping[str, Any]) -> dict[str, Any]:
    found = sample['pred_instances']
    boxes = found['bboxes']
    boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    return dict(
        labels=found['labels'].cpu().tolist(),
        boxes=boxes.cpu().tolist(),
        scores=found['scores'].cpu().tolist(),
        masks=_run_lengths(found['masks']) if 'masks' in found else None,
    )


def _run_lengths(masks: Any) -> list[dict]:
    if isinstance(masks, (list, tuple)):  # mmdet may have encoded them itself
        return [rle_to_json(one) for one in masks]
    return [encode_rle(one) for one in masks.cpu().numpy()]
