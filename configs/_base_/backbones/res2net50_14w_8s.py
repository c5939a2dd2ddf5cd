# res2net50_14w_8s with ImageNet's pixel statistics (RGB). Written by tools/table.py.
backbone = dict(
    type='mmresnest.Res2Net',
    arch='res2net50_14w_8s',
    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://res2net50_14w_8s'),
)
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
