"""FCN, ResNeSt-50 at output stride 8, on ADE20K: the authors' recipe.

Run:     mmresnest train configs/fcn_resnest50_ade20k_encoding.py
Expect:  mIoU 42.94 (multi-scale and flip) on ADE20K val (PyTorch-Encoding model zoo, FCN S-50).
"""

_base_ = ['_base_/recipes/fcn_encoding.py', '_base_/backbones/resnest50.py']
model = dict(backbone=_base_.backbone)
