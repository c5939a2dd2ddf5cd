# Weights, gradients and momentum divided among the processes, by torch alone (2.6 or newer).
# Checkpoints are whole files: test them, and resume from them, with or without this piece.
runner_type = 'FlexibleRunner'
strategy = dict(type='mmresnest.FSDPStrategy')
