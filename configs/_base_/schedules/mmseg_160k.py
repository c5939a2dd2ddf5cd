# 160k iterations of 16 images, mmseg's schedule on ADE20K, and what keeps a run safe.
_base_ = ['mmseg::_base_/schedules/schedule_160k.py', '../runtime/safety.py']
train_cfg = dict(type='mmresnest.IterBasedTrainLoop')
default_hooks = dict(
    **_base_.safety,
    checkpoint=dict(type='mmresnest.CheckpointHook', max_keep_ckpts=3, save_best='mIoU'),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
