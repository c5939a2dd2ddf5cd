# Logs, checkpoints and the best of them by panoptic quality.
_base_ = 'detection.py'
default_hooks = dict(checkpoint=dict(save_best='coco_panoptic/PQ', rule='greater'))
