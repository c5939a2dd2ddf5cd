"""What two processes do for test_exact_resume.py: trainings whole, broken off and taken up."""

import json
import random
import sys
from pathlib import Path

import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from helpers import noisy
from helpers.breaking import KINDS, TOTAL, WORKERS, broken_off
from mmresnest.engine.distributed import leave_process_group
from mmresnest.errors import UserError


@HOOKS.register_module()
class Fail(Hook):
    """Has the first process fail at what only it does."""

    def before_save_checkpoint(self, runner, checkpoint):
        raise RuntimeError('of the first process')


SHORT = {('epochs', 'none'), ('accumulating', 'anew each epoch')}
"""Unless all kinds are asked for: one process takes each kind with each way of loading."""


def failure_of_one(folder, more):
    """What each process raises where one of them fails to save: none may wait for it."""
    settings = noisy.config(folder, iterations=3, **more)
    try:
        noisy.train(dict(settings, custom_hooks=[dict(type='Fail')]))
    except (RuntimeError, UserError) as error:
        said = [None, None]
        dist.all_gather_object(said, f'{type(error).__name__}: {error}')
        return said
    return []


def main():
    folder, points, kinds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    dist.init_process_group('gloo')
    more = dict(
        launcher='pytorch',
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
        ),
    )
    found = {}
    for kind in kinds:
        for workers in WORKERS:
            if kinds != list(KINDS) and (kind, workers) not in SHORT:
                continue
            total = TOTAL[kind] // (2 if kind == 'epochs' else 1)  # each has half the data
            given = dict(KINDS[kind], **WORKERS[workers], interval=total, **more)
            place = folder / f'{kind} {workers}'
            noisy.train(noisy.config(place / 'whole', **given))
            for iteration in random.Random(f'{kind} {workers} two').sample(range(1, total), points):
                broken = place / f'broken_{iteration}'
                # Only the second process is told to stop.
                told = iteration if dist.get_rank() else 0
                left = broken_off(noisy.config(broken, **given), told)
                noisy.train(noisy.config(broken, **given), resume=str(left))
                dist.barrier()
                if dist.get_rank() == 0:
                    states = [
                        noisy.state(place / name / f'iter_{total}.pth')
                        for name in ('whole', broken.name)
                    ]
                    found[f'{kind} {workers} {iteration}'] = noisy.same(*states)
    found['failure'] = failure_of_one(folder / 'failure', more)
    if dist.get_rank() == 0:
        (folder / 'found.json').write_text(json.dumps(found))
    leave_process_group()


if __name__ == '__main__':
    main()
