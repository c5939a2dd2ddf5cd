"""HTC, FPN, Res2Net-101 v1b on COCO, 20 epochs, the network as published.

Run:     mmresnest train configs/htc_res2net101_v1b_fpn.py
Expect:  box AP 47.5, mask AP 41.3 on val2017 (the Res2Net authors' mmdetection fork, README, HTC
         R2-101).
Start:   mmresnest train htc_res2net101_v1b_fpn_mmdet --data DIR --load-from
"""

_base_ = [
    'mmdet::htc/htc_r50_fpn_20e_coco.py',
    '_base_/recipes/res2net.py',
    '_base_/backbones/res2net101_v1b_26w_4s.py',
]
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_detector),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
