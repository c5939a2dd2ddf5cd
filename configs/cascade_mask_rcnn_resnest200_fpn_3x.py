"""Cascade Mask R-CNN, FPN, ResNeSt-200 on COCO: the authors' 3x recipe with tricks.

Run:     mmresnest train configs/cascade_mask_rcnn_resnest200_fpn_3x.py
Expect:  box AP 50.54, mask AP 44.21 on val2017 (the authors' detectron2 fork, README, Cascade Mask
         R-CNN S-200, tricks 3x).
"""

_base_ = ['_base_/recipes/cascade_mask_rcnn_3x.py', '_base_/backbones/resnest200.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
