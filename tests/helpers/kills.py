"""What test_kills.py runs: trainings that are killed and taken up, again and again.

A process that has imported all forks one that trains and kills it after a random time, a third of
the time while it writes a checkpoint. It then looks at what is left, and forks the next one to go
on from there. A training that comes to its end is compared with one that was not touched.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from multiprocessing import get_context
from pathlib import Path

import torch

from helpers import noisy
from mmresnest.engine import checkpoints
from mmresnest.engine.prepare import resolve_checkpoint
from mmresnest.errors import UserError
from mmresnest.utils import files

ITERATIONS, INTERVAL, WIDTH = 120, 3, 200_000
LIFE = 0.3, 1.6  # s from a start to a kill


def config(folder):
    settings = noisy.config(
        folder,
        iterations=ITERATIONS,
        interval=INTERVAL,
        keep=2,
        model=dict(type='ToyModel', width=WIDTH),
        val_evaluator=None,
        val_dataloader=None,
        val_cfg=None,
        custom_hooks=[],
    )
    settings['optim_wrapper']['optimizer']['lr'] = 1e-7  # so wide, it would diverge
    return settings


def live(folder, done, saving):
    """Trains, as the command does with --resume if-any, and notes how far it is."""
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    class Note(Hook):
        priority = 'HIGHEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            done.value = runner.iter + 1

    write = files.write_whole

    def write_and_note(*arguments, **more):
        saving.value = 1
        try:
            return write(*arguments, **more)
        finally:
            saving.value = 0

    files.write_whole = write_and_note
    cfg = Config(config(folder))
    resolve_checkpoint(cfg, 'if-any')
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Note())
    runner.train()


def main():
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    noisy.train(config(folder / 'whole'))
    wanted = noisy.state(folder / 'whole' / f'iter_{ITERATIONS}.pth')
    context, draw = get_context('fork'), random.Random(0)
    found = dict(
        kills=0,
        while_saving=0,
        resumed=0,
        from_the_start=0,
        passed_over=0,
        lost=0,
        damaged=0,
        finished=0,
        different=[],
    )
    # Without locks: a process that is killed while it has one would keep it.
    done, saving = (context.Value('i', 0, lock=False) for _ in range(2))
    run = 0
    while found['kills'] < number or not found['finished']:
        place = folder / f'run_{run}'
        process = context.Process(target=live, args=(place, done, saving))
        process.start()
        kill_while_saving = found['kills'] % 3 == 0
        if found['kills'] == number:
            process.join()  # the last one comes to its end, to be compared
        time.sleep(draw.uniform(*LIFE))
        while kill_while_saving and process.is_alive() and not saving.value:
            pass
        time.sleep(draw.uniform(0, 0.01) if kill_while_saving else 0)
        busy = bool(saving.value)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        saving.value = 0
        if process.exitcode == 0:
            found['finished'] += 1
            found['different'] += noisy.same(wanted, noisy.state(place / f'iter_{ITERATIONS}.pth'))[
                :3
            ]
            run, done.value = run + 1, 0
            continue
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        found['kills'] += 1
        found['while_saving'] += busy
        passed = []
        left = checkpoints.find_last(place, passed.append)
        found['passed_over'] += len(passed)
        if left is None:
            found['from_the_start'] += 1
            at = 0
        else:
            found['resumed'] += 1
            found['damaged'] += bool(files.integrity_error(left))
            at = torch.load(left, weights_only=False)['meta']['iter']
        found['lost'] = max(found['lost'], done.value - at)
        done.value = at
    (folder / 'found.json').write_text(json.dumps(found))


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
