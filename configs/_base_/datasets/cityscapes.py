# Cityscapes, 19 classes, crops of 512 x 1024.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'
crop_size = (512, 1024)
head = dict(num_classes=19)
