"""FCN, ResNet-101-D at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/fcn_resnet101d_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/fcn_cityscapes.py', '_base_/backbones/resnet101d.py']
model = dict(backbone=_base_.backbone)
