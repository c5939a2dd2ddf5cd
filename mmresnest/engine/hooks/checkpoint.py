"""Write checkpoints that survive what happens to the run.

    default_hooks = dict(checkpoint=dict(type='mmresnest.CheckpointHook', interval=1))

How a file is written is decided in :mod:`mmresnest.utils.files`; here, when one is written and when
an old one is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook as TheirCheckpointHook

from ...errors import UserError, nearest
from ...registry import HOOKS
from ...utils.files import remove_stale_parts, remove_with_hash, write_whole
from .. import checkpoints


@HOOKS.register_module()
class CheckpointHook(TheirCheckpointHook):
    """mmengine's hook, which keeps the old checkpoint until the new one is on the disk.

    A checkpoint that cannot be written (the disk is full, the folder may no longer be written to)
    does not end the training: what is wrong is logged as an error, the checkpoints before it stay,
    and the next one is due at its time. Only if the last one fails the run ends with an error.

    Args:
        *geometry: of mmengine's ``CheckpointHook``, as all other arguments.

    Raises:
        UserError: the last checkpoint could not be written; or ``save_best`` names a score that the
            evaluation does not give.
    """

    best_ckpt_path: str | None
    last_ckpt: str | None

    def __init__(self, *geometry: Any, **given: Any) -> None:
        super().__init__(*geometry, **given)
        self.failure = ''  # of the last attempt to write
        self.saved_at = -1  # iterations that were done at the last checkpoint

    def before_train(self, runner: Any) -> None:
        """Remove what a killed run left in the folder, and warn of checkpoints of another run."""
        kept = list(runner.message_hub.runtime_info.get('keep_ckpt_ids') or ())
        super().before_train(runner)
        if not is_main_process() or not self._is_local:
            return
        folder = Path(self.out_dir)
        remove_stale_parts(folder)
        for step in set(kept) - set(getattr(self, 'keep_ckpt_ids', kept)):
            remove_with_hash(folder / self.filename_tmpl.format(step))  # mmengine leaves its hash
        there = sorted(path.name for path in folder.glob('*.pth'))
        if there and not runner._resume:
            runner.logger.warning(
                f'{folder} holds {len(there)} checkpoints of an earlier run, such as {there[-1]}, '
                'and this run, which begins anew, replaces those of the same names; to go on from '
                'the last one give --resume, to keep all another --work-dir'
            )

    @property
    def _is_local(self) -> bool:
        return '://' not in str(self.out_dir) and self.file_client_args is None

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        self._write_and_prune(runner, self.filename_tmpl.format(step), meta, step)

    def save_now(self, runner: Any, done: int, epoch: int) -> str:
        """Write a checkpoint out of turn; all processes must call.

        Args:
            runner: of the training.
            done: iterations that are done.
            epoch: epochs that are done.

        Returns:
            its path; where one of this very state is there already, that one's.

        Raises:
            UserError: it cannot be written.
        """
        if self.saved_at != done:
            name, meta = f'iter_{done}.pth', dict(epoch=epoch, iter=done)
            counted = name == self.filename_tmpl.format(done)
            self._write_and_prune(runner, name, meta, done if counted else None, by_epoch=False)
            self._raise_failure('the run was stopped')
        return str(self.last_ckpt)

    def after_train(self, runner: Any) -> None:
        """Publish as mmengine's hook does, if the last checkpoint could be written."""
        self._raise_failure('the training is complete')
        super().after_train(runner)

    def _raise_failure(self, when: str) -> None:
        if self.failure:
            raise UserError(
                f'{when}, and its last checkpoint could not be written: {self.failure}',
                code='file.unwritable',
            )

    def _write_and_prune(
        self, runner: Any, name: str, meta: dict, step: int | None, by_epoch: bool | None = None
    ) -> None:
        """Write a checkpoint, note it as the last one, and remove what it replaces.

        ``step`` counts it among those of which ``max_keep_ckpts`` are kept; None for one out of
        turn, which the next one replaces.
        """
        hub = runner.message_hub
        path, replaced = self._join_path(name), self._stopped_checkpoint(hub)
        before = {
            key: hub.runtime_info.get(key) for key in ('last_ckpt', 'keep_ckpt_ids', 'stopped_ckpt')
        }
        outdated = self._count_kept(step) if step is not None else []
        # A checkpoint also holds this list of checkpoints, so it is updated before the write.
        hub.update_info('last_ckpt', path)
        hub.update_info('stopped_ckpt', name if step is None else '')
        if self.max_keep_ckpts > 0:
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        if not self._try_write(
            runner,
            name,
            meta,
            by_epoch=self.by_epoch if by_epoch is None else by_epoch,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            **self.args,
        ):
            _restore_entries(hub, before)
            if self.max_keep_ckpts > 0:
                self.keep_ckpt_ids.clear()
                self.keep_ckpt_ids.extend(before['keep_ckpt_ids'] or ())
            return
        self.last_ckpt, self.saved_at = path, meta['iter']
        if is_main_process():
            with self._log_disk_errors(runner, f'{path} is written, and last_checkpoint is not'):
                write_whole(
                    Path(runner.work_dir) / 'last_checkpoint',
                    lambda file: file.write(path.encode()),
                )
            for old in {*map(self._join_path, outdated), replaced} - {'', path}:
                self._remove_file(runner, old)

    def _count_kept(self, step: int) -> list[str]:
        """Count a checkpoint among those that are kept; return the names of those to remove."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return []
        outdated = []
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
        self.keep_ckpt_ids.append(step)
        return outdated

    def _stopped_checkpoint(self, hub: Any) -> str:
        """Return the checkpoint out of turn that the next one replaces, or ''.

        Its name may come from a stranger's checkpoint, so only such a name is used.
        """
        name = str(hub.runtime_info.get('stopped_ckpt') or '')
        return self._join_path(name) if re.fullmatch(r'iter_\d+\.pth', name) else ''

    def _join_path(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _try_write(self, runner: Any, name: str, meta: dict, **what: Any) -> bool:
        """Have the runner write a checkpoint; return whether that worked on all processes."""
        import torch

        loop, error = runner.train_loop, None
        if what['save_optimizer'] and hasattr(loop, 'gather_process_state'):
            loop.gather_process_state()
        self.failure = ''
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                meta=meta,
                backend_args=self.backend_args,
                **what,
            )
        except OSError as caught:
            self.failure = f'{self._join_path(name)}: {caught.strerror or caught}'
        except Exception as caught:  # the other processes must not wait for this one
            error = caught
        if hasattr(loop, 'gather_process_state'):
            loop.gathered = []
        failed = torch.tensor(2 if error is not None else int(bool(self.failure)))
        all_reduce(failed, 'max')  # where the model is divided, each process writes
        if error is not None:
            raise error
        if failed == 2:
            raise UserError(
                f'{self._join_path(name)} was not written; another process says why',
                code='file.unwritable',
            )
        if failed and not self.failure:
            self.failure = f'{self._join_path(name)}: another process says why'
        if failed and is_main_process():
            kept = checkpoints.find_last(Path(self.out_dir)) if self._is_local else None
            runner.logger.error(
                f'the checkpoint {self.failure}. '
                + (f'{kept} is kept' if kept else 'There is none before it')
                + '; free some space, or make the folder writable: the next one is written at its '
                'time'
            )
        return not failed

    def _remove_file(self, runner: Any, path: str) -> None:
        with self._log_disk_errors(runner, f'{path} is no longer needed, and cannot be removed'):
            if self.file_backend.isdir(path):  # of DeepSpeed, a file for each process
                self.file_backend.rmtree(path)
            elif self._is_local:
                remove_with_hash(path)
            elif self.file_backend.isfile(path):
                self.file_backend.remove(path)

    @staticmethod
    @contextmanager
    def _log_disk_errors(runner: Any, what: str) -> Iterator[None]:
        """Log an error of the disk that must not end a training."""
        try:
            yield
        except OSError as error:
            runner.logger.error(f'{what}: {error}')

    def _save_best_checkpoint(self, runner: Any, metrics: Mapping[str, Any]) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        count = runner.epoch if self.by_epoch else runner.iter
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        several = len(self.key_indicators) > 1
        improved = [
            self._save_if_best(runner, metrics, key, rule, several, count, meta)
            for key, rule in zip(self.key_indicators, self.rules)
        ]
        # Rewrite it: the checkpoint must contain best_ckpt, which was set after the first write, so
        # that a resumed run knows what to remove.
        if any(improved) and self.last_ckpt is not None:
            self._save_checkpoint_with_step(runner, count, meta)

    def _save_if_best(
        self,
        runner: Any,
        metrics: Mapping[str, Any],
        key: str,
        rule: str,
        several: bool,
        count: int,
        meta: dict,
    ) -> bool:
        """Write a checkpoint if a score is better than all before; return whether it is."""
        if key not in metrics:
            raise UserError(
                f'save_best names the score {key!r}, which the evaluation does not '
                f'give; {nearest(key, metrics)}. The checkpoints so far are in '
                f'{self.out_dir}',
                code='config.unknown-score',
            )
        hub, suffix = runner.message_hub, f'_{key}' if several else ''
        score_key, path_key = f'best_score{suffix}', f'best_ckpt{suffix}'
        score = metrics[key]
        before = {entry: hub.runtime_info.get(entry) for entry in (score_key, path_key)}
        best = before[score_key] if before[score_key] is not None else self.init_value_map[rule]
        if score is None or not self.is_better_than[key](score, best):
            return False
        old = self.best_ckpt_path_dict[key] if several else self.best_ckpt_path
        name = f'best_{key}_{self.filename_tmpl.format(count)}'.replace('/', '_')
        path = self._join_path(name)
        hub.update_info(score_key, score)
        hub.update_info(path_key, path)
        if not self._try_write(
            runner,
            name,
            dict(meta),
            save_optimizer=False,
            save_param_scheduler=False,
            by_epoch=False,
        ):
            _restore_entries(hub, before)
            return False
        if several:
            self.best_ckpt_path_dict[key] = path
        else:
            self.best_ckpt_path = path
        if is_main_process() and old and old != path:
            self._remove_file(runner, old)
        runner.logger.info(
            f'The best checkpoint with {score:0.4f} {key} at {count} '
            f'{"epoch" if self.by_epoch else "iter"} is saved to {name}.'
        )
        return True


def _restore_entries(hub: Any, before: Mapping[str, Any]) -> None:
    """Restore entries of mmengine's message hub; None for those it did not have."""
    for key, value in before.items():
        if value is None:
            hub.runtime_info.pop(key, None)
        else:
            hub.update_info(key, value)
