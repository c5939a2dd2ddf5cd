# Weights, gradients and momentum divided among the processes by DeepSpeed (ZeRO stage 3). A checkpoint
# is a folder that only DeepSpeed resumes from; zero_to_fp32.py beside it makes one file of it.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    # DeepSpeed has tried itself with Adam only, and asks to be told that SGD is meant.
    config=dict(zero_allow_untested_optimizer=True),
    # So that the best checkpoint is one whole file.
    zero_optimization=dict(stage=3, stage3_gather_16bit_weights_on_model_save=True),
)
