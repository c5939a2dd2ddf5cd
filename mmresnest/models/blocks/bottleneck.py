"""The residual bottleneck: reduce, mix, expand, gate, add.

    y = relu(x' + drop_path(gate(expand(mix(reduce(x))))))        x' = shortcut(x)

He et al., arXiv:1512.03385, section 4.1 ("bottleneck" building block). Every network of this
package is this equation with another ``mix`` or ``gate``; the walk itself is written once, here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Module:
    """The plain 3x3 convolution; the trunk hands in another where deformable ones are asked for."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


@dataclass(frozen=True)
class Site:
    """Where in the trunk a block stands: everything a block may know of it."""

    in_channels: int
    planes: int  # the papers' 64, 128, 256, 512
    stride: int = 1
    dilation: int = 1
    stage: int = 0  # 0..3
    first: bool = False  # first block of its stage
    base_channels: int = 64  # planes of stage 0; widths are given relative to it
    stride_in_1x1: bool = False  # the "caffe" style: the 1x1, not the 3x3, takes the stride
    # Zoo checkpoints of mmdet and mmseg were trained without the stride-1 pools of the published
    # networks; for them a pool stands only where a stride does.
    pool_needs_stride: bool = False
    # Split attention: add the splits before pooling them, as the equation is printed, or after.
    # Equal but for rounding; mmdet's order is kept where its bits are wanted.
    sum_splits_first: bool = False

    def width(self, base_width: float) -> int:
        """Channels per group: ``planes * base_width / 64``, rounded down."""
        return int(self.planes * (base_width / self.base_channels))


@dataclass(frozen=True)
class Parts:
    """What a block is built from and does not choose itself."""

    norm: Norm = nn.BatchNorm2d
    conv3x3: Callable[..., nn.Module] = conv3x3
    shortcut: nn.Module | None = None
    drop_path: nn.Module = field(default_factory=nn.Identity)


class DropPath(nn.Module):
    """Stochastic depth: drops a sample's whole residual branch with probability ``rate``.

    Huang et al., arXiv:1603.09382. The kept branches are scaled by ``1 / (1 - rate)``, so that the
    expectation is unchanged and evaluation needs no correction.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> the same, some samples zero in training."""
        if not self.training:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)  # B 1 1 1

    def extra_repr(self) -> str:
        """The rate, for ``print``."""
        return f'rate={self.rate:.3f}'


class Bottleneck(nn.Module):
    """The walk that all kinds share; a kind supplies ``mix`` and may override ``gate``.

    The names of the parts are those stored in every published checkpoint of these networks.

    Args:
        site: where the block stands.
        parts: norm, 3x3 convolution, shortcut and stochastic depth to use.
        width: channels that ``mix`` receives, unless ``reduced`` says otherwise, and returns.
        reduced: channels after the first 1x1 where they differ from ``width`` (SENet-154).
    """

    expansion = 4

    def __init__(self, site: Site, parts: Parts, width: int, reduced: int | None = None):
        super().__init__()
        out_channels = site.planes * self.expansion
        reduced = width if reduced is None else reduced
        self.conv1 = nn.Conv2d(
            site.in_channels,
            reduced,
            1,
            stride=site.stride if site.stride_in_1x1 else 1,
            bias=False,
        )
        self.bn1 = parts.norm(reduced)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = parts.norm(out_channels)
        self.downsample = parts.shortcut
        self.drop_path = parts.drop_path

    def mix(self, x: Tensor) -> Tensor:
        """B w H W -> B w H' W': what a kind of bottleneck is known by."""
        raise TypeError(f'{type(self).__name__} has no mix(): it is not a kind of bottleneck')

    def gate(self, x: Tensor) -> Tensor:
        """B 4p H' W' -> the same, before the branch joins the shortcut."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B 4p H' W'."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)  # B w H W
        y = self.bn3(self.conv3(self.mix(y)))  # B 4p H' W'
        y = self.drop_path(self.gate(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def mixing_stride(site: Site) -> int:
    """The stride that ``mix`` has to take."""
    return 1 if site.stride_in_1x1 else site.stride
