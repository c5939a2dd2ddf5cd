"""Mask R-CNN, FPN, ResNeSt-50 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/mask_rcnn_resnest50_fpn.py
Expect:  box AP 42.81, mask AP 38.14 on val2017 (the authors' detectron2 fork, README, Mask R-CNN
         S-50).
Start:   mmresnest train mask_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/mask_rcnn.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
