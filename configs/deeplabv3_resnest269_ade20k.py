"""DeepLabV3, ResNeSt-269 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/deeplabv3_resnest269_ade20k.py
Expect:  no published result for this recipe; see the config named _encoding.
"""

_base_ = ['_base_/recipes/deeplabv3_ade20k.py', '_base_/backbones/resnest269.py']
model = dict(backbone=_base_.backbone)
