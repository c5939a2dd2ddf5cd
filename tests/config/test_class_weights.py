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


@pytest.mark.parametrize('part, stuff', [('decode_head', 0), ('panoptic_head', 2)])
def test_weights_of_masks_follow_the_classes(part, stuff):
    """MaskFormer weighs all classes alike, and no object less; its head has channels of its own."""
    counts = dict(num_things_classes=5, num_stuff_classes=4) if stuff else dict(num_classes=9)
    loss = dict(class_weight=[1.0] * 9 + [0.1])
    model = ConfigDict(
        {part: dict(type='MaskFormerHead', out_channels=256, loss_cls=loss, **counts)}
    )
    set_classes(model, 3, stuff)
    assert model[part].loss_cls.class_weight == [1.0] * (3 + stuff) + [0.1]
    assert model[part].out_channels == 256


def test_unequal_weights_of_other_classes_go():
    model = ConfigDict(bbox_head=dict(type='Head', num_classes=2))
    model.bbox_head.loss_cls = dict(class_weight=[1.0, 2.0, 0.1])
    set_classes(model, 5)
    assert 'class_weight' not in model.bbox_head.loss_cls


@pytest.mark.parametrize('kind', ['CondInstMaskHead', 'BoxInstMaskHead', 'IterativeDecodeHead'])
def test_heads_without_a_number_of_classes(kind):
    name = 'decode_head' if kind == 'IterativeDecodeHead' else 'mask_head'
    model = ConfigDict({name: dict(type=f'mmdet.{kind}', inner=dict(num_classes=80))})
    set_classes(model, 3)
    assert 'num_classes' not in model[name] and model[name].inner.num_classes == 3


def test_a_single_channel_of_two_classes_goes():
    model = ConfigDict(
        decode_head=dict(type='FCNHead', num_classes=2, out_channels=1, threshold=0.3)
    )
    set_classes(model, 3)
    assert model.decode_head == dict(type='FCNHead', num_classes=3)
