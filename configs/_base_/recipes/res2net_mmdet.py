# What mmdet's Res2Net checkpoints have in common: norms as they were trained on ImageNet, and no pool
# in the first block of stage 1.
in_detector = dict(frozen_stages=1, norm_eval=True, compat='mm')
