"""ResNeXt (Xie et al., arXiv:1611.05431): the 3x3 is a grouped convolution.

    F(x) = sum_{i=1..C} T_i(x)          aggregated transformations, C the cardinality

With ``groups=1, base_width=64`` it is the bottleneck of ResNet.
"""

from torch import Tensor

from .bottleneck import BlockGeometry, BlockModules, Bottleneck, stride_of_mix


class ResNeXtBottleneck(Bottleneck):
    """1x1, grouped 3x3, 1x1.

    Args:
        geometry: where the block stands.
        modules: what it is built from.
        groups: cardinality C.
        base_width: channels per group in stage 1.
        reduce_first: the first 1x1 has ``width / reduce_first`` channels (SENet-154: 2).
    """

    def __init__(
        self,
        geometry: BlockGeometry,
        modules: BlockModules,
        *,
        groups: int = 1,
        base_width: int = 64,
        reduce_first: int = 1,
    ):
        width = geometry.width(base_width) * groups
        super().__init__(geometry, modules, width, width // reduce_first)
        self.conv2 = modules.conv3x3(
            width // reduce_first,
            width,
            stride=stride_of_mix(geometry),
            dilation=geometry.dilation,
            groups=groups,
        )
        self.bn2 = modules.norm(width)

    def spatial_mix(self, x: Tensor) -> Tensor:
        """Apply the grouped 3x3: B w H W -> B w H' W'."""
        return self.conv_norm_act(self.conv2, self.bn2, x)
