"""Trainings that are broken off in the middle of an iteration, for the tests of resuming."""

import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from helpers import noisy
from mmresnest.engine import checkpoints
from mmresnest.engine.hooks.signals import STOPPED, Stopped

KINDS = {
    'epochs': dict(epochs=3),
    'iterations': dict(iterations=17),
    'accumulating': dict(iterations=17, accumulate=3),
}


WORKERS = {
    'none': dict(workers=0),
    'anew each epoch': dict(workers=2),
    'persistent': dict(workers=2, persistent=True),
}


TOTAL = {'epochs': 18, 'iterations': 17, 'accumulating': 17}


@HOOKS.register_module()
class Interrupt(Hook):
    """Has the process send itself a signal in the middle of an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def broken_off(settings, iteration):
    """Trains until a signal comes in an iteration; the checkpoint that is left."""
    hooks = [*settings['custom_hooks'], dict(type='Interrupt', iteration=iteration)]
    with pytest.raises(Stopped) as stop:
        noisy.train(dict(settings, custom_hooks=hooks))
    assert stop.value.code == STOPPED == 75
    last = checkpoints.find_last(Path(settings['work_dir']))
    assert str(last) == stop.value.checkpoint
    return last
