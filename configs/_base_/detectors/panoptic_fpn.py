# Panoptic FPN over the Mask R-CNN of the ResNeSt authors' recipe; a leaf gives the backbone.
_base_ = ['mask_rcnn_fpn.py', 'panoptic.py']
model = dict(test_cfg=_base_.panoptic_test, **_base_.panoptic)
