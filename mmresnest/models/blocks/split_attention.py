"""Split-Attention (Zhang et al., arXiv:2004.08955, section 3; radix-major layout of the appendix).

R = radix (splits of a group), K = cardinality (groups), C = channels out.

    s   = GAP(sum_r U_r)
    a_r = softmax_r(G_r(s))             sigmoid where R = 1
    V   = sum_r a_r * U_r
"""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import BatchNorm2d

from ...errors import ArgumentError
from .bottleneck import BlockGeometry, BlockModules, Bottleneck
from .functional import ConvNormAct


class SplitWeighting(ConvNormAct, nn.Module):
    """Weighs R splits of a map against each other by what the whole map says.

    A subclass makes the splits, and the layers of G: ``fc1``, ``bn1`` and ``fc2``.
    """

    channels: int  # C
    groups: int = 1  # K
    radix: int  # R
    sum_splits_first: bool = False  # see ``BlockGeometry``
    fc1: nn.Module
    bn1: nn.Module
    fc2: nn.Module

    def attend(self, u: Tensor) -> Tensor:
        """Return V = sum_r a_r * U_r: B RC H W -> B C H W."""
        if self.fast is not None and not torch.compiler.is_compiling():
            V = self.fast.split_attention(self, u)
            if V is not None:
                return V
        a = self.attention(self.squeeze(u))  # B RC 1 1
        # Slices of channels, never a 5-D view: in channels_last every slice keeps its rows dense.
        return add_splits(tuple(map(torch.mul, self.splits(a), self.splits(u))))  # B C H W

    def splits(self, x: Tensor) -> tuple[Tensor, ...]:
        """Cut a map: B RC H W -> R times B C H W."""
        splits = x.split(self.channels, 1)
        return tuple(splits[r] for r in range(self.radix))  # torch.fx cannot count them

    def squeeze(self, u: Tensor) -> Tensor:
        """Return s: B RC H W -> B C 1 1; in which order, ``BlockGeometry`` says."""
        if self.sum_splits_first:
            return add_splits(self.splits(u)).mean((2, 3), keepdim=True)
        return add_splits(self.splits(u.mean((2, 3), keepdim=True)))

    def attention(self, s: Tensor) -> Tensor:
        """Return a: B C 1 1 -> B RC 1 1, radix-major; the layers' own order is group-major."""
        a = self.fc2(F.relu(norm_of_pooled(self.bn1, self.fc1(s)), inplace=True))
        if self.radix == 1:
            return a.sigmoid()
        a = a.unflatten(1, (self.groups, self.radix, -1))  # B K R c 1 1
        return a.transpose(1, 2).softmax(1).flatten(1, 3)  # B RC 1 1


class SplitAttention(SplitWeighting):
    """A 3x3 convolution into R splits, weighed against each other by what the whole map says.

    Args:
        channels: C.
        modules: norm and 3x3 convolution to use.
        stride, dilation: of the 3x3.
        groups: K.
        radix: R, at least 1.
        reduction_factor: the hidden layer of G has ``max(C * R / reduction_factor, 32)`` channels.
        sum_splits_first: see ``BlockGeometry``.
    """

    def __init__(
        self,
        channels: int,
        modules: BlockModules,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        radix: int = 2,
        reduction_factor: int = 4,
        sum_splits_first: bool = False,
    ):
        super().__init__()
        if radix < 1 or channels % (groups * radix):
            raise ArgumentError(
                f'radix={radix} with groups={groups} cannot cut {channels} '
                f'channels: radix * groups must divide them',
                code='argument.value',
            )
        self.channels, self.groups, self.radix = channels, groups, radix
        self.sum_splits_first = sum_splits_first
        hidden = max(channels * radix // reduction_factor, 32)
        self.conv = modules.conv3x3(
            channels, channels * radix, stride=stride, dilation=dilation, groups=groups * radix
        )
        self.bn0 = modules.norm(channels * radix)
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=groups)
        self.bn1 = modules.norm(hidden)
        self.fc2 = nn.Conv2d(hidden, channels * radix, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C H' W'."""
        u = self.conv_norm_act(self.conv, self.bn0, x)  # B RC H W
        return self.attend(u)


def add_splits(splits: tuple[Tensor, ...]) -> Tensor:
    """Return sum_r U_r."""
    total = splits[0]
    for split in splits[1:]:
        total = total + split
    return total


def norm_of_pooled(norm: nn.Module, z: Tensor) -> Tensor:
    """Normalize a B C 1 1 map; a batch of one uses the running statistics.

    One value has no variance, so batch statistics do not exist there and plain batch norm raises.
    From two samples on (and for SyncBN, which counts all processes) nothing is changed.
    """
    if not (norm.training and type(norm) is BatchNorm2d and norm.track_running_stats):
        return norm(z)
    if isinstance(z, torch.fx.Proxy) or torch.compiler.is_compiling():
        return batch_norm_of_pooled(
            z,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            norm.num_batches_tracked,
            norm.momentum,
            norm.eps,
        )
    if z.shape[0] > 1:
        return norm(z)
    norm.eval()
    try:
        return norm(z)
    finally:
        norm.train()


@torch.fx.wrap  # one node of the graph: which branch is taken depends on the batch
def batch_norm_of_pooled(
    z: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    count: Tensor | None,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Apply training-mode ``BatchNorm2d`` to a B C 1 1 map, as a graph can hold it."""
    single = z.shape[0] == 1
    if not single and count is not None:
        count.add_(1)
        if momentum is None:  # the running average of all batches
            momentum = 1.0 / float(count)
    return F.batch_norm(z, mean, var, weight, bias, not single, momentum or 0.0, eps)


class SplitAttentionBottleneck(Bottleneck):
    """1x1, split attention, 1x1, with an average pool in place of the 3x3's stride.

    Args:
        geometry: where the block stands.
        modules: what it is built from.
        radix: R.
        groups: K.
        base_width: channels per group in stage 1.
        reduction_factor: of the attention's hidden layer.
        avd: pool instead of striding the 3x3 ("average down").
        avd_first: the pool stands before the 3x3 (the published "fast" networks), not after.
    """

    def __init__(
        self,
        geometry: BlockGeometry,
        modules: BlockModules,
        *,
        radix: int = 2,
        groups: int = 1,
        base_width: int = 64,
        reduction_factor: int = 4,
        avd: bool = True,
        avd_first: bool = False,
    ):
        width = geometry.width(base_width) * groups
        super().__init__(geometry, modules, width)
        # The published networks keep the pool, with stride 1, where dilation removed the stride.
        pooled = avd and (
            geometry.stride > 1
            or geometry.first
            and geometry.stage > 0
            and not geometry.pool_needs_stride
        )
        self.conv2 = SplitAttention(
            width,
            modules,
            stride=1 if pooled else geometry.stride,
            dilation=geometry.dilation,
            groups=groups,
            radix=radix,
            reduction_factor=reduction_factor,
            sum_splits_first=geometry.sum_splits_first,
        )
        self.avd = nn.AvgPool2d(3, geometry.stride, 1) if pooled else nn.Identity()
        self.avd_first = avd_first

    def spatial_mix(self, x: Tensor) -> Tensor:
        """Apply split attention, with the pool on the side where the network has it."""
        return self.conv2(self.avd(x)) if self.avd_first else self.avd(self.conv2(x))
