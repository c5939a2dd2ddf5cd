"""Cascade R-CNN, FPN, ResNet-101-D on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/cascade_rcnn_resnet101d_fpn.py
Expect:  no published result for this recipe; the plain ResNet-101 has box AP 44.03 under it (the
         authors' detectron2 fork, README, Cascade R-CNN R-101).
"""

_base_ = ['_base_/recipes/cascade_rcnn.py', '_base_/backbones/resnet101d.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
