"""Tensors that the backward pass computes again instead of having them saved.

A norm saves its input c, and the ReLU and the convolution behind it save z = relu(norm(c)). One of
the two is enough: z is elementwise in c. So while a block runs, whatever autograd wants to save is
looked up among the tensors that can be recomputed, and such a one is saved as the way to compute
it. No gradient is written anew for that: the plain form's own backward functions receive the same
values.

Chen et al., arXiv:1604.06174 (recomputation); Rota Bulò et al., arXiv:1712.02616, section 3 (which
of the two maps around a norm to keep; theirs is kept invertible by a leaky ReLU, ours is exact).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Compute = Callable[[], Tensor]

#: devices where the backward function of batch norm is known to hold mean and 1 / deviation
KEEP_STATISTICS = ('cpu',)


class Recomputation:
    """How to compute a tensor again. The value lives from the first use to the last."""

    def __init__(self, compute: Compute):
        self.compute = compute
        self.uses = self.left = 0
        self.value: Tensor | None = None

    def add_use(self) -> None:
        """Announce one more use."""
        self.uses += 1
        self.left += 1

    def take_value(self) -> Tensor:
        """Return the tensor, computed at most once for all uses."""
        if self.value is None:
            with torch.no_grad():
                self.value = self.compute()
        value = self.value
        self.left -= 1
        if self.left <= 0:  # the next ones are of another backward pass
            self.left, self.value = self.uses, None
        return value


class Registered(NamedTuple):
    """A tensor that can be recomputed, while its block runs."""

    recomputation: Recomputation
    tensor: Tensor  # kept, so that its address is not given to another
    version: int  # of the tensor, when it has the value that is recomputed


class RecomputeContext:
    """What of one block can be recomputed, by the storage of the tensor."""

    def __init__(self) -> None:
        self.registered: dict[int, Registered] = {}

    def register(self, tensor: Tensor, compute: Compute, version: int) -> None:
        """Remember how a tensor is computed, whose value holds at this version only."""
        self.registered[tensor.untyped_storage().data_ptr()] = Registered(
            Recomputation(compute), tensor.detach(), version
        )

    def pack(self, tensor: Tensor) -> Any:
        """Return what autograd saves in place of a tensor."""
        if not self.registered:  # also where tensors have no address, as those of subclasses
            return tensor, tensor._version
        found = self.registered.get(tensor.untyped_storage().data_ptr())
        # A hook or a user may have written to it since: then it is saved as it is now.
        if (
            found is None
            or found.tensor._version != found.version
            or found.tensor.dtype != tensor.dtype
        ):
            return tensor, tensor._version
        found.recomputation.add_use()
        return found.recomputation, tensor.size(), tensor.stride(), tensor.storage_offset()

    @staticmethod
    def unpack(packed: Any) -> Tensor:
        """Return the tensor again, be it a part of what is recomputed."""
        if len(packed) == 2:
            tensor, version = packed
            # saved_tensors_hooks skip autograd's own check of versions, so it is done here.
            if tensor._version != version:
                raise RuntimeError(
                    'a tensor that the backward pass needs was modified by an '
                    'inplace operation after the forward pass'
                )
            return tensor
        recomputation, size, stride, offset = packed
        return recomputation.take_value().as_strided(size, stride, offset)


_running = threading.local()


def current_context() -> RecomputeContext | None:
    """Return the context of the block that runs, if there is one and nobody else packs within it.

    A checkpointed part of a block is such a case: what it saves is not ours to pack or to look at.
    """
    context = getattr(_running, 'context', None)
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    if context is None or hooks is None or hooks[0] != context.pack:
        return None
    return context


@contextmanager
def recompute_in_backward(wanted: bool) -> Iterator[None]:
    """Have ``register_recompute`` take effect, unless tensors are packed by others already.

    Checkpointing and offloading pack them too, and of two packers autograd asks the inner one only.
    """
    if not wanted or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        yield
        return
    context = _running.context = RecomputeContext()
    try:
        with torch.autograd.graph.saved_tensors_hooks(context.pack, context.unpack):
            yield
    finally:
        _running.context = None
        context.registered.clear()


def register_recompute(
    y: Tensor, function: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> None:
    """Have ``y = function(*inputs)`` computed again rather than saved, where a context runs."""
    context = current_context()
    if context is None or y.grad_fn is None:
        return
    saved = [saved_or_recomputed(context, tensor) for tensor in inputs]
    context.register(y, lambda: function(*(tensor() for tensor in saved)), y._version)


def saved_or_recomputed(context: RecomputeContext, tensor: Tensor) -> Compute:
    """Return how a tensor will be had in the backward pass."""
    packed = context.pack(tensor.detach())
    return lambda: context.unpack(packed)


def register_norm_relu(y: Tensor, c: Tensor, norm: nn.BatchNorm2d) -> None:
    """Have y = relu(norm(c)) computed again; to be called before the ReLU is applied in place."""
    context = current_context()
    if context is None or y.grad_fn is None or not norm.training:
        return
    c, weight, bias, eps = c.detach(), norm.weight, norm.bias, norm.eps
    mean = deviation = None
    if c.device.type in KEEP_STATISTICS:
        mean = getattr(y.grad_fn, '_saved_result1', None)
        deviation = getattr(y.grad_fn, '_saved_result2', None)
    versions = weight._version, bias._version

    def compute() -> Tensor:
        if versions != (weight._version, bias._version):
            raise RuntimeError(
                'the weight or bias of a norm was modified by an inplace operation '
                'between forward and backward pass'
            )
        if mean is None or deviation is None:  # they are taken of the batch once more
            return F.relu_(F.batch_norm(c, None, None, weight, bias, True, 0.0, eps))
        return F.relu_(
            F.batch_norm(c, mean, deviation.pow(-2) - eps, weight, bias, False, 0.0, eps)
        )

    context.register(y, compute, y._version + 1)  # the ReLU's own writing counts one
