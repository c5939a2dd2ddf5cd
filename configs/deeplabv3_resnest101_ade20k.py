"""DeepLabV3, ResNeSt-101 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/deeplabv3_resnest101_ade20k.py
Expect:  no published result for this recipe; without the stride-1 pools of the dilated stages mIoU
         45.71: see the config named _mmseg.
Start:   mmresnest train deeplabv3_resnest101_ade20k_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/deeplabv3_ade20k.py', '_base_/backbones/resnest101.py']
model = dict(backbone=_base_.backbone)
