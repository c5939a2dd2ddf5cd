# DeepLabV3 at output stride 8 with the head of PyTorch-Encoding; a leaf gives the backbone.
_base_ = ['deeplabv3.py', 'encoding.py']
custom_imports = dict(imports=['mmresnest.models.heads.aspp'], allow_failed_imports=False)
model = dict(
    decode_head=dict(
        type='mmresnest.EncodingASPPHead', channels=256, dilations=(12, 24, 36), **_base_.aligned
    ),
    auxiliary_head=_base_.auxiliary,
    test_cfg=_base_.window,
)
