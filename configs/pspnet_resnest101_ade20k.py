"""PSPNet, ResNeSt-101 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/pspnet_resnest101_ade20k.py
Expect:  no published result for this recipe; without the stride-1 pools of the dilated stages mIoU
         45.44: see the config named _mmseg.
"""

_base_ = ['_base_/recipes/pspnet_ade20k.py', '_base_/backbones/resnest101.py']
model = dict(backbone=_base_.backbone)
