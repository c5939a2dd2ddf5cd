# 160k iterations of 16 images, mmseg's schedule on ADE20K; the best checkpoint by mIoU.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='mIoU'))
auto_scale_lr = dict(enable=False, base_batch_size=16)
