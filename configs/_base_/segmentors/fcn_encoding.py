# FCN at output stride 8 with the head of PyTorch-Encoding; a leaf gives the backbone.
_base_ = ['fcn.py', 'encoding.py']
model = dict(
    decode_head=dict(num_convs=1, concat_input=False, **_base_.aligned),
    auxiliary_head=_base_.auxiliary,
    test_cfg=_base_.window,
)
