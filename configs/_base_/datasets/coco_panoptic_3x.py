# COCO 2017 things and stuff; in training a short side of 400..1000, a long one of at most 1440, a crop.
_base_ = ['mmdet::_base_/datasets/coco_panoptic.py', 'scales.py']
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadPanopticAnnotations', backend_args=None),
    dict(type='RandomResize', scale=[(1440, 400), (1440, 1000)], keep_ratio=True),
    _base_.crop,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
