"""Cascade R-CNN, FPN, ResNeSt-101 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/cascade_rcnn_resnest101_fpn.py
Expect:  box AP 47.50 on val2017 (the authors' detectron2 fork, README, Cascade R-CNN S-101).
Start:   mmresnest train cascade_rcnn_resnest101_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/cascade_rcnn.py', '_base_/backbones/resnest101.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
