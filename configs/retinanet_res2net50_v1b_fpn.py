"""RetinaNet, FPN, Res2Net-50 v1b on COCO, 1x.

Run:     mmresnest train configs/retinanet_res2net50_v1b_fpn.py
Expect:  no published result.
"""

_base_ = ['_base_/recipes/retinanet.py', '_base_/backbones/res2net50_v1b_26w_4s.py']
model = dict(data_preprocessor=_base_.pixels, backbone=_base_.backbone)
