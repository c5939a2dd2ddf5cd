"""FCN, Res2Net-50 v1b at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/fcn_res2net50_v1b_ade20k.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/fcn_ade20k.py', '_base_/backbones/res2net50_v1b_26w_4s.py']
model = dict(backbone=_base_.backbone)
