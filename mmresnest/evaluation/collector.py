"""Collects what a model predicts on a split, with the truth, as the report wants it.

:class:`Collect` stands among the metrics of a loop and scores nothing. What it keeps of an image is
small: boxes and run lengths, or the counts of a label map and the map scaled down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from ..visualization.canvas import annotated_segments
from .predictions import Detections, LabelMaps, Objects, Picture, Results, counts_of, small_png

OFFSET = 1000  # of mmdet's panoptic maps: class + OFFSET * object


class Collect(BaseMetric):
    """Keeps predictions beside the truth; ``found`` has them once a loop is through.

    Args:
        dataset: of the loop.
        metrics: of the loop; one of COCO's knows the areas and crowds that COCO scores by.
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
        self.found: Results | None = None

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return list((self.dataset_meta or {}).get('classes') or ())

    def process(self, data_batch: dict, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keeps a batch."""
        if self.due():
            self.results += [self._kept(sample) for sample in data_samples]

    def evaluate(self, size: int) -> dict[str, float]:
        """Puts all together, where anything was kept; mmengine would warn that nothing was."""
        return super().evaluate(size) if self.due() else {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Puts all together; there is no score."""
        if results and 'pair' in results[0]:
            self.found = self._label_maps(results)
        else:
            self.found = self._detections(results)
        return {}

    def _kept(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        height, width = sample['ori_shape'][:2]
        picture = _lasting(str(sample.get('img_path') or '')), int(width), int(height)
        if 'pred_sem_seg' in sample:
            said = _squeezed(sample['pred_sem_seg']['data'])
            return dict(picture=picture, **self._counted(_truth_of(sample, said.shape), said))
        if 'pred_panoptic_seg' in sample:
            return dict(picture=picture, **self._counted(*self._panoptic(sample)))
        from .coco_metric import check_labels

        check_labels(sample, len(self.classes))
        return dict(picture=picture, sample=_named(sample), **_instances(sample))

    # ---- label maps ------------------------------------------------------------------------------

    def _counted(self, truth: np.ndarray, said: np.ndarray) -> dict[str, Any]:
        classes = len(self.classes)
        return dict(
            pixels=counts_of(truth, said, classes),
            pair=(small_png(truth, classes), small_png(said, classes)),
        )

    def _panoptic(self, sample: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Classes of truth and prediction; the truth's are in a file of numbered segments."""
        said = _squeezed(sample['pred_panoptic_seg']['sem_seg']) % OFFSET
        return annotated_segments(self._info(sample), np.empty(said.shape)), said

    def _info(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        if not hasattr(self, '_places'):
            self._places = places_of(self.dataset)
        return self.dataset.get_data_info(self._places[sample['img_path']])

    def _label_maps(self, results: Sequence[Mapping[str, Any]]) -> LabelMaps:
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
            [Picture(*one['picture']) for one in results],
            sum(tables[1:], start=tables[0]),
            np.stack(counts),
            [one['pair'] for one in results],
        )

    # ---- detections ------------------------------------------------------------------------------

    def _detections(self, results: Sequence[Mapping[str, Any]]) -> Detections:
        rows: list[tuple] = []
        masks: list[dict] = []
        for place, one in enumerate(results):
            for label, box, score in zip(one['labels'], one['boxes'], one['scores']):
                area = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
                rows.append((place, label, *box, score, area, False))
            masks += one['masks'] or ()
        found = Objects.of(rows, masks if len(masks) == len(rows) > 0 else None)
        pictures = [Picture(*one['picture']) for one in results]
        return Detections(self.classes, pictures, self._truth(results), found)

    def _truth(self, results: Sequence[Mapping[str, Any]]) -> Objects:
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
                self._of_dataset(one['sample'])
                if labels is None
                else self._of_coco(one['sample'], labels)
            )
            for row, mask in annotated:
                rows.append((place, *row))
                masks.append(mask)
        whole = bool(masks) and all(mask is not None for mask in masks)
        return Objects.of(rows, masks if whole else None)

    def _of_coco(
        self, sample: Mapping[str, Any], labels: Mapping[int, int]
    ) -> Iterator[tuple[tuple, Any]]:
        """What COCO's metric scores by: also objects that mmdet's data sets pass over."""
        for one in self.api.load_anns(self.api.get_ann_ids(img_ids=[sample['img_id']])):
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
                    _plain(one.get('segmentation')),
                )

    def _of_dataset(self, sample: Mapping[str, Any]) -> Iterator[tuple[tuple, Any]]:
        for one in self._info(sample).get('instances', ()):
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


def places_of(dataset: Any) -> dict[str, int]:
    """Path of an image -> its index in a data set."""
    infos = map(dataset.get_data_info, range(len(dataset)))
    return {info['img_path']: place for place, info in enumerate(infos)}


def _lasting(path: str) -> str:
    """A path that means the same file wherever the page is made."""
    return path if not path or '://' in path else os.path.abspath(path)


def _named(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {key: sample[key] for key in ('img_path', 'img_id') if key in sample}


def _squeezed(labels: Any) -> np.ndarray:
    """Labels H W of a tensor 1 H W."""
    return labels.squeeze(0).cpu().numpy().astype(np.int64)


def _truth_of(sample: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    if 'gt_sem_seg' not in sample:
        raise UserError(
            f'{sample.get("img_path") or "an image"} came without its mask; the '
            'val_dataloader.dataset.pipeline of the config needs '
            "dict(type='LoadAnnotations')"
        )
    truth = _squeezed(sample['gt_sem_seg']['data'])
    if truth.shape != shape:
        raise UserError(
            f'the mask of {sample.get("img_path")} has {truth.shape[::-1]} pixels, and '
            f'its prediction {shape[::-1]}; a mask has the size of its image'
        )
    return truth


def _instances(sample: Mapping[str, Any]) -> dict[str, Any]:
    found = sample['pred_instances']
    boxes = found['bboxes']
    boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    return dict(
        labels=found['labels'].cpu().tolist(),
        boxes=boxes.cpu().tolist(),
        scores=found['scores'].cpu().tolist(),
        masks=_run_lengths(found['masks']) if 'masks' in found else None,
    )


def _plain(mask: Any) -> Any:
    """A mask as json can hold it: pycocotools leaves bytes where it has coded one."""
    if isinstance(mask, dict) and isinstance(mask['counts'], bytes):
        return dict(size=[int(side) for side in mask['size']], counts=mask['counts'].decode())
    return mask


def _run_lengths(masks: Any) -> list[dict]:
    from pycocotools import mask

    if isinstance(masks, (list, tuple)):  # mmdet may have coded them itself
        coded = list(masks)
    else:
        array = np.asarray(masks.cpu(), np.uint8)
        coded = [mask.encode(np.asfortranarray(one)) for one in array]
    return [_plain(one) for one in coded]
