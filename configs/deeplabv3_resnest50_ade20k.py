"""DeepLabV3, ResNeSt-50 at output stride 8, on ADE20K: mmseg's 160k schedule.

Run:     mmresnest train configs/deeplabv3_resnest50_ade20k.py
Expect:  no published result for this recipe; with ResNeSt-101 it gave mIoU 45.71 (46.59 with
         multi-scale and flip; mmseg model zoo, without the stride-1 pools of the dilated stages).
         The authors' own recipe gives S-50 45.12 with multi-scale and flip (PyTorch-Encoding).
"""
_base_ = [
    '_base_/segmentors/deeplabv3.py', '_base_/backbones/resnest50.py',
    '_base_/datasets/ade20k.py', '_base_/schedules/ade20k_160k.py',
    '_base_/runtime/segmentation.py'
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.pixels),
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.in_segmentor),
    decode_head=_base_.head,
    auxiliary_head=_base_.head)
