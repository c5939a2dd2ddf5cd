# Cityscapes, 19 classes, crops of 512 x 1024.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'
crop_size = (512, 1024)
classes = dict(num_classes=19)
of_data = dict(data_preprocessor=dict(size=crop_size), decode_head=classes, auxiliary_head=classes)
