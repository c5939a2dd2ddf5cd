# Panoptic FPN with a cascade on COCO by the ResNeSt authors' "3x with tricks".
_base_ = [
    '../detectors/panoptic_fpn_cascade.py',
    '../datasets/coco_panoptic_3x.py',
    '../schedules/coco_3x.py',
    '../runtime/panoptic.py',
]
model = dict(roi_head=dict(mask_head=dict(num_convs=8)))
