"""Mask R-CNN, FPN, ResNeSt-101 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/mask_rcnn_resnest101_fpn_mmdet.py
Expect:  box AP 45.2, mask AP 40.2 on val2017 (mmdet model zoo, ResNeSt).
Memory:  7.8 GB (mmdet model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/mask_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco/mask_rcnn_s101_fpn_syncbn-backbone%2Bhead_mstrain_1x_coco_20201005_215831-af60cdf9.pth
Start:   mmresnest train mask_rcnn_resnest101_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/mask_rcnn_mmdet.py', '_base_/backbones/resnest101.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
