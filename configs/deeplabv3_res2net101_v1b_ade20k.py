"""DeepLabV3, Res2Net-101 v1b at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/deeplabv3_res2net101_v1b_ade20k.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/deeplabv3_ade20k.py', '_base_/backbones/res2net101_v1b_26w_4s.py']
model = dict(backbone=_base_.backbone)
