# DeepLabV3 at output stride 8 as mmseg builds it, over a backbone that the leaf gives.
_base_ = 'mmseg::_base_/models/deeplabv3_r50-d8.py'
# The first block of a dilated stage keeps half its dilation, as in the published networks.
in_segmentor = dict(
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
    contract_dilation=True,
    norm_cfg=dict(type='SyncBN', requires_grad=True))
# mmseg's base still names the weights of the backbone that was replaced.
model = dict(pretrained=None)
