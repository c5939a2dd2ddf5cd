# Cascade Mask R-CNN on COCO by the ResNeSt authors' "3x with tricks": 8 convolutions in the mask head.
_base_ = [
    '../detectors/cascade_mask_rcnn_fpn.py',
    '../datasets/coco_instance_3x.py',
    '../schedules/coco_3x.py',
    '../runtime/detection.py',
]
model = dict(roi_head=dict(mask_head=dict(num_convs=8)))
