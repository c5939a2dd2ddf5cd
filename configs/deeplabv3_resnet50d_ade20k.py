"""DeepLabV3, ResNet-50-D at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/deeplabv3_resnet50d_ade20k.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3_ade20k.py', '_base_/backbones/resnet50d.py']
model = dict(backbone=_base_.backbone)
