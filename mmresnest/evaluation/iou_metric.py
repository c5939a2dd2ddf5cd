"""Scores of label maps, of which every pixel is accounted for.

    val_evaluator = dict(type='mmresnest.IoUMetric', iou_metrics=['mIoU'])

``train`` and ``test`` put it in the place of mmseg's ``IoUMetric``, whose arguments it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmseg.evaluation.metrics import IoUMetric as TheirIoUMetric
from torch import Tensor

from ..errors import UserError
from ..registry import METRICS


@METRICS.register_module()
class IoUMetric(TheirIoUMetric):
    """mmseg's ``IoUMetric``, which leaves no pixel out in silence.

    mmseg counts pixels with ``histc`` over the classes, which passes over all others: a mask of
    wrong labels is scored by the pixels that happen to be right, and aAcc can be 100. Here a truth
    that is neither a class nor ``ignore_index``, a prediction that is no class, and one of another
    size than its truth are errors.

    A class that is neither in the truth nor predicted has no score: it is nan, unless
    ``nan_to_num`` says otherwise, and means are over the others. The log says so once.

    Args:
        **given: of mmseg's ``IoUMetric``.

    Raises:
        UserError: see above.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.absent: list[str] = []  # classes that the log has named

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch."""
        for sample in data_samples:
            self._check_sample(sample)
        super().process(data_batch, data_samples)

    def _check_sample(self, sample: Mapping[str, Any]) -> None:
        classes = len(self.dataset_meta['classes'])
        image = sample.get('img_path') or 'an image'
        found = sample['pred_sem_seg']['data'].squeeze()
        wrong = _labels_outside(found, classes)
        if len(wrong):
            raise UserError(
                f'{len(wrong)} pixels of {image} are predicted as {_format_labels(wrong)}, '
                f'and the data set has {classes} classes, from 0; set num_classes of '
                'the heads to that number',
                code='data.label-range',
            )
        if self.format_only:
            return
        truth = sample['gt_sem_seg']['data'].squeeze()
        mask = sample.get('seg_map_path') or f'the mask of {image}'
        if truth.shape != found.shape:
            raise UserError(
                f'{mask} has {_format_size(truth)} pixels, and the prediction for {image} '
                f'{_format_size(found)}; a mask has the size of its image, and one number '
                'for each pixel: put the right one in its place',
                code='data.mask-size',
            )
        wrong = _labels_outside(truth, classes, self.ignore_index)
        if len(wrong):
            shifted = (
                ' (numbered after reduce_zero_label, which takes 1 from those in the file)'
                if sample.get('reduce_zero_label')
                else ''
            )
            raise UserError(
                f'{len(wrong)} pixels of {mask} are of class {_format_labels(wrong)}'
                f'{shifted}, and the data set has {classes} classes, from 0; correct '
                f'the mask, or metainfo.classes; what is to be ignored is '
                f'{self.ignore_index} in it',
                code='data.label-range',
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return scores of all results, by name."""
        if results and not self.format_only:
            self._warn_absent_classes(sum(one[1] for one in results))
        return super().compute_metrics(results)

    def _warn_absent_classes(self, union: Tensor) -> None:
        names = self.dataset_meta['classes']
        absent = [name for name, pixels in zip(names, union.tolist()) if not pixels]
        if absent and absent != self.absent:
            how = (
                f'their scores are nan, and means are over the other {len(names) - len(absent)}'
                if self.nan_to_num is None
                else f'their scores count as {self.nan_to_num} (nan_to_num)'
            )
            MMLogger.get_current_instance().warning(
                f'{len(absent)} of {len(names)} classes are neither in the masks nor predicted: '
                f'{how}: {", ".join(absent[:10])}{" ..." if len(absent) > 10 else ""}'
            )
            self.absent = absent


def _labels_outside(labels: Tensor, classes: int, ignored: int | None = None) -> Tensor:
    """Return the labels that are no class, nor to be ignored."""
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    return labels[wrong] if wrong.any() else labels.new_empty(0)  # picking out takes longest


def _format_labels(labels: Tensor) -> str:
    return ', '.join(str(label) for label in labels.unique().tolist()[:8])


def _format_size(labels: Tensor) -> str:
    return ' x '.join(map(str, reversed(labels.shape)))
