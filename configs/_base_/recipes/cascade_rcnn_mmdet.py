# Cascade R-CNN on COCO by the recipe of mmdet's ResNeSt checkpoints.
_base_ = [
    '../detectors/cascade_rcnn_fpn_mmdet.py',
    '../datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../runtime/detection.py',
]
