# DeepLabV3 on ADE20K by the recipe of PyTorch-Encoding.
_base_ = [
    '../segmentors/deeplabv3_encoding.py',
    '../datasets/ade20k_encoding.py',
    '../schedules/encoding_180e.py',
    '../runtime/segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head,
    auxiliary_head=_base_.head)
