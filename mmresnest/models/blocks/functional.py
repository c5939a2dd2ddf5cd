"""The step that all of these networks are made of: convolution, norm, and what follows them.

    y = act(gates(norm(W x)) + shortcut)

Blocks, stems and shortcuts call it, and nothing else of them has a faster form. Which one, and for
which modules it is right, :mod:`..fast` decides; a definition only asks.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def relu(x: Tensor) -> Tensor:
    """Apply ReLU in place."""
    return F.relu(x, inplace=True)


class FastForm(Protocol):
    """Another way to compute what the definitions say; None where it does not apply."""

    def conv_norm_act(
        self,
        conv: nn.Module,
        norm: nn.Module,
        x: Tensor,
        gates: Sequence[nn.Module],
        add: Tensor | None,
        act: Activation | None,
    ) -> Tensor | None:
        """Compute the step of :class:`ConvNormAct`."""

    def split_attention(self, module: nn.Module, u: Tensor) -> Tensor | None:
        """Weigh the splits of a map, as ``SplitWeighting.attend`` does."""

    def recompute(self, y: Tensor, function: Callable[..., Tensor], inputs: Sequence) -> None:
        """Have ``y = function(*inputs)`` computed again by the backward pass, not saved."""

    def recompute_scope(self, module: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which ``recompute`` has effect."""


class ConvNormAct:
    """What a module inherits that is made of convolutions with norms; it has no state."""

    #: put here by ``fast.enable``; None: the definition
    fast: FastForm | None = None

    def conv_norm_act(
        self,
        conv: nn.Module,
        norm: nn.Module,
        x: Tensor,
        *,
        gates: Sequence[nn.Module] = (),
        add: Tensor | None = None,
        act: Activation | None = relu,
    ) -> Tensor:
        """Return act(gates(norm(conv(x))) + add): B I H W -> B O H' W'."""
        if self.fast is not None and not torch.compiler.is_compiling():
            y = self.fast.conv_norm_act(conv, norm, x, gates, add, act)
            if y is not None:
                return y
        y = norm(conv(x))
        for gate in gates:
            y = gate(y)
        if add is not None:
            y = y + add
        return y if act is None else act(y)

    def recomputable(self, function: Callable[..., Tensor], *inputs) -> Tensor:
        """Return function(*inputs), which is cheap: the backward pass may compute it again."""
        y = function(*inputs)
        if self.fast is not None and not torch.compiler.is_compiling():
            self.fast.recompute(y, function, inputs)
        return y

    def recompute_scope(self) -> AbstractContextManager[None]:
        """Return the context for a block, or the stem: what it saves, it may recompute."""
        if self.fast is None or torch.compiler.is_compiling():
            return nullcontext()
        assert isinstance(self, nn.Module)
        return self.fast.recompute_scope(self)


class ConvNormSequential(ConvNormAct, nn.Sequential):
    """A stem or a shortcut: layers in order, a convolution with its norm and ReLU as one step."""

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> what the last layer returns."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.Conv2d) and layers:
                norm = layers.pop(0)
                act = layers.pop(0) if layers and isinstance(layers[0], nn.ReLU) else None
                x = self.conv_norm_act(layer, norm, x, act=act)
            else:
                x = layer(x)
        return x
