"""DeepLabV3, ResNeSt-50 at output stride 8, on ADE20K: the authors' recipe.

Run:     mmresnest train configs/deeplabv3_resnest50_ade20k_encoding.py
Expect:  mIoU 45.12 (multi-scale and flip) on ADE20K val (PyTorch-Encoding model zoo, DeepLabV3
         S-50).
"""

_base_ = ['_base_/recipes/deeplabv3_encoding.py', '_base_/backbones/resnest50.py']
model = dict(backbone=_base_.backbone)
