"""Tensors that the backward pass computes again instead of having them saved.

A norm saves its input c, and the ReLU and the convolution behind it save z = relu(norm(c)). One of
the two is enough: z is elementwise in c. So while a block runs, whatever autograd wants to save is
held against a list of recipes, and a tensor that has one is saved as its recipe. No gradient is
written anew for that: the plain form's own backward functions receive the same values.

Chen et al., arXiv:1604.06174 (recomputation); Rota Bulò et al., arXiv:1712.02616, section 3 (which
of the two maps around a norm to keep; theirs is kept invertible by a leaky ReLU, ours is exact).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Compute = Callable[[], Tensor]

#: devices where the backward function of batch norm is known to hold mean and 1 / deviation
KEEP_STATISTICS = ('cpu',)


class Recipe:
    """How to compute a tensor again. The value lives from the first use to the last."""

    def __init__(self, compute: Compute):
        self.compute = compute
        self.uses = self.left = 0
        self.value: Tensor | None = None

    def expect(self) -> None:
        """Announces one more use."""
        self.uses += 1
        self.left += 1

    def use(self) -> Tensor:
        """The tensor, computed at most once for all uses."""
        if self.value is None:
            with torch.no_grad():
                self.value = self.compute()
        value = self.value
        self.left -= 1
        if self.left <= 0:  # the next ones are of another backward pass
            self.left, self.value = self.uses, None
        return value


class Recipes:
    """The recipes of one block, by the storage of the tensor that each makes."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Recipe, Tensor]] = {}

    def add(self, tensor: Tensor, compute: Compute) -> None:
        """Remembers a recipe, and keeps the tensor: its address must not be given to another."""
        self.made[tensor.untyped_storage().data_ptr()] = Recipe(compute), tensor.detach()

    def pack(self, tensor: Tensor) -> Any:
        """What autograd saves in place of a tensor."""
        found = self.made.get(tensor.untyped_storage().data_ptr())
        if found is None:
            return tensor, tensor._version
        found[0].expect()
        return found[0], tensor.size(), tensor.stride(), tensor.storage_offset()

    @staticmethod
    def unpack(packed: Any) -> Tensor:
        """The tensor again, be it a part of what the recipe makes."""
        if len(packed) == 2:
            tensor, version = packed
            if tensor._version != version:  # who packs a tensor has to look after it
                raise RuntimeError(
                    'a tensor that the backward pass needs was modified by an '
                    'inplace operation after the forward pass'
                )
            return tensor
        recipe, size, stride, offset = packed
        return recipe.use().as_strided(size, stride, offset)


_running = threading.local()


@contextmanager
def recomputing(wanted: bool) -> Iterator[None]:
    """Where ``remember`` has effect, unless tensors are packed by somebody else already.

    Checkpointing and offloading pack them too, and of two packers autograd asks the inner one only.
    """
    if not wanted or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        yield
        return
    recipes = _running.recipes = Recipes()
    try:
        with torch.autograd.graph.saved_tensors_hooks(recipes.pack, recipes.unpack):
            yield
    finally:
        _running.recipes = None
        recipes.made.clear()


def remember(tensor: Tensor, compute: Compute) -> None:
    """Has a tensor computed again rather than saved, within ``recomputing``."""
    recipes = getattr(_running, 'recipes', None)
    if recipes is not None:
        recipes.add(tensor, compute)


def again(tensor: Tensor) -> Compute:
    """How a tensor will be had in the backward pass, for recipes that build on it."""
    recipes = getattr(_running, 'recipes', None)
    if recipes is None:
        return tensor.detach
    packed = recipes.pack(tensor.detach())
    return lambda: recipes.unpack(packed)


def remember_normed(y: Tensor, c: Tensor, norm: nn.BatchNorm2d) -> None:
    """The same for y = relu(norm(c)); to be called before the ReLU is applied in place."""
    if getattr(_running, 'recipes', None) is None or y.grad_fn is None or not norm.training:
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

    remember(y, compute)
