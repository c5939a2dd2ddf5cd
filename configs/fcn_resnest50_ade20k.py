"""FCN, ResNeSt-50 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/fcn_resnest50_ade20k.py
Expect:  no published result for this recipe; see the config named _encoding.
"""

_base_ = ['_base_/recipes/fcn_ade20k.py', '_base_/backbones/resnest50.py']
model = dict(backbone=_base_.backbone)
