"""Deep layer aggregation (Yu et al., arXiv:1707.06484): stages that are trees of blocks.

A stage of depth d is a tree T_d; its root N aggregates what its two subtrees, and the nodes named
to it from further up, have computed (section 3.2, iterative and hierarchical):

    T_1(x; C) = N(B2(x1), x1, *C)       x1 = B1(x), whose shortcut is project(pool(x))
    T_d(x; C) = T_{d-1}(x1; C + x1)     x1 = T_{d-1}(x)
    N(x2, x1, *C) = relu(bn(W [x2, x1, *C]) (+ x2))

From the second stage on, C begins with pool(x), the stage before. B is a bottleneck of expansion 2
of :mod:`.blocks`: ResNeXt's, or the ladder of Res2Net, without hierarchy in the first block.

The pools round up, as the strided convolutions beside them do. The authors' and timm's round down:
equal where a size is even, and where it is odd their sizes do not match and they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .blocks import (
    BlockGeometry,
    Bottleneck,
    ConvNormAct,
    ConvNormSequential,
    Res2NetBottleneck,
    ResNeXtBottleneck,
)
from .blocks.bottleneck import Norm
from .blocks.pool import CeilMaxPool2d
from .blocks.res2net import concat
from .trunk import BlockWalk, StageSpec, Trunk

TREES: Mapping[str, type[Bottleneck]] = dict(dla=ResNeXtBottleneck, dla_res2=Res2NetBottleneck)


@dataclass(frozen=True)
class TreeSpec(StageSpec):
    """What a :class:`DLATrunk` is made of, which documents it."""

    kinds: ClassVar[Mapping[str, type[Bottleneck]]] = TREES
    expansion: ClassVar[int] = 2

    zero_init_residual: bool = False
    root_shortcut: bool = False

    def count_blocks(self, stage: int) -> int:
        """Return how many leaves a tree has."""
        return 2 ** self.depths[stage]

    def first_geometry(self, stage: int, in_channels: int) -> BlockGeometry:
        """Return where the first block of a tree stands; strides are told from stride 4 on."""
        return BlockGeometry(
            in_channels,
            planes=self.base_channels << stage,
            stride=self.strides[stage] * (2 if stage == 0 else 1),
            dilation=self.first_dilation(stage),
            stage=stage,
            first=True,
            base_channels=self.base_channels,
            expansion=self.expansion,
        )


@dataclass(frozen=True)
class TreeParts:
    """What the nodes of a tree are built from."""

    make_block: Callable[[BlockGeometry], Bottleneck]
    norm: Norm
    dilation: int  # of all blocks but the first
    root_shortcut: bool


class Root(ConvNormAct, nn.Module):
    """The node N of a tree."""

    def __init__(self, in_channels: int, out_channels: int, parts: TreeParts):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = parts.norm(out_channels)
        self.shortcut = parts.root_shortcut

    def forward(self, *nodes: Tensor) -> Tensor:
        """Aggregate: several B C H W -> B O H W."""
        add = nodes[0] if self.shortcut else None
        return self.conv_norm_act(self.conv, self.bn, self.recomputable(concat, *nodes), add=add)


class Tree(BlockWalk, nn.Module):
    """T_d.

    Args:
        depth: d.
        geometry: where its first block stands.
        parts: what its nodes are built from.
        more: channels of the nodes C that its root is given beside its own.
        keeps_input: C begins with pool(x).
    """

    def __init__(
        self,
        depth: int,
        geometry: BlockGeometry,
        parts: TreeParts,
        more: int = 0,
        keeps_input: bool = False,
    ):
        super().__init__()
        channels, out_channels = geometry.in_channels, geometry.out_channels
        self.depth, self.keeps_input = depth, keeps_input
        more += channels if keeps_input else 0
        following = replace(geometry.get_next(), dilation=parts.dilation)
        stride = geometry.stride
        self.pool: nn.Module = CeilMaxPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.tree1: Tree | Bottleneck
        self.tree2: Tree | Bottleneck
        if depth > 1:
            self.tree1 = Tree(depth - 1, geometry, parts)
            self.tree2 = Tree(depth - 1, following, parts, more + out_channels)
            return
        self.project: nn.Module = nn.Identity()
        if channels != out_channels:
            conv = nn.Conv2d(channels, out_channels, 1, bias=False)
            self.project = ConvNormSequential(conv, parts.norm(out_channels))
        self.tree1, self.tree2 = parts.make_block(geometry), parts.make_block(following)
        self.root = Root(2 * out_channels + more, out_channels, parts)

    def forward(self, x: Tensor, nodes: tuple[Tensor, ...] = ()) -> Tensor:
        """B C H W, and C's maps of B * H' W' -> B O H' W'."""
        if self.keeps_input or self.depth == 1:
            pooled = self.pool(x)  # B C H' W'
        if self.keeps_input:
            nodes = (*nodes, pooled)
        if self.depth > 1:
            x1 = self.tree1(x)  # B O H' W'
            return self.tree2(x1, (*nodes, x1))
        x1 = self.run_block(self.tree1, x, self.project(pooled))
        x2 = self.run_block(self.tree2, x1)
        with self.recompute_scope():
            return self.root(x2, x1, *nodes)


class DLATrunk(Trunk):
    """DLA without its classifier: one map per stage asked for, at strides 4 to 32.

    Args:
        kind: ``'dla'`` or ``'dla_res2'``.
        depths: of the tree of each stage, one to four stages.
        root_shortcut: roots add the output of their second subtree.
        zero_init_residual: as in ``ResTrunk``; False, as its authors trained it.
        base_channels: half of the channels of the first map, four times those of the 7x7; 64.
        **arguments: those of ``ResTrunk`` that a DLA has: ``in_channels, strides, dilations,
            contract_dilation, out_indices, frozen_stages, norm_eval, with_cp, drop_path_rate,
            norm, convs3x3, channels_last``, and those of the kind of bottleneck.

    Raises:
        ArgumentError: an argument that is unknown or cannot be obeyed, with the legal values.
    """

    spec = TreeSpec
    all_stages = ('level2', 'level3', 'level4', 'level5')

    def __init__(self, kind: str, depths: Sequence[int], **arguments: Any):
        spec = TreeSpec.from_arguments(kind, depths, arguments)
        super().__init__(spec)
        narrow, channels = spec.base_channels // 4, spec.base_channels // 2
        self.base_layer = conv_level(spec.in_channels, narrow, 7, 1, spec.norm)
        self.level0 = conv_level(narrow, narrow, 3, 1, spec.norm)
        self.level1 = conv_level(narrow, channels, 3, 2, spec.norm)
        drop_paths = spec.drop_paths()
        for stage, name in enumerate(self.stage_names):
            modules = spec.block_modules(stage)

            def make_block(geometry: BlockGeometry, modules: Any = modules) -> Bottleneck:
                return TREES[kind](
                    geometry, replace(modules, drop_path=next(drop_paths)), **spec.block
                )

            parts = TreeParts(make_block, spec.norm, spec.dilations[stage], spec.root_shortcut)
            geometry = spec.first_geometry(stage, channels)
            self.add_module(name, Tree(spec.depths[stage], geometry, parts, keeps_input=stage > 0))
            channels = geometry.out_channels
        self.settle(spec)

    @property
    def stem_modules(self) -> list[nn.Module]:
        """The convolutions before the trees."""
        return [self.base_layer, self.level0, self.level1]

    def forward_stem(self, image: Tensor) -> Tensor:
        """B 3 H W -> B 32 H/2 W/2."""
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        with self.recompute_scope():
            return self.level1(self.level0(self.base_layer(image)))


def conv_level(
    in_channels: int, out_channels: int, size: int, stride: int, norm: Norm
) -> ConvNormSequential:
    """Return a convolution, its norm and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False)
    return ConvNormSequential(conv, norm(out_channels), nn.ReLU(inplace=True))
