# ADE20K, 150 classes, crops of 512 x 512.
_base_ = 'mmseg::_base_/datasets/ade20k.py'
crop_size = (512, 512)
classes = dict(num_classes=150)
of_data = dict(data_preprocessor=dict(size=crop_size), decode_head=classes, auxiliary_head=classes)
