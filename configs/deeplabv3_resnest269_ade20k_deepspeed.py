"""DeepLabV3, ResNeSt-269 at output stride 8, on ADE20K: weights divided among the GPUs by DeepSpeed.

Run:     tools/dist_train.sh configs/deeplabv3_resnest269_ade20k_deepspeed.py 8
Expect:  no published result; the same steps as without: see the config not named _deepspeed.
"""

_base_ = ['deeplabv3_resnest269_ade20k.py', '_base_/strategies/deepspeed.py']
