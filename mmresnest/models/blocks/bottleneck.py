"""The residual bottleneck: reduce, mix, expand, gate, add.

    y = relu(x' + gates(expand(spatial_mix(reduce(x)))))        x' = shortcut(x)

He et al., arXiv:1512.03385, section 4.1 ("bottleneck" building block). Every network of this
package is this equation with another ``spatial_mix`` or more ``gates``; it is written once, here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from .functional import ConvNormAct

Norm = Callable[[int], nn.Module]


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Module:
    """Return a plain 3x3 convolution; the trunk passes another maker for deformable ones."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


@dataclass(frozen=True)
class BlockGeometry:
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
    expansion: int = 4  # channels out of the block, in planes

    @property
    def out_channels(self) -> int:
        """The channels out of the block."""
        return self.planes * self.expansion

    def get_next(self) -> 'BlockGeometry':
        """Return where the next block of the stage stands."""
        return replace(self, in_channels=self.out_channels, stride=1, first=False)

    def width(self, base_width: float) -> int:
        """Return the channels per group: ``planes * base_width / 64``, rounded down."""
        return int(self.planes * (base_width / self.base_channels))


@dataclass(frozen=True)
class BlockModules:
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
        """Zero some samples in training: B C H W -> the same."""
        if not self.training:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)  # B 1 1 1

    def extra_repr(self) -> str:
        """Return the rate, for ``print``."""
        return f'rate={self.rate:.3f}'


class Bottleneck(ConvNormAct, nn.Module):
    """The walk that all kinds share; a kind supplies ``spatial_mix`` and may add to ``gates``.

    The names of the modules are those stored in every published checkpoint of these networks.

    Args:
        geometry: where the block stands.
        modules: norm, 3x3 convolution, shortcut and stochastic depth to use.
        width: channels that ``spatial_mix`` receives, unless ``reduced`` says otherwise, and
            returns.
        reduced: channels after the first 1x1 where they differ from ``width`` (SENet-154).
    """

    def __init__(
        self, geometry: BlockGeometry, modules: BlockModules, width: int, reduced: int | None = None
    ):
        super().__init__()
        out_channels = geometry.out_channels
        reduced = width if reduced is None else reduced
        self.conv1 = nn.Conv2d(
            geometry.in_channels,
            reduced,
            1,
            stride=geometry.stride if geometry.stride_in_1x1 else 1,
            bias=False,
        )
        self.bn1 = modules.norm(reduced)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = modules.norm(out_channels)
        self.downsample = modules.shortcut
        self.drop_path = modules.drop_path

    def spatial_mix(self, x: Tensor) -> Tensor:
        """Compute what a kind of bottleneck is known by: B w H W -> B w H' W'."""
        raise TypeError(
            f'{type(self).__name__} has no spatial_mix(): it is not a kind of bottleneck'
        )

    def gates(self) -> tuple[nn.Module, ...]:
        """Return the modules that the branch passes before it joins the shortcut."""
        return (self.drop_path,)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """B C H W -> B 4p H' W'; a shortcut of that shape may be made outside of the block."""
        y = self.spatial_mix(self.conv_norm_act(self.conv1, self.bn1, x))  # B w H' W'
        if shortcut is None:
            shortcut = x if self.downsample is None else self.downsample(x)  # B 4p H' W'
        return self.conv_norm_act(self.conv3, self.bn3, y, gates=self.gates(), add=shortcut)


def stride_of_mix(geometry: BlockGeometry) -> int:
    """Return the stride that ``spatial_mix`` has to take."""
    return 1 if geometry.stride_in_1x1 else geometry.stride
