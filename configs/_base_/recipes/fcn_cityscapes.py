# FCN on Cityscapes by mmseg's recipe.
_base_ = [
    '../segmentors/fcn.py',
    '../datasets/cityscapes.py',
    '../schedules/mmseg_80k.py',
    '../runtime/segmentation.py',
]
model = _base_.of_data
