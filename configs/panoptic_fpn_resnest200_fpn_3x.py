"""Panoptic FPN with a cascade, ResNeSt-200 on COCO: the authors' 3x recipe with tricks.

Run:     mmresnest train configs/panoptic_fpn_resnest200_fpn_3x.py
Expect:  PQ 47.90, box AP 51.00, mask AP 43.68 on val2017 (the authors' detectron2 fork, README,
         Panoptic FPN S-200, tricks 3x).
"""

_base_ = ['_base_/recipes/panoptic_fpn_cascade_3x.py', '_base_/backbones/resnest200.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
