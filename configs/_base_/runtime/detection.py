# Logs, checkpoints and the best of them by box AP, and what keeps a run safe.
_base_ = ['mmdet::_base_/default_runtime.py', 'safety.py']
default_hooks = dict(
    **_base_.safety,
    checkpoint=dict(
        type='mmresnest.CheckpointHook', interval=1, max_keep_ckpts=3, save_best='coco/bbox_mAP'
    ),
)
