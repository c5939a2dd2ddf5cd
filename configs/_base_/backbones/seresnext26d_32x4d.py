# seresnext26d_32x4d with ImageNet's pixel statistics (RGB). Written by tools/table.py.
backbone = dict(
    type='mmresnest.SEResNeXt',
    arch='seresnext26d_32x4d',
    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://seresnext26d_32x4d'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
