"""Faster R-CNN, FPN, ResNeSt-50 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/faster_rcnn_resnest50_fpn.py
Expect:  box AP 42.33 on val2017 (the authors' detectron2 fork, README, Faster R-CNN S-50).
"""
_base_ = [
    '_base_/detectors/faster_rcnn_fpn.py', '_base_/backbones/resnest50.py',
    '_base_/datasets/coco_detection.py', '_base_/schedules/coco_1x.py',
    '_base_/runtime/detection.py'
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector))
