"""RetinaNet, FPN, ResNeSt-50 on COCO, 1x.

Run:     mmresnest train configs/retinanet_resnest50_fpn.py
Expect:  no published result.
"""

_base_ = ['_base_/recipes/retinanet.py', '_base_/backbones/resnest50.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
