# DeepLabV3+ on Cityscapes by mmseg's recipe.
_base_ = [
    '../segmentors/deeplabv3plus.py',
    '../datasets/cityscapes.py',
    '../schedules/mmseg_80k.py',
    '../runtime/segmentation.py',
]
model = _base_.of_data
