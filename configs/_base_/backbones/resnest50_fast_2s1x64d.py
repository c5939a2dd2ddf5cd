# resnest50_fast_2s1x64d with the pixel statistics of its authors' detectors (RGB). Written by tools/table.py.
backbone = dict(
    type='mmresnest.ResNeSt',
    arch='resnest50_fast_2s1x64d',
    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://resnest50_fast_2s1x64d'),
)
pixels = dict(mean=[123.68, 116.779, 103.939], std=[58.393, 57.12, 57.375])
