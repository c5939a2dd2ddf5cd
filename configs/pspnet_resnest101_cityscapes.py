"""PSPNet, ResNeSt-101 at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/pspnet_resnest101_cityscapes.py
Expect:  no published result for this recipe; without the stride-1 pools of the dilated stages mIoU
         78.57: see the config named _mmseg.
"""

_base_ = ['_base_/recipes/pspnet_cityscapes.py', '_base_/backbones/resnest101.py']
model = dict(backbone=_base_.backbone)
