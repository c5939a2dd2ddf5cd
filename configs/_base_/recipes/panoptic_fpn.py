# Panoptic FPN on COCO under the ResNeSt authors' 1x recipe (detectron2).
_base_ = [
    '../detectors/panoptic_fpn.py',
    '../datasets/coco_panoptic.py',
    '../schedules/coco_1x.py',
    '../runtime/panoptic.py',
]
