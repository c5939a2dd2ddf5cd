"""Training loops that can be interrupted at any iteration and resume bit for bit.

    train_cfg = dict(type='mmresnest.EpochBasedTrainLoop', max_epochs=12)

Random numbers depend on the seed and on their place in the run alone: those of a sample on (rank,
    pass
over the data, batch, number in the batch), those of an iteration on its number. So nothing depends
on which worker loads a sample, on what it has loaded before, or on how often a validation has drawn
in between, and the random state of a run is a handful of numbers. mmengine seeds each worker once,
alike in every epoch: restarted workers repeat their augmentations, and the others cannot be
resumed.

Beside what mmengine writes, a checkpoint says where in the data the run was, and what it ran on. A
run that resumes on something else is refused or warned, unless ``accept_changes=True`` stands
beside the arguments of mmengine's loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import EpochBasedTrainLoop as TheirEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as TheirIterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from ..config.hardware import has_accelerator
from ..errors import UserError
from ..registry import LOOPS
from ..security.resume import check_record, explain_resume_errors
from ..utils.text import format_some
from .dataloader import ResumableDataLoader
from .fingerprint import (
    batch_size_of,
    fingerprint_data,
    flatten_settings,
    hash_sizes,
    images_per_step,
    list_differences,
    list_images,
    list_newer,
)
from .hooks.bad_images import SkipBadImages
from .image_guard import add_checks
from .schedulers import count_earlier_steps, rebuild_schedulers
from .seeding import seed_all

RECORD = 'mmresnest'
"""The entry of a checkpoint that says where its run was."""
RECORD_KEYS = {
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
"""The keys of the entry."""


def build_loader(runner: Any, dataloader: Any, endless: bool) -> Any:
    """Build the loader of a training from its settings, and make it resumable where it can be.

    Where the hook ``SkipBadImages`` runs, each data set becomes a ``CheckedDataset``.

    Args:
        runner: of the training.
        dataloader: the settings, or a loader.
        endless: go on with the next pass over the data where one ends.
    """
    if isinstance(dataloader, dict):
        if any(isinstance(hook, SkipBadImages) for hook in runner.hooks):
            dataloader = dict(dataloader, dataset=add_checks(dataloader['dataset']))
        dataloader = runner.build_dataloader(
            dataloader,
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )
    if ResumableDataLoader.can_replace(dataloader):
        return ResumableDataLoader(dataloader, runner.seed, endless)
    runner.logger.warning(
        'the training data come in a stream, or by a loader of their own: '
        'this run cannot resume bit for bit'
    )
    return dataloader


class _ResumableLoopMixin(BaseLoop):
    """What both loops share.

    Args:
        runner: of the training.
        dataloader: of the training, or its settings.
        *geometry: of mmengine's loop.
        accept_changes: resume a run though data or processes are others than those of its
            checkpoint.
        **given: of mmengine's loop.

    Attributes:
        batch: batches that are done of this pass over the data; 0 where passes do not matter.
        exact: whether the loader is one that a run resumes with exactly.
    """

    endless: bool
    dataloader: Any

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        *geometry: Any,
        accept_changes: bool = False,
        **given: Any,
    ) -> None:
        loader = build_loader(runner, dataloader, self.endless)
        super().__init__(runner, loader, *geometry, **given)
        self.exact = isinstance(loader, ResumableDataLoader)
        self.accept_changes = accept_changes
        self.seed = runner.seed
        self.batch = 0
        self.gathered: list[Any] = []
        self.record: Mapping[str, Any] | None = None  # of the checkpoint that is resumed
        self.resumed = self.due = False
        runner.register_hook(_RecordHook(self), 'VERY_HIGH')

    def run(self) -> Any:
        """Train, from the beginning or from where the checkpoint was written."""
        if self.resumed:
            self.resume()
        return super().run()

    def seed_iteration(self) -> None:
        """Seed the generators for the next iteration."""
        seed_all(self.seed, get_rank(), self._iter)

    def build_record(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a checkpoint that is written now."""
        loader = self.dataloader
        return dict(
            seed=self.seed,
            sampler_seed=loader.sampler_seed if self.exact else None,
            batch=self._batches_done(meta),
            scored_at=self.runner.message_hub.runtime_info.get('scored_at', -1),
            processes=self.gathered,
            hooks=self._early_stopping_state(),
            images=self._image_sizes(),
            written=time.time(),
            threads=torch.get_num_threads(),
            **self.fingerprint(),
        )

    def _image_sizes(self) -> str:
        """Return the hash of the sizes of the images, as they were at the first call."""
        if not hasattr(self, '_sizes'):
            self._sizes = hash_sizes(list_images(self.dataloader.dataset))
        return self._sizes

    def _batches_done(self, meta: Mapping[str, Any]) -> int:
        """Return how many batches of this pass a checkpoint, which counts iterations, has done."""
        if self.endless or meta['epoch'] > self._epoch:
            return 0
        return self.batch + meta['iter'] - self._iter

    def fingerprint(self) -> dict[str, Any]:
        """Return what a run shares with its checkpoint: processes, batches, data and settings."""
        runner = self.runner
        if not hasattr(self, '_data'):
            self._data = fingerprint_data(self.dataloader.dataset)
        return dict(
            world_size=get_world_size(),
            batch_size=batch_size_of(self.dataloader),
            data=self._data,
            settings=flatten_settings(runner.cfg),
            schedule=self._schedule_settings(),
        )

    def _schedule_settings(self) -> dict[str, str]:
        given = self.runner.cfg.get('param_scheduler')
        return dict(
            flatten_settings(dict(param_scheduler=given), ('param_scheduler',)),
            epoch=str(len(self.dataloader)),
            epochs=str(self.max_epochs),
            iterations=str(self.max_iters),
        )

    def _early_stopping_state(self) -> list[dict[str, Any]]:
        """Return the counts of early-stopping hooks, which mmengine does not save."""
        return [
            dict(wait_count=hook.wait_count, best_score=hook.best_score)
            for hook in self.runner.hooks
            if isinstance(hook, EarlyStoppingHook)
        ]

    def gather_process_state(self) -> None:
        """Collect the state that each process has alone before a checkpoint; all must call.

        That is accumulated gradients, and running statistics of norms that are not synchronized.
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
        for other in self.gathered:  # the checkpoint has the buffers of the first process
            if all(map(torch.equal, other.get('buffers', []), first)):
                other.pop('buffers', None)

    def resume(self) -> None:
        """Continue where a checkpoint was written.

        Raises:
            UserError: number of processes, batch size or data are others than those of the
                checkpoint, and ``accept_changes`` is not set.
        """
        record, log = self.record, self.runner.logger
        count_earlier_steps(self.runner, self._iter)
        if record is None:
            log.warning(
                'the checkpoint was written without mmresnest: where it was in the data, '
                'and what was random, is not in it, so this run goes on, but not as the '
                'one before it would have'
            )
            self.batch = 0
            return
        now = self.fingerprint()
        self._check_changes(record, now)
        self._check_images(record)
        self._check_threads(record)
        self.seed = record['seed']
        if not self.endless:
            self.batch = min(
                record['batch'] * images_per_step(record) // images_per_step(now),
                len(self.dataloader),
            )
        if self.exact:
            self.dataloader.set_seeds(record['seed'], record['sampler_seed'])
        if len(record['processes']) == now['world_size']:
            with explain_resume_errors('the checkpoint'):
                self._restore_process_state(record['processes'][get_rank()])
        early = [hook for hook in self.runner.hooks if isinstance(hook, EarlyStoppingHook)]
        for hook, counted in zip(early, record['hooks']):
            hook.wait_count, hook.best_score = counted['wait_count'], counted['best_score']
        if record['schedule'] != now['schedule']:
            rebuild_schedulers(self.runner, self._iter, 0 if self.endless else self._epoch)
        self._decide_current_val_interval()
        self.due = self._is_due() and record['scored_at'] != self._iter

    def _check_changes(self, record: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Refuse a run whose data or processes have changed, and warn of changed settings."""
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
                'the run cannot resume as it was: '
                + '; '.join(changed)
                + '. Put that back as it was; or, if it is meant, give '
                '--allow-mismatch (train_cfg.accept_changes=True): the run then goes '
                'on from these weights at this iteration',
                code='resume.changed',
            )
        others = [
            f'{key}: {old} before, {new} now'
            for key, old, new in list_differences(record['settings'], now['settings'])
        ]
        for line in [*changed, *others[:20]]:
            self.runner.logger.warning(f'changed since the checkpoint was written: {line}')
        if others:
            self.runner.logger.warning(
                'the state of the optimizer, such as learning rates '
                'and momenta, comes from the checkpoint'
            )

    def _check_images(self, record: Mapping[str, Any]) -> None:
        """Warn of images that were replaced since the checkpoint was written."""
        if 'images' not in record:  # it was written before images were compared
            return
        newer = list_newer(list_images(self.dataloader.dataset), record['written'])
        if newer or record['images'] != self._image_sizes():
            named = f'{format_some(newer, 3)} written since' if newer else 'other sizes of files'
            self.runner.logger.warning(
                f'changed since the checkpoint was written: images of the training data: {named}. '
                'If their contents are others, this run is not the one that was interrupted'
            )

    def _check_threads(self, record: Mapping[str, Any]) -> None:
        """Warn where a CPU adds up in another order than before."""
        threads = torch.get_num_threads()
        before = record.get('threads', threads)  # of an earlier version, which did not note it
        if before != threads and not has_accelerator():
            self.runner.logger.warning(
                f'changed since the checkpoint was written: it computed with {before} threads, now '
                f'{threads}, which rounds otherwise: this run goes on as well, but not to the bit '
                f'as the one before it. OMP_NUM_THREADS={before} puts that back'
            )

    def _restore_process_state(self, own: Mapping[str, Any]) -> None:
        """Restore the state that this process had alone."""
        model = self.runner.model
        for weight, gradient in zip(model.parameters(), own.get('gradients', [])):
            weight.grad = None if gradient is None else gradient.to(weight.device)
        for buffer, value in zip(model.buffers(), own.get('buffers', [])):
            buffer.copy_(value)

    def _is_due(self) -> bool:
        """Return whether a validation of this state comes next, and more training after it."""
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
        """Run the validation that the run before did not finish."""
        if self.due:
            self.due = False
            self.runner.val_loop.run()


class _RecordHook(Hook):
    """Write and read a loop's record with checkpoints."""

    def __init__(self, loop: _ResumableLoopMixin) -> None:
        self.loop = loop

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Add the record."""
        checkpoint[RECORD] = self.loop.build_record(checkpoint['meta'])

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keep the record of a checkpoint that is resumed."""
        if runner._resume:
            self.loop.resumed = True
            record = checkpoint.get(RECORD)
            if not (isinstance(record, Mapping) and record.keys() >= RECORD_KEYS):
                record = None
            else:
                check_record(record)
            self.loop.record = record

    def before_val(self, runner: Any) -> None:
        """Seed a validation by the state that it is made of, whenever that is."""
        seed_all(self.loop.seed, get_rank(), self.loop.iter, -1)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Note that this state was validated, before other hooks write checkpoints of it."""
        runner.message_hub.update_info('scored_at', self.loop.iter)


@LOOPS.register_module()
class EpochBasedTrainLoop(_ResumableLoopMixin, TheirEpochBasedTrainLoop):
    """mmengine's loop over epochs, resumable; with ``accept_changes``, see the module."""

    endless = False

    def run_epoch(self) -> None:
        """Train an epoch, or what is left of it."""
        self.validate_if_due()
        if self.stop_training:  # by that validation
            return
        runner = self.runner
        seed_all(self.seed, get_rank(), self._epoch, -2)
        runner.call_hook('before_train_epoch')
        runner.model.train()
        if self.exact:
            self.dataloader.batch_sampler.start(self._epoch, self.batch)
        for number, data_batch in enumerate(self.dataloader, self.batch):
            self.run_iter(number, data_batch)
        self.batch = 0
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train an iteration."""
        self.seed_iteration()
        super().run_iter(idx, data_batch)
        self.batch = idx + 1


@LOOPS.register_module()
class IterBasedTrainLoop(_ResumableLoopMixin, TheirIterBasedTrainLoop):
    """mmengine's loop over iterations, resumable; with ``accept_changes``, see the module.

    Workers read on past the end of the data, and need not be restarted there.
    """

    endless = True

    def run(self) -> Any:
        """Train, from the beginning or from where the checkpoint was written."""
        if not self.exact:
            return super().run()
        if self.resumed:
            self.resume()
        self.dataloader.batch_sampler.start(0, self._iter)
        batches = iter(self.dataloader)
        try:
            return self._train(batches)
        finally:
            batches.close()  # lets workers go, which would read on for ever

    def _train(self, batches: Iterator[Any]) -> Any:
        """Do what mmengine's loop does, but for the batches that it would load again to skip."""
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if runner.val_loop is not None and self._iter >= self.val_begin and due:
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Train an iteration."""
        if self.due:
            self.validate_if_due()
            self.runner.model.train()
        self.seed_iteration()
        super().run_iter(data_batch)
