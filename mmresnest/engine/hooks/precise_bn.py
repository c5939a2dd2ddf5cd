"""Set the statistics of batch norms to those of the trained weights before a model is evaluated."""

from __future__ import annotations

import time
from bisect import bisect
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

from mmengine.hooks import Hook

from ...errors import UserError
from ...registry import HOOKS
from ..seeding import preserve_rng
from ..wrappers import unwrap_model
from .arguments import check_whole_number


@HOOKS.register_module()
class PreciseBN(Hook):
    """Set batch norms to the statistics of their training, before each evaluation and at the end.

    A running average follows weights that no longer exist. This hook runs the trained weights over
    ``num_iters`` batches as in training, without learning from them, and replaces the running mean
    and variance of every batch norm in training mode by those of all values seen: see
    :mod:`mmresnest.engine.hooks.bn_statistics` for the equation, and Wu and Johnson,
    arXiv:2105.07576, section 3, for why. Frozen norms and norms in evaluation mode stay as
    they are.

    It runs after the last training iteration before an evaluation, so that evaluation and the
    checkpoints of that iteration or epoch get the new statistics; a checkpoint written in between
    does not. Training goes on as it would without: the batches come from a loader of their own over
    the same images, always from the beginning of its order, and generators of random numbers and
    all other buffers get their state back. Only a data set that remembers the images it gave (a
    mosaic with a cache, without worker processes) can tell.

    Args:
        num_iters: batches to average over, on each process; 200 is what the ResNeSt authors'
            recipe has (detectron2's default). Where one pass over the images has fewer, that many.
        interval: do so before every ``interval``-th evaluation; always at the end of the training.

    Raises:
        ArgumentError: an argument is no whole number above 0.
        UserError: at the start of a training whose loop or hooks it cannot serve.
    """

    priority = 'LOW'  # after the step's log and schedule, before CheckpointHook (VERY_LOW)

    def __init__(self, num_iters: int = 200, interval: int = 1) -> None:
        check_whole_number(self, 'num_iters', num_iters)
        check_whole_number(self, 'interval', interval)
        self.num_iters = num_iters
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        """Refuse loops and hooks that it cannot serve, before the first step."""
        from mmengine.hooks import EMAHook
        from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

        loop = runner.train_loop
        if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
            raise UserError(
                'PreciseBN cannot tell when a '
                f'{type(loop).__name__} evaluates; set train_cfg.type to '
                'EpochBasedTrainLoop or IterBasedTrainLoop, or take PreciseBN out of '
                'custom_hooks',
                code='config.type-unfit',
            )
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise UserError(
                'PreciseBN measures the statistics of the weights in training, and '
                'EMAHook evaluates averaged ones, whose statistics differ; take one of '
                'the two out of custom_hooks',
                code='config.type-unfit',
            )
        if not isinstance(runner.cfg.get('train_dataloader'), dict):
            raise UserError(
                'PreciseBN reads its batches by a second loader of the same settings, '
                "and the runner's config has no train_dataloader; build the runner by "
                'Runner.from_cfg',
                code='config.type-unfit',
            )

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Estimate the statistics if an evaluation or the end of the training comes next."""
        last, evaluated = self._next_events(runner, batch_idx)
        # Among what a checkpoint holds, so that a resumed training goes on counting.
        count = runner.message_hub.runtime_info.get('precise_bn_evaluations', 0) + evaluated
        if evaluated:
            runner.message_hub.update_info('precise_bn_evaluations', count)
        if last or (evaluated and count % self.interval == 0):
            self._update_norms(runner)

    def _next_events(self, runner: Any, batch_idx: int) -> tuple[bool, bool]:
        """Return whether this iteration is the last one, and whether an evaluation follows."""
        from mmengine.runner import IterBasedTrainLoop

        loop = runner.train_loop
        # The loops count up after the hooks, epochs after the last iteration of one.
        if isinstance(loop, IterBasedTrainLoop):
            done, total = loop.iter + 1, loop.max_iters
        elif self.end_of_epoch(loop.dataloader, batch_idx):
            done, total = loop.epoch + 1, loop.max_epochs
        else:
            return False, False
        # As the loops themselves will decide, which also have it change in the course of training.
        interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
        last = done >= total
        return last, (
            runner.val_loop is not None
            and done >= loop.val_begin
            and (done % interval == 0 or last)
        )

    def _update_norms(self, runner: Any) -> None:
        from torch.nn.parallel import DistributedDataParallel

        from .bn_statistics import estimate_statistics, norms_in_training

        model = runner.model
        norms = len(norms_in_training(model))
        if not norms:
            runner.logger.warning(
                'PreciseBN: no batch norm is in training mode, all are frozen or '
                'evaluated; nothing to do'
            )
            return
        if isinstance(model, DistributedDataParallel):
            model = model.module  # there is no gradient to exchange, and nothing to prepare
        preprocess = unwrap_model(model)
        start = time.monotonic()
        with preserve_rng():
            loader = _build_second_loader(runner)
            number = min(self.num_iters, _count_batches(loader))
            shortage = (
                ''
                if number == self.num_iters
                else (f', which is all there are: fewer than num_iters={self.num_iters}')
            )
            runner.logger.info(
                f'PreciseBN: averaging the statistics of {norms} norms over '
                f'{number} batch{"es" * (number > 1)}{shortage}'
            )

            def forward(batch: Any) -> None:
                with _precision_context(runner):
                    model._run_forward(preprocess.data_preprocessor(batch, True), mode='loss')

            reached = estimate_statistics(runner.model, forward, islice(loader, number))
        runner.logger.info(f'PreciseBN: set {reached} norms in {time.monotonic() - start:.1f} s')


def _build_second_loader(runner: Any) -> Any:
    """Build a loader of the training loader's settings, over the same data set."""
    settings = dict(
        runner.cfg.train_dataloader, dataset=_SharedDataset(runner.train_dataloader.dataset)
    )
    settings.pop('persistent_workers', None)  # they would outlive the one use
    return runner.build_dataloader(
        settings,
        seed=runner.seed,
        diff_rank_seed=runner.cfg.get('randomness', {}).get('diff_rank_seed', False),
    )


class _SharedDataset:
    """Have ``deepcopy``, which mmengine applies to a loader's settings, return the data set itself.

    Args:
        dataset: the data set, its annotations loaded: up to gigabytes.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __deepcopy__(self, memo: dict) -> Any:
        """Return the data set itself."""
        return self.dataset


def _count_batches(loader: Any) -> int:
    """Return how many batches of one pass every process has."""
    import torch
    from mmengine.dataset import InfiniteSampler
    from mmengine.dist import all_reduce

    number = len(loader)
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    if isinstance(sampler, InfiniteSampler):  # its length is that of all processes
        number = -(-number // sampler.world_size)
    least = torch.tensor(max(number, 1))
    all_reduce(least, 'min')
    return int(least)


def _precision_context(runner: Any) -> AbstractContextManager:
    """Return the context of a training step's precision."""
    from mmengine.optim import OptimWrapper, OptimWrapperDict

    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapper) and not isinstance(wrapper, OptimWrapperDict):
        return wrapper.optim_context(runner.model)
    return nullcontext()
