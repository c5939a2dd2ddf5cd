"""DeepLabV3, ResNeSt-200 at output stride 8, on ADE20K: the authors' recipe.

Run:     mmresnest train configs/deeplabv3_resnest200_ade20k_encoding.py
Expect:  mIoU 48.36 (multi-scale and flip) on ADE20K val (PyTorch-Encoding model zoo, DeepLabV3
         S-200).
"""

_base_ = ['_base_/recipes/deeplabv3_encoding.py', '_base_/backbones/resnest200.py']
model = dict(backbone=_base_.backbone)
