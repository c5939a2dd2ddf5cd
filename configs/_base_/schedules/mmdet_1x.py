# mmdet's "1x" of 12 epochs, by a loop that can be taken up to the bit.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'
train_cfg = dict(type='mmresnest.EpochBasedTrainLoop')
