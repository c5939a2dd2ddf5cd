"""Faster R-CNN, FPN, ResNeSt-50 with deformable convolutions on COCO: the authors' 1x recipe.

Run:     mmresnest train configs/faster_rcnn_resnest50_fpn_dcn.py
Expect:  box AP 44.11 on val2017 (the authors' detectron2 fork, README, Faster R-CNN S-50-DCNv2).
"""

_base_ = [
    '_base_/recipes/faster_rcnn.py',
    '_base_/backbones/resnest50.py',
    '_base_/detectors/dcn.py',
]
model = dict(data_preprocessor=_base_.pixels, backbone=dict(**_base_.backbone, **_base_.dcn))
