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
from torch import Tensor

from ...config.defaults import CHECKED
from ...config.hardware import has_accelerator
from ...errors import ArgumentError, UserError
from ...registry import HOOKS
from ...utils.text import format_some
from ..finite import (
    CAUSES,
    LossReport,
    any_process,
    gather_report,
    image_names,
    is_statistic,
    name_last_checkpoint,
    refuse_bad_weights,
)
from ..optim_wrappers import CheckedSteps, StepGuard
from ..wrappers import unwrap_model
from .arguments import check_whole_number

WINDOW = 100
"""Losses that a new one is compared with, at most; and iterations between two warnings."""
MIN_LOSSES = 20
"""Losses that a new one is compared with, at least."""


@HOOKS.register_module()
class CheckNumbers(Hook):
    """End a training before a step on a loss or gradients that are not finite.

    The error names the iteration, the terms of the loss, the images of the batch and the last
    checkpoint. All processes stop together. Weights that are not finite are never saved, and end
    the training before they are validated or take the place of a checkpoint.

    It needs an optimizer wrapper that asks before its steps: ``mmresnest.CheckedOptimWrapper``,
    ``CheckedAmpOptimWrapper`` or ``Bfloat16OptimWrapper``, which ``mmresnest train`` sets. With
    others (OptimWrapperDict, Apex, DeepSpeed) the losses are looked at after the step.

    With a dynamic loss scale (CheckedAmpOptimWrapper) gradients that overflow are part of the
    search for it, and only the loss and the scale itself are looked at.

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
        check_whole_number(self, 'interval', interval, none='None')
        check_whole_number(self, 'max_skips', max_skips)
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

    def before_train(self, runner: Any) -> None:
        """Have the optimizer wrapper check losses and gradients before its steps.

        Raises:
            UserError: steps are to be skipped, and the wrapper cannot leave any out.
        """
        wrapper = runner.optim_wrapper
        self.training, self.skipped, self.in_a_row = True, 0, 0
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.reports: deque[LossReport] = deque(maxlen=WINDOW)  # since the last check
        self.quiet_until = 0
        if isinstance(wrapper, CheckedSteps):
            self.guard = StepGuard(
                self.interval, unwrap_model(runner.model), runner.iter, self.action == 'skip'
            )
            wrapper.guard = self.guard
            return
        kind = type(wrapper).__name__
        checked = CHECKED.get(kind)
        remedy = f"optim_wrapper.type='{checked}'" if checked else ''
        if self.action == 'skip':
            raise UserError(
                f"CheckNumbers: action='skip' cannot leave out the steps of a {kind}; set "
                f"{f'{remedy}, or ' if checked else ''}action='stop'",
                code='config.type-unfit',
            )
        if checked:
            runner.logger.warning(
                f'CheckNumbers: {kind} takes a step before its loss is looked at; set {remedy}'
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Tell the wrapper which iteration begins."""
        if self.guard is not None:
            self.guard.begin_iteration(runner.iter + 1)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End the training, or warn, if numbers are not finite or the loss explodes.

        Raises:
            UserError: on all processes.
        """
        report = LossReport(runner.iter + 1, image_names(data_batch), outputs or {})
        due = report.iteration % self.interval == 0
        if self.guard is not None:
            self._check_step(runner, self.guard, report)
        elif due and any_process(report.is_bad()):
            raise UserError(
                f'{gather_report(report, bool(report.is_bad()))}. The step was taken: the '
                f'weights are spoilt. {name_last_checkpoint(runner)} {CAUSES}',
                code='training.not-finite',
            )
        if due and is_main_process() and self.explosion and 'loss' in report.terms:
            self._watch_explosion(runner, float(report.terms['loss']))
        if any(_saves_now(hook, runner) for hook in runner.hooks):
            refuse_bad_weights(runner, done=runner.iter + 1)

    def _check_step(self, runner: Any, guard: StepGuard, report: LossReport) -> None:
        """Act on what the wrapper found before the step of an iteration, if it looked."""
        self.reports.append(report)
        if guard.looked != report.iteration:
            return
        if guard.refused:
            self._handle_refusal(runner, guard)
        else:
            self.in_a_row = 0
            if guard.searching:
                self._check_scale(runner, report.iteration)
        self.reports.clear()

    def _handle_refusal(self, runner: Any, guard: StepGuard) -> None:
        """End the training for a step that was left out, or count it; all processes call."""
        bad = [one for one in self.reports if one.is_bad()] or [self.reports[-1]]
        reason = gather_report(bad[0], guard.bad_loss, guard.bad_gradients)
        self.in_a_row += 1
        if self.action == 'stop' or self.in_a_row > self.max_skips:
            row = f' {self.in_a_row} steps in a row.' if self.action == 'skip' else ''
            since = f'{self.interval} iterations since the last look'
            unless = '' if self.interval == 1 else f', but for what happened in the {since}'
            raise UserError(
                f'{reason}.{row} The step was not taken: the weights are finite{unless}. '
                f'{name_last_checkpoint(runner)} {CAUSES}',
                code='training.not-finite',
            )
        self.skipped += 1
        runner.logger.warning(
            f'{reason}. The step is left out: {self.in_a_row} in a row, {self.skipped} in all'
        )

    def _check_scale(self, runner: Any, iteration: int) -> None:
        scale = runner.optim_wrapper.loss_scaler.get_scale()
        if scale < self.min_scale:
            raise UserError(
                f'the loss scale of mixed precision collapses: it is {scale:.3g} after iteration '
                f'{iteration}, and below {self.min_scale} (min_scale) gradients are not finite at '
                'any scale; no step was taken meanwhile, the weights are finite. '
                f'{name_last_checkpoint(runner)} {CAUSES} Or train without --amp, or in bfloat16',
                code='training.loss-scale',
            )

    def after_train_epoch(self, runner: Any) -> None:
        """Refuse bad weights, before an epoch's checkpoint is made of them."""
        refuse_bad_weights(runner, done=runner.iter)

    def after_train(self, runner: Any) -> None:
        """Stop checking; log how many steps were left out."""
        self.training = False
        if self.guard is not None:
            self.guard = runner.optim_wrapper.guard = None
            if self.skipped:
                runner.logger.warning(f'CheckNumbers: {self.skipped} steps were left out')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite."""
        beside = {
            name for name, _ in unwrap_model(runner.model).named_buffers() if not is_statistic(name)
        }
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
                f'the weights are not finite and are not saved: {format_some(bad)}. '
                f'{name_last_checkpoint(runner)} {CAUSES}',
                code='training.not-finite',
            )

    def _watch_explosion(self, runner: Any, loss: float) -> None:
        iteration = runner.iter + 1
        if not math.isfinite(loss):
            return
        if len(self.losses) >= MIN_LOSSES and self.explosion and iteration >= self.quiet_until:
            usual = median(self.losses)
            if 0 < self.explosion * usual < loss:
                self.quiet_until = iteration + WINDOW
                runner.logger.warning(
                    f'the loss explodes: {loss:.4g} at iteration {iteration}, where the median of '
                    f'the last {len(self.losses)} is {usual:.4g}. {CAUSES}'
                )
        self.losses.append(loss)

    def before_val_epoch(self, runner: Any) -> None:
        """Refuse bad weights: their scores mean nothing, and can be the best."""
        if self.training:
            refuse_bad_weights(runner, done=runner.iter)
        # Whether there were detections, and one scored high; whether there were maps of classes,
        # and the lowest (negated) and the highest class: encoded so that one all_reduce(max)
        # merges all five values.
        self.seen = torch.tensor([0.0, 0.0, 0.0, -math.inf, -math.inf])

    def after_val_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Take in the predictions for a batch."""
        for sample in outputs if isinstance(outputs, (list, tuple)) else ():
            scores = getattr(getattr(sample, 'pred_instances', None), 'scores', None)
            if scores is not None:
                self._merge_seen(0, 1.0, float((scores >= self.score_thr).any()))
            classes = getattr(getattr(sample, 'pred_sem_seg', None), 'data', None)
            if classes is not None and classes.numel():
                self._merge_seen(2, 1.0, -float(classes.min()), float(classes.max()))

    def _merge_seen(self, first: int, *found: float) -> None:
        part = self.seen[first : first + len(found)]
        torch.maximum(part, torch.tensor(found), out=part)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Warn of predictions that are all background."""
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
    """Return whether a hook is about to write a checkpoint of this iteration."""
    return (
        isinstance(hook, CheckpointHook)
        and not hook.by_epoch
        and (
            hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
            or (hook.save_last and hook.is_last_train_iter(runner))
        )
    )
