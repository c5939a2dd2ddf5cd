"""DeepLabV3, ResNeSt-101 at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/deeplabv3_resnest101_cityscapes.py
Expect:  no published result for this recipe; without the stride-1 pools of the dilated stages mIoU
         79.67: see the config named _mmseg.
Start:   mmresnest train deeplabv3_resnest101_cityscapes_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/deeplabv3_cityscapes.py', '_base_/backbones/resnest101.py']
model = dict(backbone=_base_.backbone)
