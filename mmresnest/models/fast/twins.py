"""The fast form: the step of the definitions over convolutions that have their norms folded in.

Two things are computed otherwise than a step at a time: the gate of squeeze-and-excitation, whose
scale is known before the map that it scales, and the weighing of split attention, in one pass for
each split. All else of a network is its definition.

Whatever records a gradient is computed as it is defined, unless memory is to be saved: see
:mod:`.recompute`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import DropPath, SplitWeighting, SqueezeExcite
from ..blocks.functional import Activation, relu
from .attention import MeanFunction, SplitAttentionFunction, split_attention_sum
from .convolution import (
    PLACES_PER_CHANNEL,
    Affine,
    PackedConv2d,
    ScaledConv,
    add_relu_,
    convolve,
    fold_batch,
    fold_fixed,
    fold_norm,
    version_of,
)
from .guards import DEVICES, is_eager, is_known
from .recompute import (
    current_context,
    recompute_in_backward,
    register_norm_relu,
    register_recompute,
    saved_or_recomputed,
)


class Folded(NamedTuple):
    """A convolution with its norm folded in.

    Attributes:
        sources: what it was made of, held so that no other tensor comes to lie at an address.
        stamps: addresses and versions that these had.
        conv: the result.
    """

    sources: tuple[Tensor, ...]
    stamps: tuple[tuple[int, int], ...]
    conv: PackedConv2d


class FoldCache:
    """Convolutions with the norms behind them folded in, for as long as their weights stay."""

    def __init__(self) -> None:
        self.folded: dict[tuple[nn.Module, nn.Module | None], Folded] = {}

    def find(self, conv: nn.Conv2d, norm: nn.Module | None = None) -> PackedConv2d | None:
        """Return both as one convolution, folded anew if a weight or a statistic has changed.

        None where the norm is no batch norm with fixed statistics.
        """
        norm = None if isinstance(norm, nn.Identity) else norm
        if norm is None and isinstance(conv, PackedConv2d):
            return conv
        if norm is not None and (not isinstance(norm, nn.BatchNorm2d) or norm.training):
            return None
        tensors = [conv.weight, conv.bias]
        if norm is not None:
            tensors += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        given = [one for one in tensors if one is not None]
        stamps = tuple((one.data_ptr(), version_of(one)) for one in given)
        found = self.folded.get((conv, norm))
        if found is None or found.stamps != stamps:
            sources = tuple(one.detach() for one in given)
            found = self.folded[conv, norm] = Folded(sources, stamps, fold_pair(conv, norm))
        return found.conv


@torch.no_grad()
def fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> PackedConv2d:
    """Return a convolution beside the given one, with the norm folded in."""
    packed = PackedConv2d.from_conv(conv)
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        folded = fold_norm(conv, norm, norm.running_mean, norm.running_var)
        packed.weight = nn.Parameter(folded.weight, requires_grad=False)
        packed.bias = nn.Parameter(folded.bias, requires_grad=False)
    return packed


@dataclass(frozen=True)
class FoldedForm:
    """A :class:`~..blocks.functional.FastForm`.

    Args:
        save_memory: take the place of definitions in training, too, and recompute in the backward
            pass what is cheap.
        cache: keeps what is folded for inference from one call to the next.
    """

    save_memory: bool = False
    cache: FoldCache | None = field(default=None, compare=False)

    def conv_norm_act(
        self,
        conv: nn.Module,
        norm: nn.Module,
        x: Tensor,
        gates: Sequence[nn.Module],
        add: Tensor | None,
        act: Activation | None,
    ) -> Tensor | None:
        """Compute act(gates(norm(conv(x))) + add), or return None."""
        if (
            not is_eager(x)
            or not isinstance(conv, nn.Conv2d)
            or not is_known(conv)
            or not is_known(norm)
            or not (act is None or act is relu or type(act) is nn.ReLU and is_known(act))
            or not (add is None or type(add) is Tensor)
        ):
            return None
        records = is_recorded(x, add, *conv.parameters(), *norm.parameters())
        if not self.save_memory and (records or norm.training and type(norm) is nn.BatchNorm2d):
            return None
        gates = [gate for gate in gates if not is_identity(gate)]
        if not gates:
            return self._fold_or_call(conv, norm, x, add, act is not None)
        if len(gates) == 1 and isinstance(gates[0], SqueezeExcite) and is_known(gates[0]):
            return squeeze_excite(conv, norm, x, gates[0], add, act is not None)
        return None

    def _fold_or_call(
        self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, add: Tensor | None, with_relu: bool
    ) -> Tensor | None:
        if self.cache is not None and not is_recorded(
            x, add, *conv.parameters(), *norm.parameters()
        ):
            packed = self.cache.find(conv, norm)
            if packed is not None:
                return convolve(packed, x, packed.weight, packed.bias, add, with_relu)
        folded = fold_fixed(conv, norm, x) or fold_batch(conv, norm, x)
        if folded is not None:
            return convolve(conv, x, folded.weight, folded.bias, add, with_relu)
        c = conv(x)
        y = norm(c)
        if with_relu and add is None and isinstance(norm, nn.BatchNorm2d):
            register_norm_relu(y, c, norm)
        return add_relu_(y, add, with_relu)

    def split_attention(self, module: nn.Module, u: Tensor) -> Tensor | None:
        """Compute sum_r a_r u_r: B RC H W -> B C H W, or return None."""
        if (
            not isinstance(module, SplitWeighting)
            or not is_known(module)
            or not is_eager(u)
            or module.sum_splits_first
            or torch.is_autocast_enabled(u.device.type)
        ):
            return None
        if not is_recorded(u, *module.fc1.parameters(), *module.fc2.parameters()):
            return split_attention_sum(u, module.attention(module.squeeze(u)), module.channels)
        if not self.save_memory or not u.requires_grad:
            return None
        return attend_in_place(module, u)

    def recompute(self, y: Tensor, function: Callable[..., Tensor], inputs: Sequence) -> None:
        """Have ``y = function(*inputs)`` computed again by the backward pass, not saved."""
        if self.save_memory and y.device.type in DEVICES:
            register_recompute(y, function, inputs)

    def recompute_scope(self, module: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which ``recompute`` has effect, if a backward pass may come."""
        return recompute_in_backward(
            self.save_memory and module.training and torch.is_grad_enabled()
        )


def is_recorded(*tensors: Tensor | None) -> bool:
    """Return whether autograd records what is computed of these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def is_identity(gate: nn.Module) -> bool:
    """Return whether a module, known to the letter, hands on what it is given."""
    return is_known(gate) and (
        isinstance(gate, nn.Identity) or isinstance(gate, DropPath) and not gate.training
    )


def squeeze_excite(
    conv: nn.Conv2d,
    norm: nn.Module,
    x: Tensor,
    gate: SqueezeExcite,
    add: Tensor | None,
    with_relu: bool,
) -> Tensor | None:
    """Compute relu(se(norm(conv(x))) + add), or return None.

    The mean of W x + b is W mean(x) + b: the scale is known before the map is computed.
    """
    records = is_recorded(x, *conv.parameters(), *norm.parameters(), *gate.parameters())
    # ScaledConv's backward loops over the samples: slower than the definition on small maps.
    is_small = x.shape[2] * x.shape[3] < PLACES_PER_CHANNEL * x.shape[1]
    if (
        conv.weight.shape[2:] != (1, 1)
        or conv.groups > 1
        or conv.stride != (1, 1)
        or conv.padding != (0, 0)
        or torch.is_autocast_enabled(x.device.type)
        or records
        and is_small
    ):
        return None
    folded: Affine | None = fold_fixed(conv, norm, x) or fold_batch(conv, norm, x)
    if folded is None:
        return None
    z = F.linear(x.mean((2, 3)), folded.weight.flatten(1), folded.bias)  # B 4p
    s = gate.excitation(z[:, :, None, None])  # B 4p 1 1
    if records:
        return add_relu_(ScaledConv.apply(x, folded.weight, folded.bias, s), add, with_relu)
    y = convolve(conv, x, folded.weight, folded.bias)
    y = y.mul_(s) if add is None else torch.addcmul(add, y, s)
    return y.relu_() if with_relu else y


def attend_in_place(module: SplitWeighting, u: Tensor) -> Tensor:
    """Compute sum_r a_r u_r for training, whose result the backward pass computes again."""
    context = current_context()
    values = None if context is None else saved_or_recomputed(context, u)
    u, means = MeanFunction.apply(u)
    a = module.attention(sum(means.split(module.channels, 1)))  # B RC 1 1
    V = SplitAttentionFunction.apply(u, a, module.channels)  # B C H W
    if context is not None and values is not None:
        weights = a.detach()
        context.register(
            V, lambda: split_attention_sum(values(), weights, module.channels), V._version
        )
    return V
