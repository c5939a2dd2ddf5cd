"""Faster R-CNN, FPN, ResNeSt-101 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/faster_rcnn_resnest101_fpn.py
Expect:  box AP 44.72 on val2017 (the authors' detectron2 fork, README, Faster R-CNN S-101).
Start:   mmresnest train faster_rcnn_resnest101_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/faster_rcnn.py', '_base_/backbones/resnest101.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
