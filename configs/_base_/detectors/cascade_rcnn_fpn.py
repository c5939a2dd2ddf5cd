# Cascade R-CNN as the ResNeSt authors train it; a leaf gives the backbone.
_base_ = ['mmdet::_base_/models/cascade-rcnn_r50_fpn.py', 'cascade.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.in_detector),
    neck=dict(norm_cfg=_base_.norm),
    rpn_head=_base_.rpn_head,
    roi_head=_base_.cascade,
    train_cfg=_base_.inside,
)
