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
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.nn.modules.batchnorm import _BatchNorm

from .guards import add_known, is_eager
from .winograd import can_use_winograd, convolve_dilated, convolve_winograd, transform_kernel

# The moments of C channels cost 2 C^2 multiplications a place, and C^2 O in all; they save passes
# over O channels. Worth it where places abound and C is not too large beside O: measured on a CPU.
PLACES_PER_CHANNEL = 4
TERMS_PER_OUTPUT = 128


#: what a convolution for inference holds beside its weights
KEPT_ASIDE = ('packed', 'transformed', 'sizes')


class PackedConv2d(nn.Conv2d):
    """A convolution for inference whose weights are also kept as the fast routines want them."""

    packed: tuple[Tensor, int, Tensor] | None = None
    transformed: tuple[Tensor, int, Tensor] | None = None
    #: height and width of the maps that the weights are packed for, and of the map before this one
    sizes: tuple[torch.Size, torch.Size] | None = None

    @classmethod
    def from_conv(cls, conv: nn.Conv2d) -> 'PackedConv2d':
        """Return one with the geometry and the weights of a plain convolution."""
        packed = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            device='meta',
        )
        packed.weight, packed.bias = conv.weight, conv.bias
        return packed.train(conv.training)

    def pack_weight(self, x: Tensor) -> Tensor:
        """Return the weights in oneDNN's order for maps of this size, or as they are.

        The order depends on the size, and oneDNN takes ten times as long to turn one order into
        another as to turn the plain one into any. So another size takes the plain weights, as with
        the levels of a pyramid that share a convolution, and they are packed anew where it stays.
        """
        size, fits = x.shape[2:], self._holds(self.packed)
        packed_for, last = self.sizes if fits and self.sizes is not None else (size, size)
        if fits and packed_for != size and last != size:
            self.sizes = packed_for, size
            return self.weight
        if not fits or packed_for != size:
            reorder: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.packed = (
                self.weight.detach(),
                version_of(self.weight),
                reorder(
                    self.weight.detach().to_mkldnn(),
                    self.padding,
                    self.stride,
                    self.dilation,
                    self.groups,
                    list(x.shape),
                ),
            )
        self.sizes = size, size
        assert self.packed is not None
        return self.packed[2]

    def transform_weight(self) -> Tensor:
        """Return the weights as :mod:`.winograd` wants them; made when first needed, likewise."""
        if not self._holds(self.transformed):
            self.transformed = (
                self.weight.detach(),
                version_of(self.weight),
                transform_kernel(self.weight, self.groups),
            )
        assert self.transformed is not None
        return self.transformed[2]

    def _holds(self, made: tuple[Tensor, int, Tensor] | None) -> bool:
        """Return whether something was made of the weights as they are."""
        # The old weights are held, so that no others can have come to lie at their address.
        return (
            made is not None
            and made[0].data_ptr() == self.weight.data_ptr()
            and made[1] == version_of(self.weight)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Convolve; B I H W -> B O H' W'."""
        if not is_eager(input):
            return super().forward(input)
        return convolve(self, input, self.weight, self.bias)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in KEPT_ASIDE:
            state.pop(name, None)
        return state


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to, where that is counted."""
    return 0 if tensor.is_inference() else tensor._version


add_known(PackedConv2d, '_conv_forward')


class Affine(NamedTuple):
    """A convolution with its norm folded in."""

    weight: Tensor  # O I k k
    bias: Tensor  # O


def fold_fixed(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Affine | None:
    """Return both as one convolution where statistics are fixed, if it is worth it."""
    if isinstance(norm, nn.Identity):
        return None if conv.bias is None else Affine(conv.weight, conv.bias)
    if not isinstance(norm, nn.BatchNorm2d) or norm.training:
        return None
    if norm.running_mean is None or norm.running_var is None:
        return None
    if count_places(conv, x) < conv.weight[0].numel():  # more to do on the weights than on the map
        return None
    return fold_norm(conv, norm, norm.running_mean, norm.running_var)


def fold_batch(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Affine | None:
    """Return the same where the statistics are those of the batch, and count the batch in them."""
    if not isinstance(norm, nn.BatchNorm2d) or not norm.training or not can_fold_batch(conv, x):
        return None
    places = count_places(conv, x)
    means, squares = Moments.apply(x)  # B I, I I
    m = means.mean(0)  # I
    W = conv.weight.flatten(1)  # O I
    mean = W @ m  # O
    var = (W @ (squares / places - torch.outer(m, m)) * W).sum(1).clamp_min(0)  # O
    update_statistics(norm, mean.detach(), var.detach(), places)
    return fold_norm(conv, norm, mean, var)


def can_fold_batch(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether the batch's statistics follow from the moments of the input, and it pays."""
    is_widening_1x1 = (
        conv.weight.shape[2:] == (1, 1)
        and conv.groups == 1
        and conv.stride == (1, 1)
        and conv.bias is None
        and conv.padding == (0, 0)
        and conv.in_channels <= conv.out_channels
    )
    is_cheap = (
        conv.in_channels**2 <= TERMS_PER_OUTPUT * conv.out_channels
        and count_places(conv, x) >= PLACES_PER_CHANNEL * conv.in_channels
    )
    # Half precision and TF32 have too few digits for a variance as a difference of moments.
    has_digits = (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype == conv.weight.dtype
        and not torch.is_autocast_enabled('cpu')
    )
    return is_widening_1x1 and is_cheap and has_digits


def count_places(conv: nn.Conv2d, x: Tensor) -> int:
    """Return about how many places the map behind a convolution has, over the batch."""
    return x.shape[0] * x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])


def fold_norm(conv: nn.Conv2d, norm: _BatchNorm, mean: Tensor, var: Tensor) -> Affine:
    """Return W' and b', differentiable in whatever they are made of."""
    k = norm.weight * (var + norm.eps).rsqrt()  # O
    bias = norm.bias - mean * k  # O
    if conv.bias is not None:
        bias = bias + conv.bias * k
    return Affine(conv.weight * k.view(-1, 1, 1, 1), bias)


@torch.no_grad()
def update_statistics(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, places: int) -> None:
    """Count a batch in the running statistics, as ``BatchNorm2d`` does."""
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
        """Return both; the sum is the gradient of a 1x1 convolution's weights: one fast kernel."""
        ctx.save_for_backward(x)
        channels = x.shape[1]
        squares = conv2d_weight(x, (channels, channels, 1, 1), x)
        return x.mean((2, 3)), squares.flatten(1)

    @staticmethod
    def backward(ctx: Any, means: Tensor, squares: Tensor) -> Tensor:
        """Return the gradient, by operations that have gradients themselves."""
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
        """Compute it: B I H W, O I 1 1, O, B O 1 1 -> B O H W."""
        ctx.save_for_backward(x, weight, bias, scale)
        return F.conv2d(x, weight, bias).mul_(scale)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients, summed sample by sample."""
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
    """Return relu(weight * x + bias + add) with the geometry of ``conv``."""
    # RoIAlign of mmcv writes regions channel by channel, before convolutions in channels-last.
    if weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        x = x.contiguous(memory_format=torch.channels_last)
    if not can_use_onednn(x, weight, add):
        return add_relu_(
            F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups),
            add,
            relu,
        )
    if isinstance(conv, PackedConv2d) and weight is conv.weight:
        if x.dtype == torch.float32 and can_use_winograd(conv, x):
            kernel, step = conv.transform_weight(), conv.dilation[0]
            if step > 1:
                return convolve_dilated(x, kernel, bias, add, relu, step)
            return convolve_winograd(x, kernel, bias, add, relu)
        weight = conv.pack_weight(x)
    geometry = weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups
    point = torch.ops.mkldnn._convolution_pointwise
    if add is None:
        return point(x, *geometry, 'relu' if relu else 'none', [], '')
    return point.binary(x, add, *geometry, 'add', 1.0, 'relu' if relu else None, [], '')


@cache
def has_onednn_bfloat16() -> bool:
    """Return whether oneDNN convolves in bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_use_onednn(x: Tensor, weight: Tensor, add: Tensor | None) -> bool:
    """Return whether oneDNN can take what follows a convolution along with it."""
    return (
        x.device.type == 'cpu'
        and x.dtype == weight.dtype
        and (x.dtype == torch.float32 or x.dtype == torch.bfloat16 and has_onednn_bfloat16())
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


def add_relu_(y: Tensor, add: Tensor | None, relu: bool) -> Tensor:
    """Return relu(y + add), in place: y is a map of our own."""
    if add is not None:
        y = y.add_(add) if y.dtype == add.dtype else y + add
    return F.relu(y, inplace=True) if relu else y
