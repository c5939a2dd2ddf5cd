"""Cascade Mask R-CNN, FPN, ResNeSt-200 on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/cascade_mask_rcnn_resnest200_fpn.py
Expect:  no published result for this schedule; see the 3x config.
"""

_base_ = ['_base_/recipes/cascade_mask_rcnn.py', '_base_/backbones/resnest200.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
