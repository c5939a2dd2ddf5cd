"""RetinaNet, FPN, SE-ResNeXt-50 32x4d on COCO, 1x.

Run:     mmresnest train configs/retinanet_seresnext50_32x4d_fpn.py
Expect:  no published result.
"""

_base_ = ['_base_/recipes/retinanet.py', '_base_/backbones/seresnext50_32x4d.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
