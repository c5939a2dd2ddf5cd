# Cascade Mask R-CNN as in mmdet's model zoo of ResNeSt: mmdet's own losses, SyncBN in backbone and heads,
# no norm in the FPN; a leaf gives the backbone.
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', 'norms.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.in_detector),
    roi_head=dict(
        mask_head=dict(norm_cfg=_base_.norm),
        bbox_head=[dict(head, **_base_.box_head) for head in _base_.model.roi_head.bbox_head],
    ),
)
