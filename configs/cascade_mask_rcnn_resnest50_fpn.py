"""Cascade Mask R-CNN, FPN, ResNeSt-50 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/cascade_mask_rcnn_resnest50_fpn.py
Expect:  box AP 46.19, mask AP 39.55 on val2017 (the authors' detectron2 fork, README, Cascade Mask
         R-CNN S-50).
Start:   mmresnest train cascade_mask_rcnn_resnest50_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/cascade_mask_rcnn.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
