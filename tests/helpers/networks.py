"""Published networks with few blocks a stage and narrow, one of each kind, and their inputs."""

import torch
from torch import nn

import mmresnest
from mmresnest.models.blocks.se import SqueezeExcite
from mmresnest.models.dla import Root, Tree
from mmresnest.models.trunk import Trunk
from mmresnest.models.variants import TABLE, Variant

DEPTHS = (2, 1, 1, 1)
BASE_CHANNELS = 16
"""A quarter of the published widths, unless a test is about them."""


def settings(row: Variant) -> tuple:
    """What makes a row, but for its depth."""
    return tuple(sorted((key, repr(value)) for key, value in row.trunk.items() if key != 'depths'))


def form(row: Variant) -> tuple:
    """What decides which operations a row consists of: flags, and whether a number is 1."""
    return tuple(
        sorted(
            (key, value if isinstance(value, (bool, str)) else (type(value).__name__, value == 1))
            for key, value in row.trunk.items()
            if key != 'depths'
        )
    )


def one_of_each(key) -> list[Variant]:
    """The first row of each kind of row."""
    first: dict = {}
    for row in TABLE:
        first.setdefault(key(row), row)
    return list(first.values())


def sizing(row: Variant) -> tuple:
    """What decides how sizes follow from sizes: the kind, and which pools round up."""
    return tuple(row.trunk.get(key, False) for key in ('kind', 'pooled_shortcut', 'ceil_pool'))


ROWS, FORMS, SIZINGS, KINDS = map(
    one_of_each, (settings, form, sizing, lambda row: row.trunk['kind'])
)


def build(row: Variant, **more) -> Trunk:
    """The row's network, with no value at a default that would hide a mistake."""
    torch.manual_seed(0)
    given = dict(depths=DEPTHS, base_channels=BASE_CHANNELS, zero_init_residual=False)
    network = mmresnest.build_backbone(row.name, **{**given, **more})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
        elif isinstance(module, SqueezeExcite):  # few hidden channels: none may be dead
            nn.init.uniform_(module.fc1.bias, 0.5, 1.0)
        elif isinstance(module, Root):  # sums of many maps would grow from tree to tree
            nn.init.uniform_(module.bn.weight, 0.1, 0.3)
        elif isinstance(module, Tree) and module.depth == 1:  # and those of residual roots, too
            for block in (module.tree1, module.tree2):
                block.bn3.weight.data.mul_(torch.rand_like(block.bn3.weight) * 0.2 + 0.1)
    return network


def image(batch: int = 2, size: tuple[int, int] = (64, 64), seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def loss(maps) -> torch.Tensor:
    """No map is left out, and no two elements of one weigh the same."""
    return sum(
        (m * torch.linspace(-1, 1, m.numel()).view_as(m)).mean() + m.square().mean() for m in maps
    )
