# resnest269 with the pixel statistics of its authors' detectors (RGB). Written by tools/table.py.
backbone = dict(
    type='mmresnest.ResNeSt',
    arch='resnest269',
    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://resnest269'),
)
pixels = dict(mean=[123.68, 116.779, 103.939], std=[58.393, 57.12, 57.375])
