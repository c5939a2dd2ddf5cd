# COCO 2017 boxes and masks; in training a short side of 640..864, a long one of at most 1440, a crop.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', 'scales.py']
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='RandomResize', scale=[(1440, 640), (1440, 864)], keep_ratio=True),
    _base_.crop,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
