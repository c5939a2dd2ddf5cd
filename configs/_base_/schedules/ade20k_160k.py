# 160k iterations at 16 images a batch, the schedule of mmseg's ResNeSt configs.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005)
optim_wrapper = dict(optimizer=optimizer)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='mIoU'))
auto_scale_lr = dict(enable=False, base_batch_size=16)
