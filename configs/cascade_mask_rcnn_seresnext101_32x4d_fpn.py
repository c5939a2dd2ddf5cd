"""Cascade Mask R-CNN, FPN, SE-ResNeXt-101 32x4d on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/cascade_mask_rcnn_seresnext101_32x4d_fpn.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/cascade_mask_rcnn.py', '_base_/backbones/seresnext101_32x4d.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
