"""PSPNet, SE-ResNeXt-50 32x4d at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/pspnet_seresnext50_32x4d_ade20k.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/pspnet_ade20k.py', '_base_/backbones/seresnext50_32x4d.py']
model = dict(backbone=_base_.backbone)
