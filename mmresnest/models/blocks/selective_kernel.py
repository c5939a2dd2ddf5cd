"""Selective kernels (Li et al., arXiv:1903.06586, section 3): two receptive fields, weighed.

C = channels, r = reduction, L = the least width of the hidden layer; the 5x5 is a dilated 3x3.

    u_1 = relu(bn(K_1 * x)),  u_2 = relu(bn(K_2 * x))   split: kernels of 3x3, dilated by 1 and by 2
    s   = GAP(u_1 + u_2)                                fuse
    z   = relu(bn(W s))                                 of max(C / r, L) channels
    a   = softmax over {1, 2} of (A_1 z, A_2 z)         select
    V   = a_1 * u_1 + a_2 * u_2

Split attention (:mod:`.split_attention`) is these equations with another split. Where each kernel
is given its half of the channels (``split_input``) and neither is dilated, K_1 and K_2 are the two
groups of one convolution, and this is split attention of radix 2 without biases.
"""

import torch
from torch import Tensor, nn

from ...errors import ArgumentError
from .bottleneck import BlockGeometry, BlockModules, Bottleneck, stride_of_mix
from .res2net import concat
from .split_attention import SplitWeighting

DILATIONS = (1, 2)  # of the two kernels: 3x3, and 5x5 by nine weights


class SelectiveKernel(SplitWeighting):
    """Two 3x3 convolutions, one of them dilated, weighed against each other for every channel.

    Args:
        channels: C, of the input and of the output.
        modules: norm and 3x3 convolution to use.
        stride, dilation: of the 3x3; that of the second is twice the dilation.
        groups: of each convolution.
        reduction: r.
        min_hidden: L.
        split_input: each convolution sees its own half of the channels, not all.
        dilations: of the two kernels, relative to ``dilation``.
    """

    def __init__(
        self,
        channels: int,
        modules: BlockModules,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        reduction: int = 16,
        min_hidden: int = 32,
        split_input: bool = False,
        dilations: tuple[int, int] = DILATIONS,
    ):
        super().__init__()
        if split_input and channels % (2 * groups):
            raise ArgumentError(
                f'split_input=True cannot halve {channels} channels in {groups} groups: '
                f'2 * groups must divide them',
                code='argument.value',
            )
        self.channels, self.radix, self.split_input = channels, len(dilations), split_input
        self.convs = nn.ModuleList(
            modules.conv3x3(
                channels // 2 if split_input else channels,
                channels,
                stride=stride,
                dilation=dilation * own,
                groups=groups,
            )
            for own in dilations
        )
        self.bns = nn.ModuleList(modules.norm(channels) for _ in dilations)
        hidden = max(channels // reduction, min_hidden)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn1 = modules.norm(hidden)
        self.fc2 = nn.Conv2d(hidden, channels * self.radix, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C H' W'."""
        inputs = (x, x)
        if self.split_input:
            # A half is a view with gaps, which deformable convolutions refuse: its copy has none.
            first, second = x.split(self.channels // 2, 1)
            inputs = self.recomputable(torch.clone, first), self.recomputable(torch.clone, second)
        u = [
            self.conv_norm_act(conv, bn, part)
            for conv, bn, part in zip(self.convs, self.bns, inputs)
        ]
        return self.attend(self.recomputable(concat, *u))  # of B 2C H' W'


class SelectiveKernelBottleneck(Bottleneck):
    """1x1, selective kernels, 1x1.

    Args:
        geometry: where the block stands.
        modules: what it is built from.
        groups: of each of the two convolutions.
        base_width: channels per group in stage 1.
        reduction, min_hidden: r and L.
        split_input: each convolution sees its own half of the channels.
    """

    def __init__(
        self,
        geometry: BlockGeometry,
        modules: BlockModules,
        *,
        groups: int = 1,
        base_width: int = 64,
        reduction: int = 16,
        min_hidden: int = 32,
        split_input: bool = False,
    ):
        width = geometry.width(base_width) * groups
        super().__init__(geometry, modules, width)
        self.conv2 = SelectiveKernel(
            width,
            modules,
            stride=stride_of_mix(geometry),
            dilation=geometry.dilation,
            groups=groups,
            reduction=reduction,
            min_hidden=min_hidden,
            split_input=split_input,
        )

    def spatial_mix(self, x: Tensor) -> Tensor:
        """Select between the two kernels: B w H W -> B w H' W'."""
        return self.conv2(x)
