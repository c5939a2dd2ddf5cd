"""Hold the classes of a checkpoint against those of the data that score it, by name.

A model tells classes by number. The same names in another order give numbers that mean something
else, and other names nothing that could be scored; neither can be seen from the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel

from ..errors import UserError
from .wrappers import unwrap_model

MAX_PAIRS = 5  # that a message names


def recorded_classes(content: Mapping[str, Any], key: str = 'classes') -> tuple[str, ...]:
    """Return the classes that a checkpoint says it was trained with, none where it does not.

    mmengine writes them as ``dataset_meta``; mmdet 2 and mmseg 0 wrote ``CLASSES``.

    Args:
        content: of the checkpoint.
        key: ``thing_classes`` for the countable ones of a panoptic model.
    """
    meta = content.get('meta') or {}
    data = meta.get('dataset_meta') or {}
    names = data.get(key) or data.get(key.upper()) or meta.get(key.upper()) or ()
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def match_classes(
    name: object, trained: Sequence[str], data: Sequence[str], things: Sequence[str] = ()
) -> list[int] | None:
    """Return the label in the data of each label of a model, matched by the names of the classes.

    Args:
        name: what messages call the model.
        trained: its classes; empty where they are not known, and nothing can be held against them.
        data: those of the data; likewise.
        things: for panoptic data, which of them are countable.

    Returns:
        a permutation; None where labels mean the same in both.

    Raises:
        UserError: the names differ, or countable classes would become regions.
    """
    trained, data = list(map(str, trained)), list(map(str, data))
    if not trained or not data or trained == data:
        return None
    if sorted(trained) != sorted(data) or len(set(data)) < len(data):
        pairs = [
            f'{label} is {ours or "nothing"!r} in the checkpoint and {theirs or "nothing"!r} in '
            'the data'
            for label, (ours, theirs) in enumerate(zip_longest(trained, data))
            if ours != theirs
        ]
        more = f', and {len(pairs) - MAX_PAIRS} more' if len(pairs) > MAX_PAIRS else ''
        some = set(trained) < set(data)
        raise UserError(
            f'{name} was trained on other classes than those of the data: class '
            f'{"; class ".join(pairs[:MAX_PAIRS])}{more}. A score would be of classes that the '
            'model does not know; give the data that it was trained for, or, where only the '
            'spelling differs, the names of the checkpoint in the data'
            + (f'; --classes {",".join(trained)} takes these of the data alone' if some else ''),
            code='checkpoint.other-classes',
        )
    order = [data.index(one) for one in trained]
    count = len(things)
    if count and any((label < count) != (target < count) for label, target in enumerate(order)):
        raise UserError(
            f'{name} was trained with other countable classes than those of the data '
            f'({", ".join(things)}); give the data that it was trained for',
            code='checkpoint.other-classes',
        )
    return order


def follow_data(
    name: object, content: Mapping[str, Any], model: Any, metainfo: Mapping[str, Any]
) -> None:
    """Have a model predict the labels of the data that it is scored on.

    Args:
        name: the checkpoint, for messages.
        content: of the checkpoint.
        model: that will hold its weights, whatever wraps it.
        metainfo: of the data set.

    Raises:
        UserError: the data have other classes.
    """
    things = metainfo.get('thing_classes') or ()
    order = match_classes(
        name, recorded_classes(content), metainfo.get('classes') or (), tuple(things)
    )
    if order is not None:
        print_log(
            f'the data have the classes of {name} in another order: predictions are matched by '
            'name, and have the labels of the data',
            'current',
        )
        merges_views = isinstance(model, BaseTTAModel)
        unwrap_model(model).register_forward_hook(RenumberLabels(order, merges_views))


class RenumberLabels:
    """A forward hook that gives predictions the labels of the data.

    Args:
        order: the label in the data of each label of the model.
        merges_views: the maps of several views are averaged before the labels are taken.
    """

    def __init__(self, order: Sequence[int], merges_views: bool = False) -> None:
        self.order, self.merges_views = order, merges_views

    def __call__(self, model: Any, inputs: Any, output: Any) -> Any:
        """Renumber the data samples of a prediction; losses pass as they are."""
        import torch

        if not isinstance(output, (list, tuple)):
            return output
        order = torch.tensor(self.order)
        for sample in output:
            if 'pred_instances' in sample:
                labels = sample.pred_instances.labels
                sample.pred_instances.labels = order.to(labels.device)[labels]
            if 'pred_sem_seg' in sample:
                labels = sample.pred_sem_seg.data
                sample.pred_sem_seg.data = order.to(labels.device)[labels.long()].to(labels.dtype)
            if 'seg_logits' in sample and self.merges_views:
                self._renumber_maps(sample.seg_logits, order)
            if 'pred_panoptic_seg' in sample:
                self._renumber_segments(sample.pred_panoptic_seg, order)
        return output

    def _renumber_maps(self, maps: Any, order: Any) -> None:
        if len(maps.data) != len(order):
            raise UserError(
                '--tta averages one map for two classes, which the data have in another order than '
                'the checkpoint; leave --tta out, or give the classes in the order of the training',
                code='checkpoint.other-classes',
            )
        maps.data = maps.data[order.argsort().to(maps.data.device)]

    def _renumber_segments(self, segments: Any, order: Any) -> None:
        from mmdet.evaluation.functional import INSTANCE_OFFSET

        values = segments.sem_seg
        labels = values % INSTANCE_OFFSET
        known = labels < len(order)
        renumbered = order.to(values.device)[labels.clamp(max=len(order) - 1).long()]
        segments.sem_seg = values.where(~known, values - labels + renumbered.to(values.dtype))
