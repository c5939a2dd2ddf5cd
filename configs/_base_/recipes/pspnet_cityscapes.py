# PSPNet on Cityscapes by mmseg's recipe.
_base_ = [
    '../segmentors/pspnet.py',
    '../datasets/cityscapes.py',
    '../schedules/mmseg_80k.py',
    '../runtime/segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head,
    auxiliary_head=_base_.head)
