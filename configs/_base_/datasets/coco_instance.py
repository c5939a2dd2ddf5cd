# COCO 2017 boxes and masks; in training the short side is one of 640, 672 .. 800.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', 'scales.py']
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    _base_.choice,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
