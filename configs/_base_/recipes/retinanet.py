# RetinaNet on COCO under the ResNeSt authors' 1x recipe, at half its rate, as usual for RetinaNet.
_base_ = [
    '../detectors/retinanet_fpn.py',
    '../datasets/coco_detection.py',
    '../schedules/coco_1x.py',
    '../runtime/detection.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
