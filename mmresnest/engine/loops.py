"""Training loops that can be broken off at any iteration and taken up to the bit.

    train_cfg = dict(type='mmresnest.EpochBasedTrainLoop', max_epochs=12)

What is random depends on the seed and on its place alone: a sample on (rank, pass over the data,
batch, number in the batch), an iteration on its number.  So nothing depends on which worker loads a
sample, on what it has loaded before, or on how often a validation has drawn in between, and the
state of a run's randomness is a handful of numbers.  mmengine seeds each worker once, the same in
every epoch: workers that are started anew repeat their augmentations, and those that are not
cannot be taken up.

A checkpoint says, beside what mmengine writes, where in the data the run was, and what it ran on; a
run that is taken up on something else is refused or warned, see :meth:`_Exact.take_up`, unless
``accept_changes=True`` stands beside the arguments of mmengine's loop.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop as TheirEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as TheirIterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader, IterableDataset

from ..errors import UserError
from ..registry import LOOPS
from .dataloader import ExactLoader
from .fingerprint import _images, batch_size_of, differences, fingerprints, flatten
from .seeding import sow

RECORD = 'mmresnest'
"""The entry of a checkpoint that says where its run was."""
PARTS = {
    'seed',
    'sampler_seed',
    'batch',
    'scored_at',
    'processes',
    'hooks',
    'world_size',
    'batch_size',
    'data',
    'settings',
    'schedule',
}
"""What the entry has."""


class _Loading(BaseLoop):
    """Makes the loader exact. It stands behind mmengine's loops, which may begin to load at once.

    Args:
        runner: of the training.
        dataloader: of the training, or its settings.
    """

    endless: bool
    dataloader: Any

    def __init__(self, runner: Any, dataloader: Any) -> None:
        super().__init__(runner, dataloader)
        loader = self.dataloader
        self.exact = (
            type(loader) is DataLoader
            and loader.batch_sampler is not None
            and not isinstance(loader.dataset, IterableDataset)
        )
        if self.exact:
            self.dataloader = ExactLoader.of(loader, runner.seed, self.endless)
        else:
            runner.logger.warning(
                'the training data come in a stream, or by a loader of their '
                'own: this run cannot be taken up to the bit'
            )


class _Exact(BaseLoop):
    """What both loops share. It stands before mmengine's.

    Args:
        runner: of the training.
        *geometry: of mmengine's loop.
        accept_changes: take up a run though it goes on with other data or processes.
        **given: of mmengine's loop.

    Attributes:
        batch: batches that are done of this pass over the data; 0 where passes do not matter.
    """

    endless: bool
    exact: bool
    dataloader: Any

    def __init__(
        self, runner: Any, *geometry: Any, accept_changes: bool = False, **given: Any
    ) -> None:
        super().__init__(runner, *geometry, **given)
        self.accept_changes = accept_changes
        self.seed = runner.seed
        self.batch = 0
        self.gathered: list[Any] = []
        self.record: Mapping[str, Any] | None = None  # of the checkpoint that is taken up
        self.resumed = self.due = False
        runner.register_hook(_Recorder(self), 'VERY_HIGH')

    def run(self) -> Any:
        """Trains, from the beginning or from where the checkpoint was written."""
        if self.resumed:
            self.take_up()
        return super().run()

    def sow(self) -> None:
        """Seeds the generators for the iteration that comes."""
        sow(self.seed, get_rank(), self._iter)

    # ---- what a checkpoint says ------------------------------------------------------------------

    def describe(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of a checkpoint that is written now."""
        loader = self.dataloader
        return dict(
            seed=self.seed,
            sampler_seed=loader.sampler_seed if self.exact else None,
            batch=self._batches_behind(meta),
            scored_at=self.runner.message_hub.runtime_info.get('scored_at', -1),
            processes=self.gathered,
            hooks=self._hooks(),
            **self.circumstances(),
        )

    def _batches_behind(self, meta: Mapping[str, Any]) -> int:
        """Batches of this pass that are behind a checkpoint, which counts iterations."""
        if self.endless or meta['epoch'] > self._epoch:
            return 0
        return self.batch + meta['iter'] - self._iter

    def circumstances(self) -> dict[str, Any]:
        """What a run is taken up on: processes, batches, data and settings."""
        runner = self.runner
        if not hasattr(self, '_data'):
            self._data = fingerprints(self.dataloader.dataset)
        return dict(
            world_size=get_world_size(),
            batch_size=batch_size_of(self.dataloader),
            data=self._data,
            settings=flatten(runner.cfg),
            schedule=self._schedule(),
        )

    def _schedule(self) -> dict[str, str]:
        given = self.runner.cfg.get('param_scheduler')
        return dict(
            flatten(dict(param_scheduler=given), ('param_scheduler',)),
            epoch=str(len(self.dataloader)),
            epochs=str(self.max_epochs),
            iterations=str(self.max_iters),
        )

    def _hooks(self) -> list[dict[str, Any]]:
        """What hooks that end a training early have counted, which mmengine does not save."""
        return [
            dict(wait_count=hook.wait_count, best_score=hook.best_score)
            for hook in self.runner.hooks
            if isinstance(hook, EarlyStoppingHook)
        ]

    def gather(self) -> None:
        """Collects what each process has of its own before a checkpoint; all must call.

        That is gradients that wait for more of a step, and statistics of norms that are not
        synchronised.
        """
        wrapper, model = self.runner.optim_wrapper, self.runner.model
        counts = getattr(wrapper, '_accumulative_counts', 1)
        own: dict[str, Any] = {}
        if counts > 1 and getattr(wrapper, '_inner_count', 0) % counts:
            own['gradients'] = [
                None if weight.grad is None else weight.grad.cpu() for weight in model.parameters()
            ]
        if get_world_size() > 1:
            own['buffers'] = [buffer.cpu() for buffer in model.buffers()]
        self.gathered = all_gather_object(own)
        first = self.gathered[0].get('buffers', [])
        for other in self.gathered:  # the first process's stand in the checkpoint
            if all(map(torch.equal, other.get('buffers', []), first)):
                other.pop('buffers', None)

    # ---- taking up -------------------------------------------------------------------------------

    def take_up(self) -> None:
        """Goes on where a checkpoint was written.

        Raises:
            UserError: number of processes, batch size or data are others than those of the
                checkpoint, and ``accept_changes`` is not set.
        """
        record, log = self.record, self.runner.logger
        self._count_steps()
        if record is None:
            log.warning(
                'the checkpoint was written without mmresnest: where it was in the data, '
                'and what was random, is not in it, so this run goes on, but not as the '
                'one before it would have'
            )
            self.batch = 0
            return
        now = self.circumstances()
        self._judge(record, now)
        self.seed = record['seed']
        if not self.endless:
            self.batch = min(
                record['batch'] * _images(record) // _images(now), len(self.dataloader)
            )
        if self.exact:
            self.dataloader.reseed(record['seed'], record['sampler_seed'])
        if len(record['processes']) == now['world_size']:
            self._give_back(record['processes'][get_rank()])
        early = [hook for hook in self.runner.hooks if isinstance(hook, EarlyStoppingHook)]
        for hook, counted in zip(early, record['hooks']):
            hook.wait_count, hook.best_score = counted['wait_count'], counted['best_score']
        if record['schedule'] != now['schedule']:
            self._schedule_anew()
        self._decide_current_val_interval()
        self.due = self._is_due() and record['scored_at'] != self._iter

    def _judge(self, record: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Names what has changed since the checkpoint was written."""
        changed = [
            f'{what} {record[key]}, now {now[key]}'
            for key, what in (
                ('world_size', 'the number of processes was'),
                ('batch_size', 'the batch size of a process was'),
            )
            if record[key] != now[key]
        ]
        before, after = record['data'], now['data']
        if list(before.values()) != list(after.values()):
            names = [name for name in after if after[name] != before.get(name)] or list(before)
            changed.append(f'the data are others: {", ".join(names[:5])}')
        if changed and not self.accept_changes:
            raise UserError(
                'the run cannot be taken up as it was: '
                + '; '.join(changed)
                + '. Put that back as it was; or, if it is meant, give '
                '--accept-changes (train_cfg.accept_changes=True): the run then goes '
                'on from these weights at this iteration'
            )
        others = [
            f'{key}: {old} before, {new} now'
            for key, old, new in differences(record['settings'], now['settings'])
        ]
        for line in [*changed, *others[:20]]:
            self.runner.logger.warning(f'changed since the checkpoint was written: {line}')
        if others:
            self.runner.logger.warning(
                'what the optimiser has of its own, such as learning rates '
                'and momenta, comes from the checkpoint'
            )

    def _give_back(self, own: Mapping[str, Any]) -> None:
        """Takes back what this process had of its own."""
        model = self.runner.model
        for weight, gradient in zip(model.parameters(), own.get('gradients', [])):
            weight.grad = None if gradient is None else gradient.to(weight.device)
        for buffer, value in zip(model.buffers(), own.get('buffers', [])):
            buffer.copy_(value)

    def _schedule_anew(self) -> None:
        """Has the schedule that the config asks for now, at the step where the run is.

        mmengine restores a schedule with its end and milestones, so that of a longer training is
        not followed.
        """
        runner = self.runner
        given = runner.cfg.get('param_scheduler')
        if (
            given is None
            or not hasattr(runner, 'build_param_scheduler')
            or any('Plateau' in type(one).__name__ for one in self._schedulers())
        ):
            runner.logger.warning(
                'the schedule has changed since the checkpoint was written, and '
                'goes on as it was: it cannot be computed anew'
            )
            return
        for optimiser in self._optimisers():
            for group in optimiser.param_groups:
                for key in [key for key in group if key.startswith('initial_')]:
                    group[key.removeprefix('initial_')] = group[key]
        runner.param_schedulers = runner.build_param_scheduler(given)
        self._count_steps()
        ended = 0
        for done in range(1, self._iter + 1):
            # Epochs may have been of another length.
            epochs = 0 if self.endless else done * self._epoch // self._iter
            for one in self._schedulers():
                for _ in range(epochs - ended if one.by_epoch else 1):
                    one.step()
            ended = epochs
        runner.logger.info(
            'the schedule has changed since the checkpoint was written: it was '
            'computed anew from the first step'
        )

    def _count_steps(self) -> None:
        """Has schedules know that there were steps before; they warn where they are the first."""
        for one in self._schedulers():
            one.optimizer._global_step = self._iter

    def _schedulers(self) -> list[Any]:
        given = self.runner.param_schedulers or []
        parts = given.values() if isinstance(given, dict) else [given]
        return [one for part in parts for one in part]

    def _optimisers(self) -> list[Any]:
        wrapper = self.runner.optim_wrapper
        parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        return [one.optimizer for one in parts if hasattr(one, 'optimizer')]

    def _is_due(self) -> bool:
        """Whether a validation follows the state that the run is in, and training that one."""
        done, end = (
            (self._iter, self._max_iters) if self.endless else (self._epoch, self._max_epochs)
        )
        return (
            self.runner.val_loop is not None
            and self.batch == 0
            and self.val_begin <= done < end
            and done % self.val_interval == 0
        )

    def validate_if_due(self) -> None:
        """Makes up for a validation that the run before did not finish."""
        if self.due:
            self.due = False
            self.runner.val_loop.run()


class _Recorder(Hook):
    """Has a loop's record written and read with checkpoints."""

    def __init__(self, loop: _Exact) -> None:
        self.loop = loop

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Adds the record."""
        checkpoint[RECORD] = self.loop.describe(checkpoint['meta'])

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Takes the record of a checkpoint that is resumed."""
        if runner._resume:
            self.loop.resumed = True
            record = checkpoint.get(RECORD)
            known = isinstance(record, Mapping) and record.keys() >= PARTS
            self.loop.record = record if known else None

    def before_val(self, runner: Any) -> None:
        """Has a validation that draws draw the same whenever it is made of this state."""
        sow(self.loop.seed, get_rank(), self.loop.iter, -1)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Notes that this state was validated, before other hooks write checkpoints of it."""
        runner.message_hub.update_info('scored_at', self.loop.iter)


@LOOPS.register_module()
class EpochBasedTrainLoop(_Exact, TheirEpochBasedTrainLoop, _Loading):
    """mmengine's loop over epochs, exact; with ``accept_changes``, see the module."""

    endless = False

    def run_epoch(self) -> None:
        """An epoch, or what is left of it."""
        self.validate_if_due()
        if self.stop_training:  # by that validation
            return
        runner = self.runner
        sow(self.seed, get_rank(), self._epoch, -2)
        runner.call_hook('before_train_epoch')
        runner.model.train()
        if self.exact:
            self.dataloader.stream.start(self._epoch, self.batch)
        for number, data_batch in enumerate(self.dataloader, self.batch):
            self.run_iter(number, data_batch)
        self.batch = 0
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """An iteration."""
        self.sow()
        super().run_iter(idx, data_batch)
        self.batch = idx + 1


@LOOPS.register_module()
class IterBasedTrainLoop(_Exact, TheirIterBasedTrainLoop, _Loading):
    """mmengine's loop over iterations, exact; with ``accept_changes``, see the module.

    Workers read on over the end of the data, and need not be started anew there.
    """

    endless = True
    dataloader_iterator: Any

    def run(self) -> Any:
        """Trains, from the beginning or from where the checkpoint was written."""
        if self.exact:
            self.dataloader.stream.start(0, self._iter)
            # The fork asks its own iterator to skip what is behind; OpenMMLab loads all of it.
            skipped = 0 if hasattr(self.dataloader_iterator, 'skip_iter') else self._iter
            self.dataloader_iterator = _AlreadyThere(iter(self.dataloader), skipped)
        try:
            return super().run()
        finally:
            if self.exact:
                self.dataloader_iterator.close()

    def run_iter(self, data_batch: Any) -> None:
        """An iteration."""
        if self.due:
            self.validate_if_due()
            self.runner.model.train()
        self.sow()
        super().run_iter(data_batch)


class _AlreadyThere:
    """An iterator that begins where the run is, and lets itself be advanced to there.

    Args:
        iterator: of what comes.
        behind: how many elements will be asked for that are behind.
    """

    def __init__(self, iterator: Generator[Any, None, None], behind: int) -> None:
        self.iterator, self.behind = iterator, behind

    def __next__(self) -> Any:
        if self.behind:
            self.behind -= 1
            return None
        return next(self.iterator)

    def skip_iter(self, number: int) -> None:
        """Nothing: it is there."""

    def close(self) -> None:
        """Lets workers go, which would read on for ever."""
        self.iterator.close()
