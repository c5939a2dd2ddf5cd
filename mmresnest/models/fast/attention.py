"""What split attention does to the whole map, each thing in one pass over it.

Both are the plain form's operations with gradients that write into place: the two parts of u's
gradient, one through the sum, one through the attention, are added where they lie.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class MeanFunction(Function):
    """u -> u, mean(u): B C H W -> B C H W, B C 1 1."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same map, and its means."""
        ctx.size = u.shape[2] * u.shape[3]
        return u.view_as(u), u.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, du: Tensor, ds: Tensor) -> Tensor:
        """Add both gradients; ``du`` is SplitAttentionFunction's own, so it may be written to."""
        share = ds / ctx.size
        return du + share if torch.is_grad_enabled() else du.add_(share)


class SplitAttentionFunction(Function):
    """V = sum_r a_r * u_r: B RC H W, B RC 1 1 -> B C H W."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, a: Tensor, channels: int) -> Tensor:
        """Return V, and save u and a only."""
        ctx.save_for_backward(u, a)
        ctx.channels = channels
        return split_attention_sum(u, a, channels)

    @staticmethod
    def backward(ctx: Any, dV: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return du_r = a_r dV, and da_r, the sum of u_r dV over the places."""
        u, a = ctx.saved_tensors
        splits, weights = u.split(ctx.channels, 1), a.split(ctx.channels, 1)
        if torch.is_grad_enabled():  # somebody differentiates twice
            return (
                torch.cat([a_r * dV for a_r in weights], 1),
                torch.cat([(u_r * dV).sum((2, 3), keepdim=True) for u_r in splits], 1),
                None,
            )
        du, product, da = torch.empty_like(u), torch.empty_like(dV), torch.empty_like(a)
        for r, (u_r, a_r) in enumerate(zip(splits, weights)):
            own = slice(r * ctx.channels, (r + 1) * ctx.channels)
            torch.mul(dV, a_r, out=du[:, own])
            torch.mul(dV, u_r, out=product)
            da[:, own] = product.sum((2, 3), keepdim=True)
        return du, da, None


def split_attention_sum(u: Tensor, a: Tensor, channels: int) -> Tensor:
    """Return V without a map in between."""
    splits, weights = u.split(channels, 1), a.split(channels, 1)
    V = splits[0] * weights[0]  # B C H W
    for u_r, a_r in zip(splits[1:], weights[1:]):
        V.addcmul_(u_r, a_r)
    return V
