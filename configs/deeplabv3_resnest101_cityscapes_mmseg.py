"""DeepLabV3, ResNeSt-101 at output stride 8, on Cityscapes: mmseg's own form of the network.

Run:     mmresnest train configs/deeplabv3_resnest101_cityscapes_mmseg.py
Expect:  mIoU 79.67 (80.51 multi-scale and flip) on Cityscapes val (mmseg model zoo, ResNeSt).
Memory:  11.9 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/deeplabv3_s101-d8_512x1024_80k_cityscapes/deeplabv3_s101-d8_512x1024_80k_cityscapes_20200807_144429-b73c4270.pth
Start:   mmresnest train deeplabv3_resnest101_cityscapes_mmseg --data DIR --load-from
"""

_base_ = 'deeplabv3_resnest101_cityscapes.py'
model = dict(backbone=dict(compat='mm'))
