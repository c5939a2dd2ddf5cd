# What keeps a run safe (docs/safety.md), for the configs to take over: hooks, and a loop over epochs
# that can be taken up to the bit.
safety = dict(
    signals=dict(type='mmresnest.StopOnSignal'),
    numbers=dict(type='mmresnest.CheckNumbers'),
    images=dict(type='mmresnest.SkipBadImages'),
)
exact = dict(type='mmresnest.EpochBasedTrainLoop')
