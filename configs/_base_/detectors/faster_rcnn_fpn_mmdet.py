# Faster R-CNN as in mmdet's model zoo of ResNeSt: no norm in the FPN; a leaf gives the backbone.
_base_ = 'faster_rcnn_fpn.py'
model = dict(neck=dict(norm_cfg=None))
