"""The networks for plain PyTorch: no mm package needed.

>>> import mmresnest
>>> backbone = mmresnest.build_backbone('resnest50', out_indices=(1, 2, 3))
>>> backbone.out_channels
(512, 1024, 2048)
"""

import os
from typing import Any

from ..errors import UserError
from . import fast, weights
from .timm_network import HUB, PREFIX, TimmNetwork
from .trunk import Trunk
from .trunks import build_trunk
from .variants import list_archs, variant
from .weights import loading

__all__ = ['build_backbone', 'list_archs']


def build_backbone(
    arch: str, *, pretrained: bool | str | os.PathLike = False, **trunk: Any
) -> Trunk | TimmNetwork:
    """Build a published network that returns one map per stage.

    Args:
        arch: its name, one of ``list_archs()``, or ``'timm/NAME'`` for a network of timm.
        pretrained: True for the published weights (fetched once into the torch hub cache), or the
            path or URL of a checkpoint in any published layout. What was loaded is logged by the
            logger ``mmresnest``.
        **trunk: arguments of ``ResTrunk`` or ``DLATrunk``, such as ``out_indices, strides,
            dilations, frozen_stages, in_channels, norm, with_cp, drop_path_rate``; those of
            ``TimmNetwork`` for one of timm.

    Returns:
        the network, in training mode; ``B 3 H W`` in, a tuple of ``B C H/s W/s`` out.

    Raises:
        ArgumentError: unknown arch or argument, with the legal ones.
        UserError: weights that cannot be fetched, or do not fit.
    """
    if arch.startswith(PREFIX):
        foreign = TimmNetwork(arch.removeprefix(PREFIX), **trunk)
        if pretrained:
            foreign.load_weights(HUB if pretrained is True else pretrained)
        return foreign
    row = variant(arch)
    network = build_trunk(**{**row.trunk, **trunk})
    if trunk.get('compat') is None:  # 'mm' asks for mmdet's bits
        fast.enable(network)
    weights.convert_on_load(network)
    if pretrained is True:
        if not row.weights:
            raise UserError(
                f'no weights were published for {row.name}; '
                f'give pretrained=False, or the path of a checkpoint of yours',
                code='weights.unpublished',
            )
        pretrained = weights.SCHEME + row.name
    if pretrained:
        loading.log_report(str(weights.load(network, os.fspath(pretrained))))
    return network
