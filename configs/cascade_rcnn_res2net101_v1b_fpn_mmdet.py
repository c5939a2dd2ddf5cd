"""Cascade R-CNN, FPN, Res2Net-101 v1b on COCO, 20e: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/cascade_rcnn_res2net101_v1b_fpn_mmdet.py
Expect:  box AP 45.7 on val2017 (mmdet model zoo, Res2Net).
Memory:  7.8 GB (mmdet model zoo, Res2Net)
Weights: https://download.openmmlab.com/mmdetection/v2.0/res2net/cascade_rcnn_r2_101_fpn_20e_coco/cascade_rcnn_r2_101_fpn_20e_coco-f4b7b7db.pth
Start:   mmresnest train cascade_rcnn_res2net101_v1b_fpn_mmdet --data DIR --load-from
"""

_base_ = [
    'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_20e_coco.py',
    '_base_/recipes/res2net_mmdet.py',
    '_base_/backbones/res2net101_v1b_26w_4s.py',
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector),
)
