# "1x": 12 epochs at 16 images a batch, as many images as the 90k iterations of detectron2.
# Norms are not decayed (WEIGHT_DECAY_NORM 0.0 of the ResNeSt authors' recipe), and their statistics
# are measured anew before every evaluation (PRECISE_BN, 200 iterations).
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='mmresnest.PreciseBN', num_iters=200)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
