"""What a process does for test_progress.py: trainings of a second as mmresnest train runs them.

    python watched.py FOLDER

To the end; broken off by an error, and taken up; of epochs, and ended by Ctrl-C.  It prints what
each has left, after its name.
"""

import hashlib
import os
import signal
import sys
import threading
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS
from mmengine.runner import Runner

from helpers import noisy
from mmresnest.engine.train import release_on_exit, show_progress
from mmresnest.utils import console

console.REFRESH = 0.0  # every step is drawn


@METRICS.register_module()
class Named(noisy.ToyMetric):
    """A score that a run is judged by."""

    def compute_metrics(self, results):
        return dict(mIoU=abs(super().compute_metrics(results)['mean']))


@HOOKS.register_module()
class AtIteration(Hook):
    """Prints, and then has its way, behind an iteration."""

    def __init__(self, number, act):
        self.number, self.act = number, act

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.number:
            sys.stdout.write('printed amid ')
            sys.stdout.write('an iteration\n')
            sys.stderr.write('to stderr')
            runner.logger.warning('a long line ' + '*' * 300 + ' its end')
            if self.act == 'fail':
                raise ZeroDivisionError
            if self.act == 'stop':
                os.kill(os.getpid(), signal.SIGINT)


def train(folder: Path, act: str, resume: str = '', **given) -> str:
    settings = dict(
        noisy.config(folder, **given),
        val_evaluator=dict(type='Named'),
        log_level='INFO',
        experiment_name=folder.name + act + resume,
    )
    settings['custom_hooks'] = [dict(type='AtIteration', number=7, act=act)]
    if resume:
        settings.update(resume=True, load_from=str(folder / resume))
    streams = sys.stdout, sys.stderr
    runner = Runner.from_cfg(settings)
    show_progress(runner, progress=True)
    how = 'ended'
    try:
        with release_on_exit(runner):
            runner.train()
    except (ZeroDivisionError, SystemExit) as error:
        how = type(error).__name__
    assert (sys.stdout, sys.stderr) == streams and threading.active_count() == 1
    left = b''.join(weight.detach().numpy().tobytes() for weight in runner.model.parameters())
    return f'{how} {hashlib.sha256(left).hexdigest()[:16]}'


def main(folder: Path) -> None:
    for name, given in (
        ('whole', dict(folder=folder / 'a', act='', iterations=10)),
        ('failed', dict(folder=folder / 'b', act='fail', iterations=10)),
        ('resumed', dict(folder=folder / 'b', act='', iterations=10, resume='iter_6.pth')),
        ('epochs', dict(folder=folder / 'c', act='stop', epochs=2)),
    ):
        sys.stdout.write(f'begins {name}\n')
        sys.stdout.write(f'result {name} {train(**given)}\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
