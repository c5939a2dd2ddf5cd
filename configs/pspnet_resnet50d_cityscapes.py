"""PSPNet, ResNet-50-D at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/pspnet_resnet50d_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/pspnet_cityscapes.py', '_base_/backbones/resnet50d.py']
model = dict(backbone=_base_.backbone)
