"""Faster R-CNN, FPN, Res2Net-101 v1b on COCO, 2x: the recipe of mmdet's checkpoint.

Run:     mmresnest train configs/faster_rcnn_res2net101_v1b_fpn_mmdet.py
Expect:  box AP 43.0 on val2017 (mmdet model zoo, Res2Net).
Memory:  7.4 GB (mmdet model zoo, Res2Net)
Weights: https://download.openmmlab.com/mmdetection/v2.0/res2net/faster_rcnn_r2_101_fpn_2x_coco/faster_rcnn_r2_101_fpn_2x_coco-175f1da6.pth
Start:   mmresnest train faster_rcnn_res2net101_v1b_fpn_mmdet --data DIR --load-from
"""

_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    '_base_/recipes/res2net_mmdet.py',
    '_base_/backbones/res2net101_v1b_26w_4s.py',
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector),
)
