"""HTC, FPN, Res2Net-101 v1b on COCO, 20e: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/htc_res2net101_v1b_fpn_mmdet.py
Expect:  box AP 47.5, mask AP 41.6 on val2017 (mmdet model zoo, Res2Net).
Weights: https://download.openmmlab.com/mmdetection/v2.0/res2net/htc_r2_101_fpn_20e_coco/htc_r2_101_fpn_20e_coco-3a8d2112.pth
Start:   mmresnest train htc_res2net101_v1b_fpn_mmdet --data DIR --load-from
"""

_base_ = [
    'mmdet::htc/htc_r50_fpn_20e_coco.py',
    '_base_/recipes/res2net_mmdet.py',
    '_base_/backbones/res2net101_v1b_26w_4s.py',
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector),
)
