"""DeepLabV3+, ResNeSt-101 at output stride 8, on Cityscapes: mmseg's own form of the network.

Run:     mmresnest train configs/deeplabv3plus_resnest101_cityscapes_mmseg.py
Expect:  mIoU 79.62 (80.27 multi-scale and flip) on Cityscapes val (mmseg model zoo, ResNeSt).
Memory:  13.2 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/deeplabv3plus_s101-d8_512x1024_80k_cityscapes/deeplabv3plus_s101-d8_512x1024_80k_cityscapes_20200807_144429-1239eb43.pth
Start:   mmresnest train deeplabv3plus_resnest101_cityscapes_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/deeplabv3plus_cityscapes.py', '_base_/backbones/resnest101.py']
model = dict(backbone=dict(compat='mm', **_base_.backbone))
