"""Cascade R-CNN, FPN, ResNeSt-50 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/cascade_rcnn_resnest50_fpn_mmdet.py
Expect:  box AP 44.5 on val2017 (mmdet model zoo, ResNeSt).
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/cascade_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain-range_1x_coco/cascade_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain-range_1x_coco_20201122_213640-763cc7b5.pth
Start:   mmresnest train cascade_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/cascade_rcnn_mmdet.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
