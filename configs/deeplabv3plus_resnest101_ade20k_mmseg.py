"""DeepLabV3+, ResNeSt-101 at output stride 8, on ADE20K: mmseg's own form of the network.

Run:     mmresnest train configs/deeplabv3plus_resnest101_ade20k_mmseg.py
Expect:  mIoU 46.47 (47.27 multi-scale and flip) on ADE20K val (mmseg model zoo, ResNeSt).
Memory:  16.2 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/deeplabv3plus_s101-d8_512x512_160k_ade20k/deeplabv3plus_s101-d8_512x512_160k_ade20k_20200807_144503-27b26226.pth
Start:   mmresnest train deeplabv3plus_resnest101_ade20k_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/deeplabv3plus_ade20k.py', '_base_/backbones/resnest101.py']
model = dict(backbone=dict(compat='mm', **_base_.backbone))
