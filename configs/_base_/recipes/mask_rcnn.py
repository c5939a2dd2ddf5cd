# Mask R-CNN on COCO by the ResNeSt authors' 1x recipe (detectron2).
_base_ = [
    '../detectors/mask_rcnn_fpn.py',
    '../datasets/coco_instance.py',
    '../schedules/coco_1x.py',
    '../runtime/detection.py',
]
