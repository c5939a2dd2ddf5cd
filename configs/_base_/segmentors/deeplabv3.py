# DeepLabV3 at output stride 8 as mmseg builds it; a leaf gives the backbone.
_base_ = ['mmseg::_base_/models/deeplabv3_r50-d8.py', 'output_stride_8.py']
model = dict(pretrained=None, backbone=dict(_delete_=True, **_base_.in_segmentor))
