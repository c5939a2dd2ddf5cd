"""Res2Net (Gao et al., arXiv:1904.01169, section 3.1): a ladder of small 3x3 convolutions.

The map is cut into s splits x_1 .. x_s of w channels each.

    inside a stage                      first block of a stage
    y_1 = K_1(x_1)                      y_i = K_i(x_i)          1 <= i < s
    y_i = K_i(x_i + y_{i-1})            y_s = pool(x_s)
    y_s = x_s

Here the convolutions are numbered so that the split which has none is the last, as in the published
weights. The first block of a stage has no hierarchy, and its last split meets the 3x3 average pool
even where the stride is 1: the published weights were trained so.
"""

import torch
from torch import Tensor, nn

from .bottleneck import BlockGeometry, BlockModules, Bottleneck


class Res2NetBottleneck(Bottleneck):
    """1x1, ladder of 3x3 over ``scales`` splits, 1x1.

    Args:
        geometry: where the block stands.
        modules: what it is built from.
        base_width: channels of one split (and group) in stage 1, the papers' w.
        scales: number of splits, the papers' s.
        groups: cardinality of every 3x3 (Res2NeXt).
    """

    def __init__(
        self,
        geometry: BlockGeometry,
        modules: BlockModules,
        *,
        base_width: int = 26,
        scales: int = 4,
        groups: int = 1,
    ):
        width = geometry.width(base_width) * groups
        super().__init__(geometry, modules, width * scales)
        self.width, self.scales, self.hierarchical = width, scales, not geometry.first
        # One split is one plain convolution: nothing would be left to mix otherwise.
        ladder = range(max(scales - 1, 1))
        self.convs = nn.ModuleList(
            modules.conv3x3(
                width, width, stride=geometry.stride, dilation=geometry.dilation, groups=groups
            )
            for _ in ladder
        )
        self.bns = nn.ModuleList(modules.norm(width) for _ in ladder)
        pooled = geometry.first and (geometry.stride > 1 or not geometry.pool_needs_stride)
        self.pool = nn.AvgPool2d(3, geometry.stride, 1) if pooled else nn.Identity()

    def spatial_mix(self, x: Tensor) -> Tensor:
        """Climb the ladder: B ws H W -> B ws H' W'."""
        splits = x.split(self.width, 1)  # s times B w H W
        rungs: list[Tensor] = []
        for index, (conv, bn) in enumerate(zip(self.convs, self.bns)):
            # A split is a view with gaps, which deformable convolutions refuse: its copy has none.
            if self.hierarchical and index > 0:
                y = self.recomputable(torch.add, splits[index], rungs[-1])  # B w H W
            else:
                y = self.recomputable(torch.clone, splits[index])
            rungs.append(self.conv_norm_act(conv, bn, y))
        if self.scales > 1:
            last = splits[-1]
            if torch.compiler.is_compiling():
                last = last.clone()  # inductor fails on such a view where sizes are symbols
            rungs.append(self.pool(last))
        return self.recomputable(concat, *rungs)  # B ws H W


def concat(*rungs: Tensor) -> Tensor:
    """Concatenate maps along their channels."""
    return torch.cat(rungs, 1)
