"""The stem: image to stride 2, by one 7x7 convolution or by three 3x3.

He et al., arXiv:1512.03385, table 1 (7x7); He et al., arXiv:1812.01187, figure 2b (three 3x3).
"""

from collections.abc import Sequence

from torch import nn

from .blocks.bottleneck import Norm
from .blocks.functional import ConvNormSequential


def deep_stem(widths: Sequence[int], norm: Norm, in_channels: int = 3) -> ConvNormSequential:
    """Return three 3x3 convolutions, norm and ReLU: B 3 H W -> B widths[2] H/2 W/2."""
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        layers += [
            nn.Conv2d(in_channels, width, 3, 2 if index == 0 else 1, 1, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
        ]
        in_channels = width
    return ConvNormSequential(*layers)


def plain_stem(width: int, norm: Norm, in_channels: int = 3) -> dict[str, nn.Module]:
    """Return a 7x7 convolution, norm and ReLU by the names that every checkpoint gives them.

    B 3 H W -> B width H/2 W/2.
    """
    return dict(
        conv1=nn.Conv2d(in_channels, width, 7, 2, 3, bias=False),
        bn1=norm(width),
        relu=nn.ReLU(inplace=True),
    )
