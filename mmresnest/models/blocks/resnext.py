"""ResNeXt (Xie et al., arXiv:1611.05431): the 3x3 is a grouped convolution.

    F(x) = sum_{i=1..C} T_i(x)          aggregated transformations, C the cardinality

With ``groups=1, base_width=64`` it is the bottleneck of ResNet.
"""

import torch.nn.functional as F
from torch import Tensor

from .bottleneck import Bottleneck, Parts, Site, mixing_stride


class ResNeXtBottleneck(Bottleneck):
    """1x1, grouped 3x3, 1x1.

    Args:
        site: where the block stands.
        parts: what it is built from.
        groups: cardinality C.
        base_width: channels per group in stage 1.
        reduce_first: the first 1x1 has ``width / reduce_first`` channels (SENet-154: 2).
    """

    def __init__(
        self,
        site: Site,
        parts: Parts,
        *,
        groups: int = 1,
        base_width: int = 64,
        reduce_first: int = 1,
    ):
        width = site.width(base_width) * groups
        super().__init__(site, parts, width, width // reduce_first)
        self.conv2 = parts.conv3x3(
            width // reduce_first,
            width,
            stride=mixing_stride(site),
            dilation=site.dilation,
            groups=groups,
        )
        self.bn2 = parts.norm(width)

    def mix(self, x: Tensor) -> Tensor:
        """The grouped 3x3: B w H W -> B w H' W'."""
        return F.relu(self.bn2(self.conv2(x)), inplace=True)
