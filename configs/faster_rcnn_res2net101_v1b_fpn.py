"""Faster R-CNN, FPN, Res2Net-101 v1b on COCO, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/faster_rcnn_res2net101_v1b_fpn.py
Expect:  no published result for this recipe; see the config named _mmdet.
Start:   mmresnest train faster_rcnn_res2net101_v1b_fpn_mmdet --data DIR --load-from
"""

_base_ = ['_base_/recipes/faster_rcnn.py', '_base_/backbones/res2net101_v1b_26w_4s.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
