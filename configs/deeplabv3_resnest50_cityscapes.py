"""DeepLabV3, ResNeSt-50 at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3_resnest50_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3_cityscapes.py', '_base_/backbones/resnest50.py']
model = dict(backbone=_base_.backbone)
