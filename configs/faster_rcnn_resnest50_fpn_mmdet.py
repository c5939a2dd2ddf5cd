"""Faster R-CNN, FPN, ResNeSt-50 on COCO: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/faster_rcnn_resnest50_fpn_mmdet.py
Expect:  box AP 42.0 on val2017 (mmdet model zoo, ResNeSt).
Memory:  4.8 GB (mmdet model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmdetection/v2.0/resnest/faster_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain-range_1x_coco/faster_rcnn_s50_fpn_syncbn-backbone%2Bhead_mstrain-range_1x_coco_20200926_125502-20289c16.pth
Start:   mmresnest train faster_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/faster_rcnn_mmdet.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
