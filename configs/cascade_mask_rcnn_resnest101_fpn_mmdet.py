"""Cascade Mask R-CNN, FPN, ResNeSt-101 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/cascade_mask_rcnn_resnest101_fpn_mmdet.py
Expect:  box AP 47.7, mask AP 41.4 on val2017 (mmdet model zoo, ResNeSt).
Memory:  10.5 GB (mmdet model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/cascade_mask_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco/cascade_mask_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco_20201005_113243-42607475.pth
Start:   mmresnest train cascade_mask_rcnn_resnest101_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/cascade_mask_rcnn_mmdet.py', '_base_/backbones/resnest101.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
