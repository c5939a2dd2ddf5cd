"""Cascade Mask R-CNN, FPN, ResNeSt-50 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/cascade_mask_rcnn_resnest50_fpn_mmdet.py
Expect:  box AP 45.4, mask AP 39.5 on val2017 (mmdet model zoo, ResNeSt).
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/cascade_mask_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco/cascade_mask_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco_20201122_104428-99eca4c7.pth
Start:   mmresnest train cascade_mask_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/cascade_mask_rcnn_mmdet.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
