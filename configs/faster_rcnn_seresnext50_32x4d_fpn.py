"""Faster R-CNN, FPN, SE-ResNeXt-50 32x4d on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/faster_rcnn_seresnext50_32x4d_fpn.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/faster_rcnn.py', '_base_/backbones/seresnext50_32x4d.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
