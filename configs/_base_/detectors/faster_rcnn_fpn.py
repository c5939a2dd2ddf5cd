# Faster R-CNN as the ResNeSt authors train it; a leaf gives the backbone.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'norms.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.in_detector),
    neck=dict(norm_cfg=_base_.norm),
    roi_head=dict(bbox_head=_base_.box_head),
)
