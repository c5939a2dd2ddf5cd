"""Weights of classes in losses, when a config is pointed at other data."""

import pytest
from mmengine.config import ConfigDict

from mmresnest.config.retarget import set_classes


def make_head(name, weights, **more):
    loss = 'loss_cls' if name == 'bbox_head' else 'loss_decode'
    return ConfigDict(
        {name: {'type': 'Head', 'num_classes': 80, loss: dict(class_weight=weights), **more}}
    )


@pytest.mark.parametrize('kind', [list, tuple])
@pytest.mark.parametrize('count, kept', [(3, True), (4, True), (2, False), (5, False), (80, False)])
def test_weights_that_fit_the_new_classes_are_kept(kind, count, kept):
    """One for each class, or one more for the background; any other number is of other classes."""
    weights = kind(1.0 + number for number in range(count))
    model = make_head('bbox_head', weights)
    set_classes(model, 3)
    assert model.bbox_head.num_classes == 3
    found = model.bbox_head.loss_cls.get('class_weight')
    assert (found is not None and list(found) == list(weights)) == kept
    assert (found is None) != kept


@pytest.mark.parametrize('weight', [0.1, None, 'weights.npy'])
def test_weights_that_are_no_list_are_kept(weight):
    """mmdet's focal losses take a number, mmseg's losses a file."""
    model = make_head('decode_head', weight)
    set_classes(model, 3)
    assert model.decode_head.loss_decode.class_weight == weight
