"""DeepLabV3, ResNet-50-D at output stride 8, on ADE20K, under the recipe of the ResNeSt configs.

Run:     mmresnest train configs/deeplabv3_resnet50d_ade20k_encoding.py
Expect:  no published result for this network; the authors' Gluon baseline with ResNet-50 has mIoU
         42.1 (ResNeSt README).
"""

_base_ = ['_base_/recipes/deeplabv3_encoding.py', '_base_/backbones/resnet50d.py']
model = dict(backbone=_base_.backbone)
