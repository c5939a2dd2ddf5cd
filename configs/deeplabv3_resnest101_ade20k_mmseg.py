"""DeepLabV3, ResNeSt-101 at output stride 8, on ADE20K: mmseg's own form of the network.

Run:     mmresnest train configs/deeplabv3_resnest101_ade20k_mmseg.py
Expect:  mIoU 45.71 (46.59 multi-scale and flip) on ADE20K val (mmseg model zoo, ResNeSt).
Memory:  14.6 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/deeplabv3_s101-d8_512x512_160k_ade20k/deeplabv3_s101-d8_512x512_160k_ade20k_20200807_144503-17ecabe5.pth
Start:   mmresnest train deeplabv3_resnest101_ade20k_mmseg --data DIR --load-from
"""

_base_ = 'deeplabv3_resnest101_ade20k.py'
model = dict(backbone=dict(compat='mm'))
