# "3x": 36 epochs, the learning rate lowered after 240k and 255k of the 270k iterations of detectron2.
_base_ = 'coco_1x.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[32, 34], gamma=0.1),
]
train_cfg = dict(max_epochs=36)
