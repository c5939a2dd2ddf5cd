"""Cascade Mask R-CNN, FPN, ResNeSt-200 with DCN on COCO: the authors' 3x recipe with tricks.

Run:     mmresnest train configs/cascade_mask_rcnn_resnest200_fpn_dcn_3x.py
Expect:  box AP 50.91, mask AP 44.50 on val2017 (the authors' detectron2 fork, README, Cascade Mask
         R-CNN S-200-DCN, tricks 3x; with several scales on test-dev 53.30 and 47.10).
"""

_base_ = [
    '_base_/recipes/cascade_mask_rcnn_3x.py',
    '_base_/backbones/resnest200.py',
    '_base_/detectors/dcn.py',
]
model = dict(data_preprocessor=_base_.pixels, backbone=dict(**_base_.backbone, **_base_.dcn))
