"""A run that is told to stop: by Ctrl-C, by a scheduler, by a machine that goes down.

    default_hooks = dict(signals=dict(type='mmresnest.StopOnSignal'))

It saves after the iteration that it is in and ends with status 75, which in sysexits.h means: try
again.  ``--resume`` goes on from there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from mmengine.dist import all_reduce, barrier, is_distributed, is_main_process
from mmengine.hooks import EMAHook, Hook

from ...errors import ArgumentError, nearest
from ...registry import HOOKS
from ...utils.files import write_whole

STOPPED = 75  # EX_TEMPFAIL
# Seconds in which further signals are taken for the same one.  GNU timeout, and srun, signal both a
# process and its group; torchrun and srun hand on to all processes what these have got themselves.
GRACE, GRACE_OF_SEVERAL = 1.0, 5.0


class Stopped(SystemExit):
    """A run was told to stop, and did.

    Attributes:
        checkpoint: where to go on from.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(STOPPED)
        self.checkpoint = checkpoint


@HOOKS.register_module()
class StopOnSignal(Hook):
    """Saves and ends, on all processes together, when one of them gets a signal.

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

    def __init__(
        self, signals: Sequence[str] = ('SIGTERM', 'SIGINT', 'SIGUSR1'), interval: int | None = None
    ) -> None:
        for name in signals:
            if not hasattr(signal, name):
                legal = [one.name for one in signal.Signals]
                raise ArgumentError(
                    f'StopOnSignal: signals={tuple(signals)} has {name!r}; {nearest(name, legal)}'
                )
        if interval is not None and (not isinstance(interval, int) or interval < 1):
            raise ArgumentError(
                f'StopOnSignal: interval={interval!r} is not supported; legal: '
                'whole numbers from 1, or None'
            )
        self.signals = [signal.Signals[name] for name in signals]
        self.interval = interval
        self.received: signal.Signals | None = None
        self.since = 0.0
        self.before: dict[signal.Signals, Any] = {}
        self.listener = 0  # the process; one that it forks has its handlers, too
        self.trained = False

    # ---- signals ---------------------------------------------------------------------------------

    def before_train(self, runner: Any) -> None:
        """Listens, from here to the end of the training."""
        self.received, self.trained = None, False
        if not self._listen():
            runner.logger.warning(
                'this training does not run in the main thread, where signals '
                'arrive: one that ends it will not save'
            )
            return
        for loop in (runner.train_loop, runner.val_loop):
            loader: Any = getattr(loop, 'dataloader', None)
            if (
                loader is not None
                and loader.num_workers
                and not isinstance(loader.worker_init_fn, Sheltered)
            ):
                loader.worker_init_fn = Sheltered(loader.worker_init_fn, self.signals)

    def after_train(self, runner: Any) -> None:
        """Leaves signals to whom they went before."""
        self.trained = True
        self.restore()

    def before_val(self, runner: Any) -> None:
        """Listens again where the last state of a training is scored after its end."""
        if self.trained:
            self._listen()

    def after_val(self, runner: Any) -> None:
        """Leaves signals alone again."""
        if self.trained:
            self.restore()

    def _listen(self) -> bool:
        self.restore()
        self.listener = os.getpid()
        try:
            for one in self.signals:
                self.before[one] = signal.signal(one, self._receive)
        except ValueError:  # Python lets the main thread listen, and no other
            return False
        return True

    def restore(self) -> None:
        """What :meth:`after_train` does, where a training ended otherwise."""
        for one, handler in self.before.items():
            # Of a handler that is not Python's, Python does not know.
            signal.signal(one, signal.SIG_DFL if handler is None else handler)
        self.before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.listener:  # a pool ends its processes so, and waits for that
            if number == signal.SIGTERM:
                die_of(number)
            return
        grace = GRACE_OF_SEVERAL if is_distributed() else GRACE
        if self.received is None:
            self.received, self.since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self.since > grace:
            die_of(number)

    # ---- stopping --------------------------------------------------------------------------------

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Ends the run if any process was told to.

        Raises:
            Stopped: so.
        """
        done = runner.train_loop.iter + 1
        if done % self._interval() == 0 and self._on_any_process():
            self._stop(runner, done)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Ends the run amid a validation, if that takes no agreement.

        Raises:
            Stopped: so.
        """
        if self.received is None:
            return
        done, saving = runner.train_loop.iter, _checkpoint_hook(runner)
        if getattr(saving, 'saved_at', -1) == done:
            self._leave(runner, done, str(saving.last_ckpt))
        if not is_distributed():
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # has put the averaged weights in place
                    hook._swap_ema_parameters()
            self._stop(runner, done)

    def _interval(self) -> int:
        if self.interval is not None:
            return self.interval
        from ...config.hardware import has_accelerator

        return 10 if is_distributed() and has_accelerator() else 1

    def _on_any_process(self) -> bool:
        if not is_distributed():
            return self.received is not None
        import torch

        told = torch.tensor(0 if self.received is None else int(self.received))
        all_reduce(told, 'max')
        if int(told) and self.received is None:
            self.received = signal.Signals(int(told))
        return bool(told)

    def _stop(self, runner: Any, done: int) -> None:
        saving, epoch = _checkpoint_hook(runner), runner.epoch
        if saving is not None:
            checkpoint = saving.save_now(runner, done, epoch)
        else:
            checkpoint = _save_without_hook(runner, done, epoch)
        # A launcher ends the others when it sees one end, and the first is not done when it has
        # written the checkpoint: it has yet to note that this is the last.
        barrier()
        self._leave(runner, done, checkpoint)

    def _leave(self, runner: Any, done: int, checkpoint: str) -> None:
        assert self.received is not None
        if is_main_process():
            runner.logger.warning(
                f'stopped by {self.received.name} after iteration {done}; all is saved in '
                f'{checkpoint}. To go on, give the same command with --resume. The status of this '
                f'process is {STOPPED}'
            )
        self.restore()
        raise Stopped(checkpoint)


def _checkpoint_hook(runner: Any) -> Any:
    return next((hook for hook in runner.hooks if hasattr(hook, 'save_now')), None)


def _save_without_hook(runner: Any, done: int, epoch: int) -> str:
    """A checkpoint where none of our hooks writes them."""
    gather = getattr(runner.train_loop, 'gather', None)
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


def die_of(number: int) -> None:
    """Ends this process by a signal, as without any handler."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Sheltered:
    """What a worker that loads data calls first: it obeys the process that it works for alone.

    Schedulers signal all processes of a job. Without its workers a training cannot go on to the end
    of its iteration, and torch raises an error wherever it is when a worker dies.

    Args:
        theirs: what would have been called.
        signals: those to leave to that process.
    """

    def __init__(
        self, theirs: Callable[[int], Any] | None, signals: Sequence[signal.Signals]
    ) -> None:
        self.theirs, self.signals = theirs, signals

    def __call__(self, worker: int) -> None:
        """Sets a worker up."""
        if self.theirs is not None:
            self.theirs(worker)
        master = parent_process()
        # sigwaitinfo says who sent a signal; Linux has it.
        if master is not None and hasattr(signal, 'sigwaitinfo'):
            signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
            Thread(target=_obey, args=(self.signals, master.pid), daemon=True).start()


def _obey(signals: Sequence[signal.Signals], master: int | None) -> None:
    while True:
        received = signal.sigwaitinfo(signals)
        if received.si_pid == master:
            # As torch's own handler does. The main thread may be what hangs.
            os._exit(0)
