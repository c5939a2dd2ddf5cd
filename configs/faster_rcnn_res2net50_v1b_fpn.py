"""Faster R-CNN, FPN, Res2Net-50 v1b on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/faster_rcnn_res2net50_v1b_fpn.py
Expect:  no published result for this recipe.
"""
_base_ = [
    '_base_/detectors/faster_rcnn_fpn.py', '_base_/backbones/res2net50_v1b_26w_4s.py',
    '_base_/datasets/coco_detection.py', '_base_/schedules/coco_1x.py',
    '_base_/runtime/detection.py'
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector))
