"""Stop a run by a signal: from Ctrl-C, from a scheduler, from a machine that goes down.

    default_hooks = dict(signals=dict(type='mmresnest.StopOnSignal'))

It saves after the current iteration and ends with status 75, which in sysexits.h means: try again.
``--resume`` continues from there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import all_reduce, barrier, get_rank, is_distributed, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import FUNCTIONS as ROOT_FUNCTIONS
from torch.utils.data import get_worker_info

from ...errors import ArgumentError, nearest
from ...registry import FUNCTIONS, HOOKS
from ...utils.files import write_whole
from .arguments import check_whole_number

STOPPED = 75  # EX_TEMPFAIL
SIGNALS = ('SIGTERM', 'SIGINT', 'SIGUSR1')
# Seconds in which further signals count as the same one. GNU timeout, and srun, signal both a
# process and its group; torchrun and srun forward to all processes what these have received.
GRACE, GRACE_OF_SEVERAL = 1.0, 5.0


class Stopped(SystemExit):
    """A run was stopped by a signal.

    Attributes:
        checkpoint: from which to resume.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(STOPPED)
        self.checkpoint = checkpoint


@HOOKS.register_module()
class StopOnSignal(Hook):
    """Save and end, on all processes together, when one of them gets a signal.

    A second signal, more than a second after the first, ends the process at once; of several
    processes, one after more than five, since launchers hand on what all have got already.

    In a validation the process ends at once if the state is saved already, as it is where each
    epoch is; else a single process saves it, and several go on to their next iteration.  It listens
    from the first iteration to the end of the training, and in validations after that.

    Args:
        signals: names of the signals; SIGUSR1 is what Slurm is asked to send some time before the
            end (``sbatch --signal=USR1@120``).
        interval: iterations between two exchanges among processes; 1 for one process, and 10 by
            default for several on GPUs, where each would have to wait for its GPU.

    Raises:
        ArgumentError: no such signal, or an interval below 1.
    """

    priority = 'LOWEST'  # behind CheckpointHook, which may just have saved

    def __init__(self, signals: Sequence[str] = SIGNALS, interval: int | None = None) -> None:
        for name in signals:
            if not hasattr(signal, name):
                legal = [one.name for one in signal.Signals]
                raise ArgumentError(
                    f'StopOnSignal: signals={tuple(signals)} has {name!r}; {nearest(name, legal)}'
                )
        check_whole_number(self, 'interval', interval, none='None')
        self.signals = [signal.Signals[name] for name in signals]
        self.interval = interval
        self.received: signal.Signals | None = None
        self.since = 0.0
        self.before: dict[signal.Signals, Any] = {}
        self.listener = 0  # the process; one that it forks has its handlers, too
        self.trained = False

    def before_train(self, runner: Any) -> None:
        """Listen to signals, until the end of the training."""
        self.received, self.trained = None, False
        if not self._install_handlers():
            runner.logger.warning(
                'this training does not run in the main thread, where signals '
                'arrive: one that ends it will not save'
            )
            return
        for split, loop in (('train', runner.train_loop), ('val', runner.val_loop)):
            loader: Any = getattr(loop, 'dataloader', None)
            init = getattr(loader, 'worker_init_fn', None)
            if getattr(loader, 'num_workers', 0) and getattr(init, 'func', None) is not init_worker:
                runner.logger.warning(
                    f'StopOnSignal: a signal to all processes ends the workers of the '
                    f'{split}_dataloader; set {split}_dataloader.worker_init_fn='
                    "dict(type='mmresnest.init_worker')"
                )

    def after_train(self, runner: Any) -> None:
        """Restore the handlers of signals."""
        self.trained = True
        self.restore()

    def before_val(self, runner: Any) -> None:
        """Listen again if the last state of a training is scored after its end."""
        if self.trained:
            self._install_handlers()

    def after_val(self, runner: Any) -> None:
        """Restore the handlers of signals."""
        if self.trained:
            self.restore()

    def _install_handlers(self) -> bool:
        self.restore()
        self.listener = os.getpid()
        try:
            for one in self.signals:
                self.before[one] = signal.signal(one, self._handle_signal)
        except ValueError:  # Python lets the main thread listen, and no other
            return False
        return True

    def restore(self) -> None:
        """Restore the handlers of signals, also where a training ended by an error."""
        for one, handler in self.before.items():
            # None is a handler that was not set from Python, which cannot be set again.
            signal.signal(one, signal.SIG_DFL if handler is None else handler)
        self.before = {}

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.listener:  # a pool ends its processes so, and waits for that
            if number == signal.SIGTERM:
                exit_by_signal(number)
            return
        grace = GRACE_OF_SEVERAL if is_distributed() else GRACE
        if self.received is None:
            self.received, self.since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self.since > grace:
            exit_by_signal(number)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End the run if any process got a signal.

        Raises:
            Stopped: the state is saved.
        """
        done = runner.train_loop.iter + 1
        if done % self._check_interval() == 0 and self._on_any_process():
            self._save_and_stop(runner, done)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End the run during a validation, if the processes need not agree on it.

        Raises:
            Stopped: the state is saved.
        """
        if self.received is None:
            return
        done, saving = runner.train_loop.iter, _find_checkpoint_hook(runner)
        if getattr(saving, 'saved_at', -1) == done:
            self._end_run(runner, done, str(saving.last_ckpt))
        if not is_distributed():
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # has put the averaged weights in place
                    hook._swap_ema_parameters()
            self._save_and_stop(runner, done)

    def _check_interval(self) -> int:
        if self.interval is not None:
            return self.interval
        from ...config.hardware import has_accelerator

        return 10 if is_distributed() and has_accelerator() else 1

    def _on_any_process(self) -> bool:
        if not is_distributed():
            return self.received is not None
        told = torch.tensor(0 if self.received is None else int(self.received))
        all_reduce(told, 'max')
        if int(told) and self.received is None:
            self.received = signal.Signals(int(told))
        return bool(told)

    def _save_and_stop(self, runner: Any, done: int) -> None:
        saving, epoch = _find_checkpoint_hook(runner), runner.epoch
        if saving is not None:
            checkpoint = saving.save_now(runner, done, epoch)
        else:
            checkpoint = _save_without_hook(runner, done, epoch)
        # torchrun kills the other ranks as soon as one exits; rank 0 must first write
        # last_checkpoint.
        barrier()
        self._end_run(runner, done, checkpoint)

    def _end_run(self, runner: Any, done: int, checkpoint: str) -> None:
        assert self.received is not None
        if is_main_process():
            runner.logger.warning(
                f'stopped by {self.received.name} after iteration {done}; the state is saved in '
                f'{checkpoint}. To continue, give the same command with --resume. The status of '
                f'this process is {STOPPED}'
            )
        self.restore()
        raise Stopped(checkpoint)


def _find_checkpoint_hook(runner: Any) -> Any:
    return next((hook for hook in runner.hooks if hasattr(hook, 'save_now')), None)


def _save_without_hook(runner: Any, done: int, epoch: int) -> str:
    """Write a checkpoint where the config has no checkpoint hook of ours."""
    gather = getattr(runner.train_loop, 'gather_process_state', None)
    if gather is not None:
        gather()
    name = f'iter_{done}.pth'
    runner.save_checkpoint(runner.work_dir, name, meta=dict(epoch=epoch, iter=done), by_epoch=False)
    path = Path(runner.work_dir) / name
    if is_main_process():
        write_whole(
            Path(runner.work_dir) / 'last_checkpoint', lambda file: file.write(str(path).encode())
        )
    return str(path)


def exit_by_signal(number: int) -> None:
    """End this process by a signal, as without any handler."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@FUNCTIONS.register_module()
def init_worker(
    worker: int,
    signals: Sequence[str] = SIGNALS,
    inner: Mapping[str, Any] | None = None,
    disable_subprocess_warning: bool = False,
) -> None:
    """Set up a worker that loads data, so that only the process that it works for can end it.

        train_dataloader = dict(worker_init_fn=dict(type='mmresnest.init_worker'), ...)

    Schedulers signal all processes of a job. Without its workers a training cannot finish its
    iteration, and torch raises an error wherever it is when a worker ends. Random numbers are
    seeded by worker, process and torch's seed of this pass over the data.

    Args:
        worker: its number.
        signals: names of the signals to leave to that process.
        inner: settings of another such function, which is called instead of seeding.
        disable_subprocess_warning: show warnings of the first worker only.
    """
    if inner is None:
        info = get_worker_info()
        worker_init_fn(
            worker,
            num_workers=info.num_workers if info else 1,
            rank=int(os.environ.get('RANK', get_rank())),  # a spawned worker is in no group
            seed=(torch.initial_seed() - worker) % 2**31,
            disable_subprocess_warning=disable_subprocess_warning,
        )
    else:
        settings = dict(inner)
        kind = settings.pop('type')
        function = ROOT_FUNCTIONS.get(kind) if isinstance(kind, str) else kind
        function(worker, **settings)
    parent = parent_process()
    # sigwaitinfo says who sent a signal; Linux has it.
    if parent is not None and hasattr(signal, 'sigwaitinfo'):
        numbers = [signal.Signals[name] for name in signals]
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        Thread(target=_forward_from_parent, args=(numbers, parent.pid), daemon=True).start()


def _forward_from_parent(signals: Sequence[signal.Signals], parent: int | None) -> None:
    """End this process when the process that it works for tells it to; leave all other signals."""
    while True:
        received = signal.sigwaitinfo(signals)
        if received.si_pid == parent:
            # As torch's own handler does. The main thread may be what hangs.
            os._exit(0)
