"""FCN, ResNeSt-101 at output stride 8, on ADE20K: mmseg's own form of the network.

Run:     mmresnest train configs/fcn_resnest101_ade20k_mmseg.py
Expect:  mIoU 45.62 (46.16 multi-scale and flip) on ADE20K val (mmseg model zoo, ResNeSt).
Memory:  14.2 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/fcn_s101-d8_512x512_160k_ade20k/fcn_s101-d8_512x512_160k_ade20k_20200807_145416-d3160329.pth
Start:   mmresnest train fcn_resnest101_ade20k_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/fcn_ade20k.py', '_base_/backbones/resnest101.py']
model = dict(backbone=dict(compat='mm', **_base_.backbone))
