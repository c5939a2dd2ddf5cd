"""Faster R-CNN, FPN, ResNeSt-101 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/faster_rcnn_resnest101_fpn_mmdet.py
Expect:  box AP 44.5 on val2017 (mmdet model zoo, ResNeSt).
Memory:  7.1 GB (mmdet model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/faster_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain-range_1x_coco/faster_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain-range_1x_coco_20201006_021058-421517f1.pth
Start:   mmresnest train faster_rcnn_resnest101_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/faster_rcnn_mmdet.py', '_base_/backbones/resnest101.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
