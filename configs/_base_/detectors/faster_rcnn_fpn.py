# Faster R-CNN as the ResNeSt authors train it: SyncBN in FPN and box head, 4 convolutions and 1
# fully connected layer in the box head. The leaf gives the backbone.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
norm = dict(type='SyncBN', requires_grad=True)
# Stem and first stage stay as they were trained, on ImageNet.
in_detector = dict(frozen_stages=1, norm_cfg=norm)
model = dict(
    neck=dict(norm_cfg=norm),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm)))
