# DeepLabV3 on ADE20K by the recipe of PyTorch-Encoding.
_base_ = [
    '../segmentors/deeplabv3_encoding.py',
    '../datasets/ade20k_encoding.py',
    '../schedules/encoding_180e.py',
    '../runtime/segmentation.py',
]
model = _base_.of_data
