"""DeepLabV3+, ResNeSt-200 at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3plus_resnest200_cityscapes.py
Expect:  no published result for this recipe; the authors report mIoU 82.7 by a recipe whose code
         was not released (ResNeSt README).
"""

_base_ = ['_base_/recipes/deeplabv3plus_cityscapes.py', '_base_/backbones/resnest200.py']
model = dict(backbone=_base_.backbone)
