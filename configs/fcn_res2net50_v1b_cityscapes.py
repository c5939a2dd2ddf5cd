"""FCN, Res2Net-50 v1b at output stride 8, on Cityscapes: mmseg's 80k schedule.

Run:     mmresnest train configs/fcn_res2net50_v1b_cityscapes.py
Expect:  no published result for this recipe.
"""

_base_ = ['_base_/recipes/fcn_cityscapes.py', '_base_/backbones/res2net50_v1b_26w_4s.py']
model = dict(backbone=_base_.backbone)
