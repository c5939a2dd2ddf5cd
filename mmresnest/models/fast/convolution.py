"""A convolution and its norm as one step: what the norm does to the map is done to the weights.

    k (W x - mu) + beta = W' x + b'      W' = k W,  b' = beta - k mu,  k = gamma / sqrt(var + eps)

The statistics are at hand before the map is in two cases. They are fixed: in evaluation, in frozen
stages, with ``norm_eval``. Or the convolution is a 1x1 that does not narrow, where the batch's
statistics follow from the first two moments of its input, a map of a quarter of the channels:

    mu = W m        var = diag(W C W^T)        m = mean(x),  C = mean(x x^T) - m m^T

Then the wide map is written once, and neither normalised in a second pass nor kept for the
backward pass. Everything but the moments is plain algebra on small tensors, left to autograd. The
rest is normalised as it is defined.

On a CPU, oneDNN adds the shortcut and applies the ReLU while it writes, where nothing has a
gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._device import DeviceContext

from .recompute import remember_normed

#: types of devices on which the twins compute; on all others their definitions do. No GPU was at
#: hand to show that they are right and fast there: ``fast.DEVICES.add('cuda')`` tries.
DEVICES = {'cpu'}

# The moments of C channels cost 2 C^2 multiplications a place, and C^2 O in all; they save passes
# over O channels. Worth it where places abound and C is not too large beside O: measured on a CPU.
PLACES_PER_CHANNEL = 4
TERMS_PER_OUTPUT = 128


class PackedConv2d(nn.Conv2d):
    """A convolution for inference whose weights are also kept in oneDNN's own order."""

    packed: tuple[tuple, Tensor] | None = None

    def pack(self, x: Tensor) -> Tensor:
        """The weights in that order; made when first needed, and anew after they have changed."""
        key = self.weight.data_ptr(), 0 if self.weight.is_inference() else self.weight._version
        if self.packed is None or self.packed[0] != key:
            reorder: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.packed = (
                key,
                reorder(
                    self.weight.detach().to_mkldnn(),
                    self.padding,
                    self.stride,
                    self.dilation,
                    self.groups,
                    list(x.shape),
                ),
            )
        return self.packed[1]

    def forward(self, input: Tensor) -> Tensor:
        """The convolution; its bias, and nothing else, behind it."""
        if not eager(input):
            return super().forward(input)
        return convolve(self, input, self.weight, self.bias)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop('packed', None)
        return state


class Affine(NamedTuple):
    """A convolution with its norm folded in."""

    weight: Tensor  # O I k k
    bias: Tensor  # O
    pooled: Tensor | None  # B I: means of the input, where they were needed


def eager(x: Tensor) -> bool:
    """Whether ``x`` is computed with here and now: nothing traces, transforms or counts."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and not torch.jit.is_tracing()
        and x.device.type in DEVICES
        and x.numel() > 0
        and not torch._C._len_torch_dispatch_stack()
        and not watched()
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def watched() -> bool:
    """Whether somebody looks at the functions that are called, as PreciseBN does at batch norms.

    A default device (``torch.set_default_device``) is such a mode too, and looks at nothing.
    """
    stack = map(torch._C._get_function_stack_at, range(torch._C._len_torch_function_stack()))
    return any(not isinstance(mode, DeviceContext) for mode in stack)


def hooked(*modules: nn.Module) -> bool:
    """Whether anybody waits for one of these modules to be called."""
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )


def conv_norm(
    conv: nn.Module, norm: nn.Module, x: Tensor, *, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """relu(norm(conv(x)) + add): B I H W -> B O H' W'."""
    if ordinary(conv):
        folded = fold(conv, norm, x)
        if folded is not None:
            return convolve(conv, x, folded.weight, folded.bias, add, relu)
        c = convolve(conv, x, conv.weight, conv.bias)
    else:
        c = conv(x)
    y = norm(c)
    if relu and add is None and type(norm) is nn.BatchNorm2d:
        remember_normed(y, c, norm)
    return finish(y, add, relu)


def ordinary(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution and no more: its weights may be used in its place."""
    return (
        type(conv) in (nn.Conv2d, PackedConv2d)
        and not hooked(conv)
        and conv.padding_mode == 'zeros'
    )


def finish(y: Tensor, add: Tensor | None, relu: bool) -> Tensor:
    """relu(y + add), in place: y is a map of our own."""
    if add is not None:
        y = y.add_(add) if y.dtype == add.dtype else y + add
    return F.relu(y, inplace=True) if relu else y


def fold(conv: nn.Conv2d, norm: nn.Module, x: Tensor, pool: bool = False) -> Affine | None:
    """The convolution that norm and convolution are together, if it can be had and is worth it."""
    if hooked(norm):
        return None
    means = x.mean((2, 3)) if pool else None  # B I
    if type(norm) is nn.Identity:
        return None if conv.bias is None else Affine(conv.weight, conv.bias, means)
    if (
        not isinstance(norm, _BatchNorm)
        or norm.weight is None
        or norm.running_mean is None
        or norm.running_var is None
    ):
        return None
    places = x.shape[0] * x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])
    if not norm.training:
        if places < conv.weight[0].numel():  # more to do on the weights than on the map
            return None
        return affine(conv, norm, norm.running_mean, norm.running_var, means)
    if (
        type(norm) is not nn.BatchNorm2d
        or conv.weight.shape[2:] != (1, 1)
        or conv.groups > 1
        or conv.stride != (1, 1)
        or conv.bias is not None
        or conv.padding != (0, 0)
        or conv.in_channels > conv.out_channels
        or conv.in_channels**2 > TERMS_PER_OUTPUT * conv.out_channels
        or places < PLACES_PER_CHANNEL * conv.in_channels
    ):
        return None
    # Half precision and TF32 have too few digits for a variance as a difference of moments.
    if (
        x.device.type != 'cpu'
        or x.dtype not in (torch.float32, torch.float64)
        or x.dtype != conv.weight.dtype
        or torch.is_autocast_enabled('cpu')
    ):
        return None
    means, squares = Moments.apply(x)  # B I, I I
    m = means.mean(0)  # I
    W = conv.weight.flatten(1)  # O I
    mean = W @ m  # O
    var = (W @ (squares / places - torch.outer(m, m)) * W).sum(1).clamp_min(0)  # O
    track(norm, mean.detach(), var.detach(), places)
    return affine(conv, norm, mean, var, means)


def affine(
    conv: nn.Conv2d, norm: _BatchNorm, mean: Tensor, var: Tensor, pooled: Tensor | None
) -> Affine:
    """W' and b', differentiable in whatever they are made of."""
    k = norm.weight * (var + norm.eps).rsqrt()  # O
    bias = norm.bias - mean * k  # O
    if conv.bias is not None:
        bias = bias + conv.bias * k
    return Affine(conv.weight * k.view(-1, 1, 1, 1), bias, pooled)


@torch.no_grad()
def track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, places: int) -> None:
    """Counts a batch in the running statistics, as ``BatchNorm2d`` does."""
    if norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # the running average of all batches
            momentum = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, momentum or 0.0)
    norm.running_var.lerp_(var * (places / (places - 1)), momentum or 0.0)


class Moments(Function):
    """x -> mean of each sample, sum of all x x^T: B C H W -> B C, C C."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """The sum is the gradient that a 1x1 convolution's weights would have: one fast kernel."""
        ctx.save_for_backward(x)
        channels = x.shape[1]
        squares = conv2d_weight(x, (channels, channels, 1, 1), x)
        return x.mean((2, 3)), squares.flatten(1)

    @staticmethod
    def backward(ctx: Any, means: Tensor, squares: Tensor) -> Tensor:
        """Of ops that have gradients themselves."""
        (x,) = ctx.saved_tensors
        twice = (squares + squares.t())[:, :, None, None]  # C C 1 1
        return F.conv2d(x, twice) + (means / (x.shape[2] * x.shape[3]))[:, :, None, None]


class ScaledConv(Function):
    """s * (W x + b) for a 1x1 convolution, with the map before the scale neither kept nor read.

    Its gradients are sums over the places p of each sample b:

        A_b = sum_p d_p x_p^T               S_b = sum_p d_p
        ds_b = rowsum(W A_b) + b S_b        dW = sum_b s_b A_b        db = sum_b s_b S_b
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        """B I H W, O I 1 1, O, B O 1 1 -> B O H W."""
        ctx.save_for_backward(x, weight, bias, scale)
        return F.conv2d(x, weight, bias).mul_(scale)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, ...]:
        """Sample by sample."""
        x, weight, bias, scale = ctx.saved_tensors
        s = scale.flatten(1)  # B O
        A = torch.stack(
            [conv2d_weight(x[b : b + 1], weight.shape, d[b : b + 1]) for b in range(x.shape[0])]
        ).flatten(2)  # B O I
        S = d.sum((2, 3))  # B O
        ds = (weight.flatten(1) * A).sum(2) + bias * S  # B O
        dW = (s.unsqueeze(2) * A).sum(0).view_as(weight)  # O I 1 1
        dx = torch.cat(
            [
                conv2d_input(x[b : b + 1].shape, weight * s[b].view(-1, 1, 1, 1), d[b : b + 1])
                for b in range(x.shape[0])
            ]
        )  # B I H W
        return dx, dW, (s * S).sum(0), ds.view_as(scale)


def convolve(
    conv: nn.Conv2d,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """relu(weight * x + bias + add) with the geometry of ``conv``."""
    if not by_onednn(x, weight, add):
        return finish(
            F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups),
            add,
            relu,
        )
    if isinstance(conv, PackedConv2d) and weight is conv.weight:
        weight = conv.pack(x)
    geometry = weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups
    point = torch.ops.mkldnn._convolution_pointwise
    if add is None:
        return point(x, *geometry, 'relu' if relu else 'none', [], '')
    return point.binary(x, add, *geometry, 'add', 1.0, 'relu' if relu else None, [], '')


def by_onednn(x: Tensor, weight: Tensor, add: Tensor | None) -> bool:
    """Whether oneDNN can take what follows a convolution along with it."""
    return (
        x.device.type == 'cpu'
        and x.dtype == weight.dtype == torch.float32
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and (add is None or add.dtype == x.dtype)
        and not torch.is_autocast_enabled('cpu')
        and not (
            torch.is_grad_enabled()
            and (x.requires_grad or weight.requires_grad or add is not None and add.requires_grad)
        )
    )
