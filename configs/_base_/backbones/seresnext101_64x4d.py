# seresnext101_64x4d with ImageNet's pixel statistics (RGB). Written by tools/table.py.
backbone = dict(
    type='mmresnest.SEResNeXt',
    arch='seresnext101_64x4d',
    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://seresnext101_64x4d'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
