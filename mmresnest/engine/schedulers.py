"""Schedules of learning rates in runs that resume."""

from __future__ import annotations

from typing import Any

from mmengine.optim import OptimWrapperDict


def list_schedulers(runner: Any) -> list[Any]:
    """Return the schedulers of a runner, of all its optimizers."""
    given = runner.param_schedulers or []
    parts = given.values() if isinstance(given, dict) else [given]
    return [one for part in parts for one in part]


def count_earlier_steps(runner: Any, steps: int) -> None:
    """Tell schedulers that there were steps before; they warn where they are the first."""
    for one in list_schedulers(runner):
        one.optimizer._global_step = steps


def rebuild_schedulers(runner: Any, steps: int, epochs: int) -> None:
    """Build the schedule that the config asks for now, and bring it to the step where the run is.

    mmengine restores a schedule with its end and milestones, so that of a longer training would not
    be followed.

    Args:
        runner: of the training; its schedulers are replaced, unless they cannot be.
        steps: that are done.
        epochs: that are done; 0 where they do not matter.
    """
    given = runner.cfg.get('param_scheduler')
    if (
        given is None
        or not hasattr(runner, 'build_param_scheduler')
        or any('Plateau' in type(one).__name__ for one in list_schedulers(runner))
    ):
        runner.logger.warning(
            'the schedule has changed since the checkpoint was written, and '
            'goes on as it was: it cannot be computed again'
        )
        return
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    for optimizer in [one.optimizer for one in wrappers if hasattr(one, 'optimizer')]:
        for group in optimizer.param_groups:
            for key in [key for key in group if key.startswith('initial_')]:
                group[key.removeprefix('initial_')] = group[key]
    runner.param_schedulers = runner.build_param_scheduler(given)
    count_earlier_steps(runner, steps)
    ended = 0
    for done in range(1, steps + 1):
        begun = done * epochs // steps  # epochs may have been of another length
        for one in list_schedulers(runner):
            for _ in range(begun - ended if one.by_epoch else 1):
                one.step()
        ended = begun
    runner.logger.info(
        'the schedule has changed since the checkpoint was written: it was '
        'computed again from the first step'
    )
