# legacy_seresnet101 with ImageNet's pixel statistics (RGB). Written by tools/table.py.
backbone = dict(
    type='mmresnest.SEResNet',
    arch='legacy_seresnet101',
    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://legacy_seresnet101'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
