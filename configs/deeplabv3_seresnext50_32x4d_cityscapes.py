"""DeepLabV3, SE-ResNeXt-50 32x4d at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3_seresnext50_32x4d_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3_cityscapes.py', '_base_/backbones/seresnext50_32x4d.py']
model = dict(backbone=_base_.backbone)
