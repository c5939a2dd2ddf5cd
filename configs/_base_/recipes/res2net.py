# What the Res2Net authors' detectors (their fork of mmdetection) have in common: norms as they were
# trained on ImageNet.
in_detector = dict(frozen_stages=1, norm_eval=True)
