# SyncBN wherever the ResNeSt authors have it in a detector: 4 convolutions and 1 fully connected
# layer make their box head. Stem and first stage stay as they were trained, on ImageNet.
norm = dict(type='SyncBN', requires_grad=True)
in_detector = dict(frozen_stages=1, norm_cfg=norm)
box_head = dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm)
