# PyTorch-Encoding on ADE20K: 180 epochs of 1263 iterations of 16 images (20,210 pictures), a
# polynomial decay to zero, heads at ten times the rate of the backbone.
_base_ = 'mmseg_160k.py'
iterations = 180 * 1263
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.004, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys=dict(decode_head=dict(lr_mult=10.0), auxiliary_head=dict(lr_mult=10.0))
    ),
)
param_scheduler = [
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=iterations, by_epoch=False)
]
train_cfg = dict(max_iters=iterations, val_interval=20 * 1263)
default_hooks = dict(checkpoint=dict(interval=20 * 1263))
