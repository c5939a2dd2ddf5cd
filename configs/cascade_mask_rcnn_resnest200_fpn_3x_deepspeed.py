"""Cascade Mask R-CNN, FPN, ResNeSt-200 on COCO, 3x: weights divided among the GPUs by DeepSpeed.

Run:     tools/dist_train.sh configs/cascade_mask_rcnn_resnest200_fpn_3x_deepspeed.py 8
Expect:  no published result; the same steps as without: see the config not named _deepspeed.
"""

_base_ = ['cascade_mask_rcnn_resnest200_fpn_3x.py', '_base_/strategies/deepspeed.py']
