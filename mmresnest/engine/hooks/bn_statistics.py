"""Population statistics of batch norms (Wu and Johnson, arXiv:2105.07576, section 3).

Over the n values x that one channel of a norm was given, in all batches and all processes:

    mu      = 1/n sum x
    sigma^2 = 1/n sum x^2 - mu^2

Every value counts alike, so batches of different size do not count alike. Summed as means and
squared deviations, which do not cancel as the two terms of the second line do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode

from ...deploy import compile_disabled

Batch = TypeVar('Batch')


class Moments:
    """Count, mean and summed squared deviation of each channel that one norm was given.

    Args:
        channels: C.
        device: where the norm is.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == 'mps' else torch.float64  # all that it has
        self.count = 0
        self.mean = torch.zeros(channels, dtype=dtype, device=device)  # C
        self.deviation = torch.zeros_like(self.mean)  # C

    def add(self, x: Tensor) -> None:
        """Add a map, B C ..., by the update of Chan, Golub and LeVeque (1983), eq. 2.1."""
        if not x.numel():
            return
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        count = x.numel() // x.shape[1]
        over = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(x, over, correction=0)  # C
        total = self.count + count
        step = mean - self.mean
        self.mean += step * (count / total)
        self.deviation += var * count + step.square() * (self.count * count / total)
        self.count = total


def pool_moments(moments: list[Moments]) -> list[tuple[float, Tensor, Tensor]]:
    """Return count, mean and variance of each norm over all processes."""
    # One message for all norms: count per channel, and what is summed beside it.
    count = torch.cat([torch.full_like(one.mean, one.count) for one in moments])
    mean = torch.cat([one.mean for one in moments])
    deviation = torch.cat([one.deviation for one in moments])
    total, weighted = count.clone(), count * mean
    all_reduce(total)
    all_reduce(weighted)
    center = weighted / total.clamp(min=1)
    deviation = deviation + count * (mean - center).square()
    all_reduce(deviation)
    sizes = [one.mean.numel() for one in moments]
    return [
        (float(n[0]), mu, squares / n.clamp(min=1))
        for n, mu, squares in zip(total.split(sizes), center.split(sizes), deviation.split(sizes))
    ]


class NormInputs(TorchFunctionMode):
    """Record the input of norms that compute with the statistics of their batch.

    Plain batch norm is seen where it calls :func:`torch.nn.functional.batch_norm`, since a
    network may call that for it, as split attention does; a kind of its own (SyncBN) as a module.

    Args:
        norms: the norms to watch.
    """

    def __init__(self, norms: list[nn.Module]) -> None:
        super().__init__()
        means = [norm.get_buffer('running_mean') for norm in norms]
        self.moments = [Moments(mean.numel(), mean.device) for mean in means]
        plain = [type(norm).forward is _BatchNorm.forward for norm in norms]
        # The norms outlive this, so that an id is the id of one tensor.
        self._by_mean = {
            id(mean): moments for mean, moments, seen in zip(means, self.moments, plain) if seen
        }
        self._handles = [
            norm.register_forward_pre_hook(
                lambda module, args, moments=moments: moments.add(args[0])
            )
            for norm, moments, seen in zip(norms, self.moments, plain)
            if not seen
        ]

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call the function; record what a batch norm is given."""
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs['training']:
            moments = self._by_mean.get(id(args[1]))
            if moments is not None:
                moments.add(args[0])
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        """Stop recording."""
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)


def norms_in_training(model: nn.Module) -> list[nn.Module]:
    """Return the batch norms whose running statistics a training step would move."""
    return [
        module
        for module in model.modules()
        if module.training
        and not isinstance(module, _InstanceNorm)
        and module._buffers.get('running_mean') is not None
        and module._buffers.get('running_var') is not None
    ]


@contextmanager
def preserve_buffers(model: nn.Module) -> Iterator[None]:
    """Restore every buffer at the end: counters of norms, and what losses remember."""
    before = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for owner, name, buffer, value in before:
            buffer.copy_(value)
            owner[name] = buffer


@torch.no_grad()
def estimate_statistics(
    model: nn.Module, forward: Callable[[Batch], object], batches: Iterable[Batch]
) -> int:
    """Set running mean and variance of the norms in training mode to their population's.

    Norms that no batch reached keep what they have. So do those of split attention at a batch of
    one: there they compute with their running statistics in training, too.

    Args:
        model: the network, in the mode that it is trained in.
        forward: runs the model on a batch as in training.
        batches: as many on each process, where there are several.

    Returns:
        how many norms were set.
    """
    norms = norms_in_training(model)
    if not norms:
        return 0
    with compile_disabled(), preserve_buffers(model), NormInputs(norms) as watch:
        for batch in batches:
            forward(batch)
    reached = 0
    for norm, (count, mean, var) in zip(norms, pool_moments(watch.moments)):
        if count:
            norm.get_buffer('running_mean').copy_(mean)
            norm.get_buffer('running_var').copy_(var)
            reached += 1
    return reached
