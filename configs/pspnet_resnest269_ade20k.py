"""PSPNet, ResNeSt-269 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/pspnet_resnest269_ade20k.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/pspnet_ade20k.py', '_base_/backbones/resnest269.py']
model = dict(backbone=_base_.backbone)
