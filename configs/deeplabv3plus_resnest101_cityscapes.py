"""DeepLabV3+, ResNeSt-101 at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3plus_resnest101_cityscapes.py
Expect:  no published result for this recipe; without the stride-1 pools of the dilated stages mIoU
         79.62: see the config named _mmseg.
"""

_base_ = ['_base_/recipes/deeplabv3plus_cityscapes.py', '_base_/backbones/resnest101.py']
model = dict(backbone=_base_.backbone)
