# FCN on ADE20K by mmseg's recipe.
_base_ = [
    '../segmentors/fcn.py',
    '../datasets/ade20k.py',
    '../schedules/mmseg_160k.py',
    '../runtime/segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head,
    auxiliary_head=_base_.head)
