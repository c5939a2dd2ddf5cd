"""DeepLabV3, ResNet-101-D at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3_resnet101d_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3_cityscapes.py', '_base_/backbones/resnet101d.py']
model = dict(backbone=_base_.backbone)
