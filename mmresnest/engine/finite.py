"""Find losses, gradients and weights that are not finite, and say where they came from.

mmengine trains on to the end with a loss that is not a number, and saves weights that are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from torch import Tensor

from ..errors import UserError
from ..utils.text import format_some
from . import checkpoints
from .wrappers import unwrap_model

CAUSES = (
    'Usual causes are a learning rate too high for the batch (train --auto-scale-lr), no '
    'warmup, no clip_grad, and wrong annotations (`mmresnest check-data CONFIG`).'
)


class LossReport:
    """What an iteration of a training was about.

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

    def is_bad(self) -> Tensor:
        """Return whether a term of the loss is not finite; an accuracy of nothing may be so."""
        return has_not_finite(value for name, value in self.terms.items() if 'loss' in name)

    def __str__(self) -> str:
        terms = ', '.join(
            f'{name} {float(value.float().mean()):.4g}' for name, value in self.terms.items()
        )
        return (
            f'{terms or "terms of the loss unknown"}; images '
            f'{format_some(self.names) if self.names else "unknown"}'
        )


def gather_report(report: LossReport, bad_loss: bool, bad_gradients: Sequence[str] = ()) -> str:
    """Say what happened in the processes where it began; all must call."""
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
    whose = f' of {format_some(bad_gradients)}' if bad_gradients and what == 'gradients are' else ''
    return f'{what} not finite at iteration {report.iteration}{whose}: {details}'


def name_last_checkpoint(runner: Any) -> str:
    """Name the checkpoint from which a run can resume."""
    found = checkpoints.find_last(Path(runner.work_dir))
    if found is None:
        return 'No checkpoint was written before.'
    return f'The last good checkpoint is {found}, from which --resume goes on.'


def image_names(batch: Any) -> list[str]:
    """Return the paths of the images in a batch, as far as it has them."""
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else batch
    if isinstance(samples, Mapping):  # of several branches, as semi-supervised ones have
        samples = [one for branch in samples.values() for one in branch or ()]
    if not isinstance(samples, (list, tuple)):
        return []
    return [str(path) for path in (getattr(one, 'img_path', None) for one in samples) if path]


def has_overflow(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether any value, or its square, is not finite: several times faster.

    The answer stays on the device, which is not waited for.
    """
    return _any_not_finite(torch._foreach_norm(parts) if (parts := _local_shards(tensors)) else ())


def has_not_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether any value is not finite, on the device."""
    return _any_not_finite(_local_shards(tensors))


def _any_not_finite(tensors: Iterable[Tensor]) -> Tensor:
    flags = [one.isfinite().all() for one in tensors]
    if not flags:
        return torch.tensor(False)
    return ~torch.stack([flag.to(flags[0].device) for flag in flags]).all()


def _local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [part for part in map(_local_shard, tensors) if part.numel()]


def _local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, 'to_local') else tensor


def any_process(bad: Tensor) -> bool:
    """Return whether a flag is set on any process; all must call."""
    flag = bad.detach().float()
    all_reduce(flag, 'max')
    return bool(flag)


def refuse_bad_weights(runner: Any, done: int) -> None:
    """End a training whose weights are not finite, before it saves or scores them.

    Args:
        runner: of the training.
        done: iterations that are done.

    Raises:
        UserError: on all processes.
    """
    model = unwrap_model(runner.model)
    named: list[tuple[str, Tensor]] = [*model.named_parameters()]
    named += [(name, buffer) for name, buffer in model.named_buffers() if is_statistic(name)]
    values = [value for _, value in named]
    if any_process(has_overflow(values)) and any_process(has_not_finite(values)):
        bad = [name for name, value in named if bool(has_not_finite([value]))]
        raise UserError(
            f'the weights are not finite after iteration {done}: '
            f'{format_some(bad) or "those of other processes"}; they are not saved. '
            f'{name_last_checkpoint(runner)} {CAUSES}',
            code='training.not-finite',
        )


def is_statistic(name: str) -> bool:
    """Return whether a buffer is a running statistic of a norm."""
    return name.rpartition('.')[2] in ('running_mean', 'running_var')
