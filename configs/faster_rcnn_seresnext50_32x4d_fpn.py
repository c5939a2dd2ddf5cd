"""Faster R-CNN, FPN, SE-ResNeXt-50 32x4d on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/faster_rcnn_seresnext50_32x4d_fpn.py
Expect:  no published result.
"""
_base_ = [
    '_base_/detectors/faster_rcnn_fpn.py', '_base_/backbones/seresnext50_32x4d.py',
    '_base_/datasets/coco_detection.py', '_base_/schedules/coco_1x.py',
    '_base_/runtime/detection.py'
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector))
