"""Squeeze-and-Excitation (Hu et al., arXiv:1709.01507, section 3).

z = GAP(u)                          squeeze
s = sigmoid(W2 relu(W1 z))          excitation
u~ = s * u                          scale
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .bottleneck import BlockGeometry, BlockModules
from .resnext import ResNeXtBottleneck


class SqueezeExcite(nn.Module):
    """Weighs every channel by what the whole map says of it.

    Args:
        channels: C of the map.
        reduction: r, the hidden layer has C / r channels.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Weigh every channel: B C H W -> the same."""
        z = u.mean((2, 3), keepdim=True)  # B C 1 1
        return self.excitation(z) * u  # B C H W

    def excitation(self, z: Tensor) -> Tensor:
        """Return s: B C 1 1 -> the same."""
        return self.fc2(F.relu(self.fc1(z), inplace=True)).sigmoid()


class SEBottleneck(ResNeXtBottleneck):
    """A (grouped) bottleneck whose branch is gated by squeeze-and-excitation.

    Args:
        geometry: where the block stands.
        modules: what it is built from.
        reduction: r of the gate.
        **resnext: arguments of ``ResNeXtBottleneck``.
    """

    def __init__(
        self, geometry: BlockGeometry, modules: BlockModules, *, reduction: int = 16, **resnext: int
    ):
        super().__init__(geometry, modules, **resnext)
        self.se = SqueezeExcite(geometry.out_channels, reduction)

    def gates(self) -> tuple[nn.Module, ...]:
        """Return squeeze-and-excitation, and stochastic depth."""
        return (self.se, self.drop_path)
