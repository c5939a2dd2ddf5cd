"""Stop a training whose losses, gradients or weights are no longer finite."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor

from ...config.hardware import has_accelerator
from ...errors import ArgumentError, UserError
from ...registry import HOOKS
from ..finite import (
    CAUSES,
    WINDOW,
    Report,
    StepGuard,
    _is_statistic,
    agreed,
    bare,
    image_names,
    last_good,
    refuse_bad_weights,
    some,
    together,
)

#: losses that a new one is compared with, at most and at least; and iterations between two warnings
ENOUGH = 20


@HOOKS.register_module()
class CheckNumbers(Hook):
    """Ends a training before the step that a loss or gradient which is not finite would lead to.

    The error names the iteration, the terms of the loss, the images of the batch and the last
    checkpoint. All processes stop together. Weights that are not finite are never saved, and end
    the training before they are validated or take the place of a checkpoint.

    With a loss scale that is searched for (AmpOptimWrapper) gradients that overflow are part of the
    search, and only the loss and the scale itself are looked at. With several optimisers
    (OptimWrapperDict), Apex and DeepSpeed the losses are looked at, after the step.

    It also warns, without ending anything: of a loss far above the median of those before; of a
    validation in which a detector finds nothing, or a segmentor the same class everywhere.

    Args:
        interval: look at losses and gradients once in so many iterations. Above 1 the weights may
            be spoilt by the time it looks; the last checkpoint stays good. By default 1 on CPUs and
            with ``skip``, and 10 on GPUs, which have to be waited for.
        action: ``stop``, or ``skip``: leave that step out, with the running statistics of its
            forward pass, and go on. The schedule goes on, too.
        max_skips: with ``skip``, so many steps in a row; with one more the training ends.
        explosion: warn of a loss above so many times the median of the last 100; None for never.
        score_thr: a detection is one from this score on.
        min_scale: a loss scale below it ends the training.

    Raises:
        ArgumentError: an argument that is not legal.
        UserError: in the training; or at its start, if steps cannot be skipped.
    """

    priority = 'LOW'  # before CheckpointHook (VERY_LOW)

    def __init__(
        self,
        interval: int | None = None,
        action: str = 'stop',
        max_skips: int = 5,
        explosion: float | None = 20.0,
        score_thr: float = 0.05,
        min_scale: float = 1e-4,
    ) -> None:
        for name, number in (
            ('interval', 1 if interval is None else interval),
            ('max_skips', max_skips),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ArgumentError(
                    f'CheckNumbers: {name}={number!r} is not supported; legal: whole numbers from 1'
                )
        if action not in ('stop', 'skip'):
            raise ArgumentError(
                f'CheckNumbers: action={action!r} is not supported; legal: stop, skip'
            )
        if interval is None:
            interval = 10 if has_accelerator() and action == 'stop' else 1
        if action == 'skip' and interval > 1:
            raise ArgumentError(
                f"CheckNumbers: action='skip' with interval={interval} would leave "
                'steps in that it has not looked at; legal: interval=1'
            )
        if explosion is not None and not explosion > 1:
            raise ArgumentError(
                f'CheckNumbers: explosion={explosion!r} is not supported; legal: '
                'numbers above 1, or None'
            )
        for name, share in (('score_thr', score_thr), ('min_scale', min_scale)):
            if not 0 <= share < 1:
                raise ArgumentError(
                    f'CheckNumbers: {name}={share!r} is not supported; legal: from 0 to below 1'
                )
        self.interval, self.action, self.max_skips = interval, action, max_skips
        self.explosion, self.score_thr, self.min_scale = explosion, score_thr, min_scale
        self.guard: StepGuard | None = None
        self.training = False

    # ---- the training ----------------------------------------------------------------------------

    def before_train(self, runner: Any) -> None:
        """Puts itself between losses and steps."""
        wrapper = runner.optim_wrapper
        self.training = True
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.quiet_until = 0
        if isinstance(wrapper, OptimWrapper) and not isinstance(
            wrapper, (OptimWrapperDict, ApexOptimWrapper)
        ):
            self.guard = StepGuard(self, runner)
        elif self.action == 'skip':
            raise UserError(
                f"CheckNumbers: action='skip' cannot leave out the steps of a "
                f"{type(wrapper).__name__}; set action='stop'"
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Takes down what the iteration is about."""
        if self.guard is not None:
            self.guard.begin(image_names(data_batch))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Looks at losses where nothing stands before the step, and at weights to be saved."""
        report = Report(runner.iter + 1, image_names(data_batch), outputs or {})
        due = report.iteration % self.interval == 0
        if due and self.guard is None and agreed(report.bad()):
            raise UserError(
                f'{together(report, bool(report.bad()))}. The step was taken: the '
                f'weights are spoilt. {last_good(runner)} {CAUSES}'
            )
        if due and is_main_process() and self.explosion and 'loss' in report.terms:
            self._watch_explosion(runner, float(report.terms['loss']))
        if any(_saves_now(hook, runner) for hook in runner.hooks):
            refuse_bad_weights(runner, done=runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Looks at the weights, which an epoch's checkpoint is made of."""
        refuse_bad_weights(runner, done=runner.iter)

    def after_train(self, runner: Any) -> None:
        """Steps out of the way."""
        self.training = False
        if self.guard is not None:
            self.guard.leave()
            if self.guard.skipped:
                runner.logger.warning(f'CheckNumbers: {self.guard.skipped} steps were left out')
            self.guard = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuses to save weights that are not finite."""
        beside = {name for name, _ in bare(runner.model).named_buffers() if not _is_statistic(name)}
        bad = [
            name
            for part in ('state_dict', 'ema_state_dict')
            for name, value in (checkpoint.get(part) or {}).items()
            if isinstance(value, Tensor)
            and value.is_floating_point()
            and name not in beside
            and not value.isfinite().all()
        ]
        if bad:
            raise UserError(
                f'the weights are not finite and are not saved: {some(bad)}. '
                f'{last_good(runner)} {CAUSES}'
            )

    def _watch_explosion(self, runner: Any, loss: float) -> None:
        iteration = runner.iter + 1
        if not math.isfinite(loss):
            return
        if len(self.losses) >= ENOUGH and self.explosion and iteration >= self.quiet_until:
            usual = median(self.losses)
            if 0 < self.explosion * usual < loss:
                self.quiet_until = iteration + WINDOW
                runner.logger.warning(
                    f'the loss explodes: {loss:.4g} at iteration {iteration}, where the median of '
                    f'the last {len(self.losses)} is {usual:.4g}. {CAUSES}'
                )
        self.losses.append(loss)

    # ---- validations -----------------------------------------------------------------------------

    def before_val_epoch(self, runner: Any) -> None:
        """Looks at the weights: scores of what is not finite mean nothing, and can be best."""
        if self.training:
            refuse_bad_weights(runner, done=runner.iter)
        # Whether there were detections, and one scored high; whether there were maps of classes,
        # and the lowest (negated) and the highest class: greater is more, so that they add up.
        self.seen = torch.tensor([0.0, 0.0, 0.0, -math.inf, -math.inf])

    def after_val_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Looks at the predictions for a batch."""
        for sample in outputs or ():
            scores = getattr(getattr(sample, 'pred_instances', None), 'scores', None)
            if scores is not None:
                self._see(0, 1.0, float((scores >= self.score_thr).any()))
            classes = getattr(getattr(sample, 'pred_sem_seg', None), 'data', None)
            if classes is not None and classes.numel():
                self._see(2, 1.0, -float(classes.min()), float(classes.max()))

    def _see(self, first: int, *found: float) -> None:
        part = self.seen[first : first + len(found)]
        torch.maximum(part, torch.tensor(found), out=part)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Warns of predictions that are all background."""
        all_reduce(self.seen, 'max')
        instances, detected, maps, lowest, highest = self.seen.tolist()
        if instances and not detected:
            runner.logger.warning(
                f'no image of the validation has a detection scored {self.score_thr} or more: '
                'usual in the first epochs; later the learning rate is too high or too low, the '
                'warmup too short, or boxes and classes of the annotations do not fit the images'
            )
        if maps and -lowest == highest:
            runner.logger.warning(
                f'every pixel of the validation is predicted as class {int(highest)}: usual in the '
                'first iterations; later the learning rate is too high, that class outweighs the '
                'others (class_weight), or the masks hold little else'
            )


def _saves_now(hook: Hook, runner: Any) -> bool:
    """Whether a hook is about to write a checkpoint of this iteration."""
    return (
        isinstance(hook, CheckpointHook)
        and not hook.by_epoch
        and (
            hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
            or (hook.save_last and hook.is_last_train_iter(runner))
        )
    )
