"""Trainings whose numbers go wrong: stopped before the weights are, or warned of.

    custom_hooks = [dict(type='mmresnest.CheckNumbers')]

mmengine trains on with a loss that is not a number, to the end, and saves weights that are none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor

from ..errors import ArgumentError, UserError
from ..registry import HOOKS
from . import checkpoints
from .processes import has_accelerator

#: losses that a new one is compared with, at most and at least; and iterations between two warnings
WINDOW, ENOUGH = 100, 20

CAUSES = (
    'Usual causes are a learning rate too high for the batch (train --auto-scale-lr), no '
    'warmup, no clip_grad, and wrong annotations (`mmresnest check-data CONFIG`).'
)


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


class StepGuard:
    """Stands between a loss and the optimiser's step.

    A hook is called before and after both, so this replaces methods of the objects at hand:
    ``backward`` and ``step`` of the optimiser's wrapper, and ``parse_losses`` of the model.

    Args:
        rules: what to do when.
        runner: of the training.

    Attributes:
        skipped: steps that were left out.
    """

    def __init__(self, rules: CheckNumbers, runner: Any) -> None:
        self.rules, self.runner = rules, runner
        self.wrapper, self.model = runner.optim_wrapper, bare(runner.model)
        self.skipped = self.in_a_row = 0
        self.looked = runner.iter
        self.names: list[str] = []
        self.reports: list[Report] = []  # of the losses since the last look
        self.bad: Tensor | None = None  # whether one of the losses since the last look is
        self.statistics = [
            buffer
            for name, buffer in self.model.named_buffers()
            if _is_statistic(name) and rules.action == 'skip'
        ]
        self.kept = [buffer.clone() for buffer in self.statistics]
        self.backward_pass, self.take_step = self.wrapper.backward, self.wrapper.step
        self.wrapper.backward, self.wrapper.step = self.backward, self.step
        if hasattr(self.model, 'parse_losses'):
            self._listen()

    def _listen(self) -> None:
        theirs: Any = self.model.parse_losses

        # No method: a copy of the model must not take this guard and its runner with it.
        def parse_losses(losses: Any) -> Any:
            parsed = theirs(losses)
            self.reports.append(Report(self.runner.iter + 1, self.names, parsed[1]))
            del self.reports[:-WINDOW]
            return parsed

        vars(self.model)['parse_losses'] = parse_losses

    def leave(self) -> None:
        """Gives the objects their own methods back."""
        self.wrapper.backward, self.wrapper.step = self.backward_pass, self.take_step
        vars(self.model).pop('parse_losses', None)

    def begin(self, names: list[str]) -> None:
        """An iteration begins, on these images."""
        self.names = names
        if self.kept and not self.reports:  # else a step has gathered losses already
            torch._foreach_copy_(self.kept, self.statistics)

    def backward(self, loss: Tensor, **more: Any) -> None:
        """Notes on the device whether the loss is finite; that is looked at before the step."""
        bad = ~loss.detach().isfinite().all()
        self.bad = bad if self.bad is None else self.bad | bad
        self.backward_pass(loss, **more)

    def step(self, **more: Any) -> None:
        """Takes the step, unless loss or gradients forbid it."""
        iteration = self.runner.iter + 1
        if iteration - self.looked < self.rules.interval:
            self.take_step(**more)
            return
        self.looked = iteration
        bad = bad_loss = torch.tensor(False) if self.bad is None else self.bad
        searching = self._searches_scale()
        gradients = [] if searching else list(self._gradients())
        if gradients:
            bad = bad_loss | overflow(gradients).to(bad_loss.device)
        if agreed(bad) and agreed(bad_loss | not_finite(gradients).to(bad_loss.device)):
            self._refuse(bool(bad_loss))
        else:
            self.in_a_row = 0
            self.take_step(**more)
            if searching:
                self._check_scale()
        self.reports.clear()
        self.bad = None

    def _searches_scale(self) -> bool:
        scaler = getattr(self.wrapper, 'loss_scaler', None)
        return (
            scaler is not None and scaler.is_enabled() and self.wrapper._scale_update_param is None
        )

    def _gradients(self) -> Iterator[Tensor]:
        for group in self.wrapper.optimizer.param_groups:
            for weight in group['params']:
                if weight.grad is not None:
                    yield weight.grad

    def _check_scale(self) -> None:
        scale = self.wrapper.loss_scaler.get_scale()
        if scale < self.rules.min_scale:
            raise UserError(
                f'the loss scale of mixed precision collapses: it is {scale:.3g} after iteration '
                f'{self.runner.iter + 1}, and below {self.rules.min_scale} (min_scale) gradients '
                'are not finite at any scale; no step was taken meanwhile, the weights are finite. '
                f'{last_good(self.runner)} {CAUSES} Or train without --amp, or in bfloat16'
            )

    def _refuse(self, bad_loss: bool) -> None:
        """Leaves the step out, or ends the training."""
        rules, runner = self.rules, self.runner
        bad = [
            name
            for name, weight in self.model.named_parameters()
            if weight.grad is not None and bool(not_finite([weight.grad]))
        ]
        reports = (
            [one for one in self.reports if one.bad()]
            or self.reports[-1:]
            or [Report(runner.iter + 1, self.names, {})]
        )
        said = together(reports[0], bad_loss, bad)
        spoilt = (
            ''
            if rules.interval == 1
            else (f', but for what happened in the {rules.interval} iterations since the last look')
        )
        kept = f'The step was not taken: the weights are finite{spoilt}.'
        self.in_a_row += 1
        if rules.action == 'stop' or self.in_a_row > rules.max_skips:
            row = f' {self.in_a_row} steps in a row.' if rules.action == 'skip' else ''
            raise UserError(f'{said}.{row} {kept} {last_good(runner)} {CAUSES}')
        self.skipped += 1
        self.wrapper.zero_grad()
        if self.kept:
            torch._foreach_copy_(self.statistics, self.kept)
        runner.logger.warning(
            f'{said}. The step is left out: {self.in_a_row} in a row, {self.skipped} in all'
        )


# ---- what is said --------------------------------------------------------------------------------


class Report:
    """A forward pass of a training.

    Args:
        iteration: the number of the iteration, from 1.
        names: of the images.
        terms: of the loss, and what else the model reports.
    """

    def __init__(self, iteration: int, names: list[str], terms: Mapping[str, Any]) -> None:
        self.iteration, self.names = iteration, names
        self.terms = {
            name: value.detach() for name, value in terms.items() if isinstance(value, Tensor)
        }

    def bad(self) -> Tensor:
        """Whether a term of the loss is not finite; an accuracy of nothing may be so."""
        return not_finite(value for name, value in self.terms.items() if 'loss' in name)

    def __str__(self) -> str:
        terms = ', '.join(
            f'{name} {float(value.float().mean()):.4g}' for name, value in self.terms.items()
        )
        return (
            f'{terms or "terms of the loss unknown"}; images '
            f'{some(self.names) if self.names else "unknown"}'
        )


def together(report: Report, bad_loss: bool, bad_gradients: Sequence[str] = ()) -> str:
    """What happened, of the processes in which it began; all must call."""
    gathered = all_gather_object((bad_loss, str(report)))
    concerned = [
        (rank, text)
        for rank, (bad, text) in enumerate(gathered)
        if bad or not any(one for one, _ in gathered)
    ]
    details = '; '.join(
        (f'process {rank}: ' if get_world_size() > 1 else '') + text for rank, text in concerned[:3]
    )
    what = 'the loss is' if any(bad for bad, _ in gathered) else 'gradients are'
    whose = f' of {some(bad_gradients)}' if bad_gradients and what == 'gradients are' else ''
    return f'{what} not finite at iteration {report.iteration}{whose}: {details}'


def last_good(runner: Any) -> str:
    """Which checkpoint is there to go on from."""
    found = checkpoints.last(Path(runner.work_dir))
    if found is None:
        return 'No checkpoint was written before.'
    return f'The last good checkpoint is {found}, from which --resume goes on.'


def some(names: Sequence[str], count: int = 8) -> str:
    """The first of many names."""
    rest = len(names) - count
    return ', '.join(names[:count]) + (f' and {rest} more' if rest > 0 else '')


def image_names(batch: Any) -> list[str]:
    """The paths of the images in a batch, as far as it tells them."""
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else batch
    if isinstance(samples, Mapping):  # of several branches, as semi-supervised ones have
        samples = [one for branch in samples.values() for one in branch or ()]
    if not isinstance(samples, (list, tuple)):
        return []
    return [str(path) for path in (getattr(one, 'img_path', None) for one in samples) if path]


# ---- what is finite ------------------------------------------------------------------------------


def overflow(tensors: Iterable[Tensor]) -> Tensor:
    """Whether any value is not finite, or so great that its square is not: several times faster.

    It is answered on the device, which is not waited for.
    """
    return _any_not_finite(torch._foreach_norm(parts) if (parts := _parts(tensors)) else ())


def not_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether any value is not finite, on the device."""
    return _any_not_finite(_parts(tensors))


def _any_not_finite(tensors: Iterable[Tensor]) -> Tensor:
    flags = [one.isfinite().all() for one in tensors]
    if not flags:
        return torch.tensor(False)
    return ~torch.stack([flag.to(flags[0].device) for flag in flags]).all()


def _parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [part for part in map(_share, tensors) if part.numel()]


def _share(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, 'to_local') else tensor


def agreed(bad: Tensor) -> bool:
    """Whether any process says so; all must call."""
    flag = bad.detach().float()
    all_reduce(flag, 'max')
    return bool(flag)


def refuse_bad_weights(runner: Any, done: int) -> None:
    """Ends a training whose weights are not finite, before it saves or scores them.

    Args:
        runner: of the training.
        done: iterations that are done.

    Raises:
        UserError: on all processes.
    """
    model = bare(runner.model)
    named: list[tuple[str, Tensor]] = [*model.named_parameters()]
    named += [(name, buffer) for name, buffer in model.named_buffers() if _is_statistic(name)]
    values = [value for _, value in named]
    if agreed(overflow(values)) and agreed(not_finite(values)):
        bad = [name for name, value in named if bool(not_finite([value]))]
        raise UserError(
            f'the weights are not finite after iteration {done}: '
            f'{some(bad) or "those of other processes"}; they are not saved. '
            f'{last_good(runner)} {CAUSES}'
        )


def _is_statistic(name: str) -> bool:
    return name.rpartition('.')[2] in ('running_mean', 'running_var')


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


def bare(model: Any) -> Any:
    """A model without what wraps it."""
    while hasattr(model, 'module'):
        model = model.module
    return model
