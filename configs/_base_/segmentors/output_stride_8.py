# The last two stages are dilated instead of strided. The first block of each keeps half its
# dilation, as in the published networks.
in_segmentor = dict(
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
    contract_dilation=True,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
)
