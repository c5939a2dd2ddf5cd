"""Configs of mmdet pointed at data: of which task they are, and which annotations they read."""

import pytest

from mmresnest.config.inspect import dataset_configs, task_of
from mmresnest.config.load import load_config
from mmresnest.data.shapes.drawing import CLASSES
from mmresnest.engine.prepare import configure

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings('ignore')]

TASKS = {
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco': 'instance',  # with a head for both
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic': 'panoptic',
    'maskformer/maskformer_r50_ms-16xb1-75e_coco': 'panoptic',
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco': 'panoptic',
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance': 'instance',
    'htc/htc_r50_fpn_1x_coco': 'instance',
    'retinanet/retinanet_r50_fpn_1x_coco': 'detection',
}
READS = {
    'detection': ('mmdet.CocoDataset', 'train.json', 0),
    'instance': ('mmdet.CocoDataset', 'train.json', 0),
    'panoptic': ('mmdet.CocoPanopticDataset', 'panoptic_train.json', 1),  # with the background
}


@pytest.mark.parametrize('name, task', TASKS.items())
def test_annotations_are_those_of_the_task(name, task, shapes):
    assert task_of(load_config(f'mmdet::{name}')) == task
    cfg = configure(f'mmdet::{name}', data=str(shapes))
    type_, file, regions = READS[task]
    (leaf,) = dataset_configs(cfg.train_dataloader.dataset)
    assert (leaf.type, leaf.ann_file) == (type_, file)
    assert len(leaf.metainfo.classes) == len(CLASSES) + regions
    if 'panoptic_head' in cfg.model:
        head = cfg.model.panoptic_head
        assert (head.num_things_classes, head.num_stuff_classes) == (len(CLASSES), regions)
        assert len(head.loss_cls.class_weight) == len(leaf.metainfo.classes) + 1
