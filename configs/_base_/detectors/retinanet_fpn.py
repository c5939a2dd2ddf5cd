# RetinaNet with SyncBN in the FPN, as in the other detectors; a leaf gives the backbone.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', 'norms.py']
model = dict(backbone=dict(_delete_=True, **_base_.in_detector), neck=dict(norm_cfg=_base_.norm))
