# Panoptic FPN over the Cascade Mask R-CNN of the ResNeSt authors' recipe; a leaf gives the backbone.
_base_ = ['cascade_mask_rcnn_fpn.py', 'panoptic.py']
model = dict(test_cfg=_base_.panoptic_test, **_base_.panoptic)
