"""DeepLabV3+, ResNeSt-200 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/deeplabv3plus_resnest200_ade20k.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3plus_ade20k.py', '_base_/backbones/resnest200.py']
model = dict(backbone=_base_.backbone)
