# DeepLabV3+ on ADE20K by mmseg's recipe.
_base_ = [
    '../segmentors/deeplabv3plus.py',
    '../datasets/ade20k.py',
    '../schedules/mmseg_160k.py',
    '../runtime/segmentation.py',
]
model = _base_.of_data
