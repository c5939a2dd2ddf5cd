"""What processes do for test_signals.py: trainings that wait until they are signalled.

    python signalled.py JOB [JOB ...]

A job is json: settings of noisy.config, and beside them ``wait``, an iteration, and ``resume``, a
checkpoint.  The training writes the number of its process to ``waits_RANK`` in its folder when it
is in that iteration, and stays there until a signal has come; if ``wait`` is negative, for ever.
Each of several jobs runs in a process of its own, which leads a group, writes to ``said`` beside
its folder, and what became of it to ``code``.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch.distributed as dist
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from helpers import noisy
from mmresnest.engine.distributed import leave_process_group
from mmresnest.engine.hooks.signals import StopOnSignal


@HOOKS.register_module()
class Wait(Hook):
    """Stays in an iteration until a signal has come."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 != abs(self.iteration):
            return
        [stop] = [hook for hook in runner.hooks if isinstance(hook, StopOnSignal)]
        Path(runner.work_dir, f'waits_{get_rank()}').write_text(str(os.getpid()))
        end = time.monotonic() + 60
        while time.monotonic() < end and (self.iteration < 0 or stop.received is None):
            time.sleep(0.02)


def train(folder, wait, resume='', **given):
    several = given.get('launcher') == 'pytorch'
    if several:
        dist.init_process_group('gloo')
        given['model_wrapper_cfg'] = dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
        )
    settings = noisy.config(Path(folder), **given)
    settings['custom_hooks'].append(dict(type='Wait', iteration=wait))
    try:
        noisy.train(settings, resume)
    finally:
        if several:
            leave_process_group()


def fork(job):
    """Runs a job in a process that need not import all anew."""
    beside = Path(job['folder']).parent
    number = os.fork()
    if number:
        return number, beside
    os.setsid()
    handle = os.open(beside / 'said', os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    train(**job)
    sys.exit()


def main():
    jobs = list(map(json.loads, sys.argv[1:]))
    if len(jobs) == 1:
        train(**jobs[0])
        return
    running = dict(map(fork, jobs))
    while running:
        number, status = os.wait()
        (running.pop(number) / 'code').write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == '__main__':
    main()
