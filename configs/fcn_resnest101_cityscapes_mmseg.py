"""FCN, ResNeSt-101 at output stride 8, on Cityscapes: mmseg's own form of the network.

Run:     mmresnest train configs/fcn_resnest101_cityscapes_mmseg.py
Expect:  mIoU 77.56 (78.98 multi-scale and flip) on Cityscapes val (mmseg model zoo, ResNeSt).
Memory:  11.4 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/fcn_s101-d8_512x1024_80k_cityscapes/fcn_s101-d8_512x1024_80k_cityscapes_20200807_140631-f8d155b3.pth
Start:   mmresnest train fcn_resnest101_cityscapes_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/fcn_cityscapes.py', '_base_/backbones/resnest101.py']
model = dict(backbone=dict(compat='mm', **_base_.backbone))
