"""Cascade R-CNN, FPN, ResNeSt-200 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/cascade_rcnn_resnest200_fpn.py
Expect:  box AP 49.03 on val2017 (the authors' detectron2 fork, README, Cascade R-CNN S-200).
"""

_base_ = ['_base_/recipes/cascade_rcnn.py', '_base_/backbones/resnest200.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
