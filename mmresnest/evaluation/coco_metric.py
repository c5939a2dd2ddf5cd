"""COCO's scores, also of a model that finds nothing, and never of classes in another order.

    val_evaluator = dict(type='mmresnest.CocoMetric', ann_file=..., metric='bbox')

``train`` and ``test`` put it in the place of mmdet's ``CocoMetric``, whose arguments it takes; with
``--fast-eval`` its child that computes the same by faster-coco-eval.
``tests/evaluation/test_metrics.py`` compares the two to 1e-6, with crowds, images without objects,
more detections than count, and none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import CocoMetric as TheirCocoMetric
from mmengine.fileio import dump, load
from mmengine.logging import MMLogger

from ..compat.coco_metric import use_coco_eval
from ..errors import ArgumentError, UserError
from ..registry import METRICS
from ..utils.text import format_some
from .coco_api import NumberedCOCO
from .coco_eval import faster_cocoeval_class


@METRICS.register_module()
class CocoMetric(TheirCocoMetric):
    """mmdet's ``CocoMetric``, which flatters nobody.

    Without any detection mmdet logs an error and returns no scores at all, so that ``save_best``
    passes over the validation. Here they are those of a model whose detections are all wrong: 0,
    and as ever -1 (by class: nan) where there is no truth to be found, such as large objects.

    mmdet takes the detections of label l for the category which is l-th **in the annotation file**,
    among those whose name is in ``dataset_meta['classes']``: ``get_cat_ids`` filters the file's
    list and keeps its order. ``CocoDataset`` gives its labels by the same rule. So with classes in
    another order the labels follow the file, all names that are shown follow ``classes``, and where
    the files of training and test differ in order, detections are scored as other classes; with a
    name that is not in the file, all labels behind it are. Either is refused.

    Args:
        **given: of mmdet's ``CocoMetric``.

    Raises:
        UserError: classes and annotation file differ, or a detection is of none of the classes.
    """

    _coco_api: Any  # a NumberedCOCO, or None before annotations are known

    def __init__(self, **given: Any) -> None:
        self.ann_file = given.get('ann_file')
        super().__init__(**given)
        if self._coco_api is not None:
            self._coco_api = NumberedCOCO.from_api(self._coco_api)

    @property
    def dataset_meta(self) -> dict | None:
        """What the data set says of itself; the names of the classes among it."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        if self._coco_api is not None and {'bbox', 'segm'} & set(self.metrics):
            self._check_classes(list(meta.get('classes') or ()))

    def _check_classes(self, classes: list[str]) -> None:
        api = self._coco_api
        there = [row['name'] for row in api.load_cats(api.get_cat_ids(cat_names=classes))]
        if not classes or there == classes:
            return
        lost = [name for name in classes if name not in there]
        is_twice = not lost and len(there) > len(classes)
        wrong = (
            f'lacks {format_some(lost, 10)}'
            if lost
            else (
                f'names a category more than once: {format_some(there, 10)}'
                if is_twice
                else f'has its categories in the order {format_some(there, 10)}, '
                'which labels follow'
            )
        )
        raise UserError(
            f'{self.ann_file} {wrong}, and the classes of the data set are '
            f'{format_some(classes, 10)}: scores would be those of other classes; write '
            'metainfo.classes as the file does, in all data sets',
            code='data.category-name-twice' if is_twice else 'data.other-classes',
        )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Take the predictions for a batch."""
        classes = (self.dataset_meta or {}).get('classes') or ()
        for sample in data_samples if classes else ():
            check_labels(sample, len(classes))
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return scores of all results, by name."""
        if not self.format_only and not any(len(found['labels']) for _, found in results):
            MMLogger.get_current_instance().warning(
                f'nothing was detected on any of the {len(results)} images: the scores are 0'
            )
        if self._coco_api is None:
            self._coco_api = self._collect_truth([truth for truth, _ in results])
        return super().compute_metrics(results)

    def _collect_truth(self, truths: Sequence[dict]) -> NumberedCOCO:
        """Return the annotations that came with the samples, where no file was given."""
        with TemporaryDirectory() as folder:
            path = self.gt_to_coco_json(truths, self.outfile_prefix or f'{folder}/results')
            return NumberedCOCO.from_api(COCO(path))

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write detections as json, with the ids of the annotation file."""
        files = super().results2json(results, outfile_prefix)
        categories = self._coco_api.categories
        for file in set(files.values()) if categories.changed else ():
            rows = load(file)
            for row in rows:
                row['category_id'] = categories.given[row['category_id']]
            dump(rows, file)
        return files


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """The same, with matching and accumulation by faster-coco-eval.

    Args:
        **given: of ``CocoMetric``; but for ``use_mp_eval``, which is pycocotools' own way of
            being faster, and ``metric='proposal_fast'``, which neither of them computes.

    Raises:
        UserError: faster-coco-eval is not installed.
        ArgumentError: ``use_mp_eval``.
    """

    def __init__(self, **given: Any) -> None:
        if find_spec('faster_coco_eval') is None:
            raise UserError(
                'FastCocoMetric needs the package faster-coco-eval: pip install '
                '"mmresnest[fast-eval]", or evaluate with CocoMetric',
                code='package.missing',
            )
        if given.get('use_mp_eval'):
            raise ArgumentError(
                'FastCocoMetric: use_mp_eval=True is not supported; legal: False, '
                'one process is faster'
            )
        super().__init__(**given)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return scores of all results, by name."""
        with use_coco_eval(faster_cocoeval_class()):
            return super().compute_metrics(results)


def check_labels(sample: Mapping[str, Any], count: int) -> None:
    """Refuse detections of no class: -1 would count as the last one, by Python's indexing."""
    labels = sample['pred_instances']['labels']
    wrong = labels[(labels < 0) | (labels >= count)]
    if len(wrong):
        raise UserError(
            f'{len(wrong)} of {len(labels)} detections on '
            f'{sample.get("img_path") or "image " + str(sample.get("img_id"))} are of '
            f'class {int(wrong[0])}, and the data set has {count}, from 0; set '
            'num_classes of the heads to that number',
            code='data.label-range',
        )
