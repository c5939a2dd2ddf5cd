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
from .bottleneck import Bottleneck, Parts, Site


class SplitAttention(nn.Module):
    """A 3x3 convolution into R splits, weighed against each other by what the whole map says.

    Args:
        channels: C.
        parts: norm and 3x3 convolution to use.
        stride, dilation: of the 3x3.
        groups: K.
        radix: R, at least 1.
        reduction_factor: the hidden layer of G has ``max(C * R / reduction_factor, 32)`` channels.
        sum_splits_first: see ``Site``.
    """

    def __init__(
        self,
        channels: int,
        parts: Parts,
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
                f'channels: radix * groups must divide them'
            )
        self.channels, self.groups, self.radix = channels, groups, radix
        self.sum_splits_first = sum_splits_first
        hidden = max(channels * radix // reduction_factor, 32)
        self.conv = parts.conv3x3(
            channels, channels * radix, stride=stride, dilation=dilation, groups=groups * radix
        )
        self.bn0 = parts.norm(channels * radix)
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=groups)
        self.bn1 = parts.norm(hidden)
        self.fc2 = nn.Conv2d(hidden, channels * radix, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C H' W'."""
        u = F.relu(self.bn0(self.conv(x)), inplace=True)  # B RC H W
        a = self.attention(self.squeeze(u))  # B RC 1 1
        # Slices of channels, never a 5-D view: in channels_last every slice keeps its rows dense.
        return add(tuple(map(torch.mul, self.splits(a), self.splits(u))))  # B C H W

    def splits(self, x: Tensor) -> tuple[Tensor, ...]:
        """B RC H W -> R times B C H W."""
        splits = x.split(self.channels, 1)
        return tuple(splits[r] for r in range(self.radix))  # torch.fx cannot count them

    def squeeze(self, u: Tensor) -> Tensor:
        """s: B RC H W -> B C 1 1. Pooling first touches the map once; see ``Site``."""
        if self.sum_splits_first:
            return add(self.splits(u)).mean((2, 3), keepdim=True)
        return add(self.splits(u.mean((2, 3), keepdim=True)))

    def attention(self, s: Tensor) -> Tensor:
        """a: B C 1 1 -> B RC 1 1, radix-major; the layers' own order is group-major."""
        a = self.fc2(F.relu(norm_of_pooled(self.bn1, self.fc1(s)), inplace=True))
        if self.radix == 1:
            return a.sigmoid()
        a = a.unflatten(1, (self.groups, self.radix, -1))  # B K R c 1 1
        return a.transpose(1, 2).softmax(1).flatten(1, 3)  # B RC 1 1


def add(splits: tuple[Tensor, ...]) -> Tensor:
    """sum_r U_r."""
    total = splits[0]
    for split in splits[1:]:
        total = total + split
    return total


def norm_of_pooled(norm: nn.Module, z: Tensor) -> Tensor:
    """Normalises a B C 1 1 map; a batch of one uses the running statistics.

    One value has no variance, so batch statistics do not exist there and plain batch norm raises.
    From two samples on (and for SyncBN, which counts all processes) nothing is changed.
    """
    if norm.training and type(norm) is BatchNorm2d and norm.track_running_stats:
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
    return norm(z)


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
    """Training-mode ``BatchNorm2d`` of a B C 1 1 map, written out but for a batch of one."""
    single = z.shape[0] == 1
    if not single and count is not None:
        count.add_(1)
        if momentum is None:  # the running average of all batches
            momentum = 1.0 / float(count)
    return F.batch_norm(z, mean, var, weight, bias, not single, momentum or 0.0, eps)


class SplitAttentionBottleneck(Bottleneck):
    """1x1, split attention, 1x1, with an average pool in place of the 3x3's stride.

    Args:
        site: where the block stands.
        parts: what it is built from.
        radix: R.
        groups: K.
        base_width: channels per group in stage 1.
        reduction_factor: of the attention's hidden layer.
        avd: pool instead of striding the 3x3 ("average down").
        avd_first: the pool stands before the 3x3 (the published "fast" networks), not after.
    """

    def __init__(
        self,
        site: Site,
        parts: Parts,
        *,
        radix: int = 2,
        groups: int = 1,
        base_width: int = 64,
        reduction_factor: int = 4,
        avd: bool = True,
        avd_first: bool = False,
    ):
        width = site.width(base_width) * groups
        super().__init__(site, parts, width)
        # The published networks keep the pool, with stride 1, where dilation removed the stride.
        pooled = avd and (
            site.stride > 1 or site.first and site.stage > 0 and not site.pool_needs_stride
        )
        self.conv2 = SplitAttention(
            width,
            parts,
            stride=1 if pooled else site.stride,
            dilation=site.dilation,
            groups=groups,
            radix=radix,
            reduction_factor=reduction_factor,
            sum_splits_first=site.sum_splits_first,
        )
        self.avd = nn.AvgPool2d(3, site.stride, 1) if pooled else nn.Identity()
        self.avd_first = avd_first

    def mix(self, x: Tensor) -> Tensor:
        """Split attention with the pool on the side that the network has it."""
        return self.conv2(self.avd(x)) if self.avd_first else self.avd(self.conv2(x))
