"""Mask R-CNN, FPN, ResNet-50-D on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/mask_rcnn_resnet50d_fpn.py
Expect:  no published result for this recipe; the plain ResNet-50 has box AP 39.97, mask AP 36.05
         under it (the authors' detectron2 fork, README, Mask R-CNN R-50).
"""

_base_ = ['_base_/recipes/mask_rcnn.py', '_base_/backbones/resnet50d.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
