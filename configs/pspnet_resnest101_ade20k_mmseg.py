"""PSPNet, ResNeSt-101 at output stride 8, on ADE20K: mmseg's own form of the network.

Run:     mmresnest train configs/pspnet_resnest101_ade20k_mmseg.py
Expect:  mIoU 45.44 (46.28 multi-scale and flip) on ADE20K val (mmseg model zoo, ResNeSt).
Memory:  14.2 GB (mmseg model zoo, ResNeSt)
Weights: https://download.openmmlab.com/mmsegmentation/v0.5/resnest/pspnet_s101-d8_512x512_160k_ade20k/pspnet_s101-d8_512x512_160k_ade20k_20200807_145416-a6daa92a.pth
Start:   mmresnest train pspnet_resnest101_ade20k_mmseg --data DIR --load-from
"""

_base_ = ['_base_/recipes/pspnet_ade20k.py', '_base_/backbones/resnest101.py']
model = dict(backbone=dict(compat='mm', **_base_.backbone))
