"""DeepLabV3+, ResNeSt-269 at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3plus_resnest269_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3plus_cityscapes.py', '_base_/backbones/resnest269.py']
model = dict(backbone=_base_.backbone)
