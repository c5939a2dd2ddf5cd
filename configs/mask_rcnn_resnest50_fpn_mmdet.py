"""Mask R-CNN, FPN, ResNeSt-50 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/mask_rcnn_resnest50_fpn_mmdet.py
Expect:  box AP 42.6, mask AP 38.1 on val2017 (mmdet model zoo, ResNeSt).
Memory:  5.5 GB (mmdet model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/mask_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco/mask_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco_20200926_125503-8a2c3d47.pth
Start:   mmresnest train mask_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/mask_rcnn_mmdet.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
