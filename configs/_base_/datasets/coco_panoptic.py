# COCO 2017 things and stuff; in training the short side is one of 640, 672 .. 800.
_base_ = ['mmdet::_base_/datasets/coco_panoptic.py', 'scales.py']
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadPanopticAnnotations', backend_args=None),
    _base_.choice,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
