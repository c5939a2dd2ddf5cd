"""Optimizer wrappers that check numbers before a step, and bfloat16 where mmengine has none.

    optim_wrapper = dict(type='mmresnest.CheckedOptimWrapper', optimizer=...)
    default_hooks = dict(numbers=dict(type='mmresnest.CheckNumbers'))

``mmresnest train`` puts both into a config. The wrapper sees the loss before the step and leaves
the step out if loss or gradients are not finite; what follows from that, the hook decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn

from ..registry import OPTIM_WRAPPERS
from .finite import any_process, has_not_finite, has_overflow, is_statistic


class StepGuard:
    """What the hook ``CheckNumbers`` asks of a wrapper, and what the wrapper has found.

    Args:
        interval: check once in so many iterations.
        model: that is trained.
        start: iterations that are done.
        keep_statistics: undo what the forward pass of a step that is left out did to running
            statistics.

    Attributes:
        iteration: the one that runs, from 1.
        refused: whether the step of this iteration was left out.
        bad_loss: whether that was for a loss of this process.
        bad_gradients: names of weights, the reason of that on this process.
        searching: whether a loss scale is searched for.
    """

    def __init__(
        self, interval: int, model: nn.Module, start: int, keep_statistics: bool = False
    ) -> None:
        self.interval, self.model, self.looked = interval, model, start
        self.iteration = start + 1
        self.refused = self.bad_loss = self.searching = False
        self.bad_gradients: list[str] = []
        self.bad: Tensor | None = None  # whether a loss since the last check is not finite
        self.waiting = False  # whether losses wait for their common step
        self.statistics = [
            buffer
            for name, buffer in model.named_buffers()
            if keep_statistics and is_statistic(name)
        ]
        self.kept = [buffer.clone() for buffer in self.statistics]

    def begin_iteration(self, iteration: int) -> None:
        """Begin an iteration."""
        self.iteration, self.refused = iteration, False
        if self.kept and not self.waiting:
            torch._foreach_copy_(self.kept, self.statistics)

    def add_loss(self, loss: Tensor) -> None:
        """Note on the device whether a loss is finite, which is read before the step."""
        bad = ~loss.detach().isfinite().all()
        self.bad = bad if self.bad is None else self.bad | bad
        self.waiting = True

    def find_bad_gradients(self) -> list[str]:
        """Return the names of weights whose gradient is not finite on this process."""
        return [
            name
            for name, weight in self.model.named_parameters()
            if weight.grad is not None and bool(has_not_finite([weight.grad]))
        ]

    def restore_statistics(self) -> None:
        """Give running statistics the values that they had before the iteration."""
        if self.kept:
            torch._foreach_copy_(self.statistics, self.kept)


class CheckedSteps(OptimWrapper):
    """Leave out steps whose loss or gradients are not finite, while a hook has given a guard."""

    guard: StepGuard | None = None

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Note whether the loss is finite, and compute gradients."""
        if self.guard is not None:
            self.guard.add_loss(loss)
        super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Take the step, unless loss or gradients on any process are not finite."""
        guard = self.guard
        if guard is None or guard.iteration - guard.looked < guard.interval:
            super().step(**kwargs)
            if guard is not None:
                guard.waiting = False
            return
        guard.looked = guard.iteration
        guard.searching = self._searches_scale()
        guard.refused = self._is_bad(guard)
        guard.bad, guard.waiting = None, False
        if guard.refused:
            self.zero_grad()
            guard.restore_statistics()
        else:
            super().step(**kwargs)

    def _is_bad(self, guard: StepGuard) -> bool:
        """Return whether a process has a loss or gradients that are not finite; all must call."""
        bad = bad_loss = torch.tensor(False) if guard.bad is None else guard.bad
        # Gradients that overflow are part of the search for a loss scale.
        gradients = [] if guard.searching else list(self._list_gradients())
        if gradients:
            bad = bad_loss | has_overflow(gradients).to(bad_loss.device)
        if not any_process(bad):
            return False
        if not any_process(bad_loss | has_not_finite(gradients).to(bad_loss.device)):
            return False
        guard.bad_loss = bool(bad_loss)
        guard.bad_gradients = guard.find_bad_gradients()
        return True

    def _list_gradients(self) -> Iterator[Tensor]:
        for group in self.optimizer.param_groups:
            for weight in group['params']:
                if weight.grad is not None:
                    yield weight.grad

    def _searches_scale(self) -> bool:
        return False


@OPTIM_WRAPPERS.register_module()
class CheckedOptimWrapper(CheckedSteps):
    """mmengine's ``OptimWrapper``; no step that the hook ``CheckNumbers`` forbids is taken."""


@OPTIM_WRAPPERS.register_module()
class CheckedAmpOptimWrapper(CheckedSteps, AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``; no step that the hook ``CheckNumbers`` forbids is taken."""

    def _searches_scale(self) -> bool:
        return self.loss_scaler.is_enabled() and self._scale_update_param is None


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(CheckedSteps):
    """Run the forward pass in bfloat16, on a CPU too, which mmengine's AmpOptimWrapper refuses.

    bfloat16 has float32's range, so the loss is not scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in mixed precision."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
