"""Faster R-CNN, FPN, ResNeSt-50 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/faster_rcnn_resnest50_fpn.py
Expect:  box AP 42.33 on val2017 (the authors' detectron2 fork, README, Faster R-CNN S-50).
Start:   mmresnest train faster_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/faster_rcnn.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
