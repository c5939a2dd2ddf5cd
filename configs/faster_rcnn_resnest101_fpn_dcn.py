"""Faster R-CNN, FPN, ResNeSt-101 with deformable convolutions on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/faster_rcnn_resnest101_fpn_dcn.py
Expect:  no published result.
"""

_base_ = [
    '_base_/recipes/faster_rcnn.py',
    '_base_/backbones/resnest101.py',
    '_base_/detectors/dcn.py',
]
model = dict(data_preprocessor=_base_.pixels, backbone=dict(**_base_.backbone, **_base_.dcn))
