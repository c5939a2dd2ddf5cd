"""Trainings whose numbers go wrong: stopped before the weights are, or warned of.

    custom_hooks = [dict(type='mmresnest.CheckNumbers')]

mmengine trains on with a loss that is not a number, to the end, and saves weights that are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from torch import Tensor

from ..errors import UserError
from . import checkpoints

if TYPE_CHECKING:
    from .hooks.nan_guard import CheckNumbers

WINDOW = 100  # losses that a loss is compared with
CAUSES = (
    'Usual causes are a learning rate too high for the batch (train --auto-scale-lr), no '
    'warmup, no clip_grad, and wrong annotations (`mmresnest check-data CONFIG`).'
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


def bare(model: Any) -> Any:
    """A model without what wraps it."""
    while hasattr(model, 'module'):
        model = model.module
    return model
