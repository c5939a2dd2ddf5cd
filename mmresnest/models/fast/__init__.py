"""The same networks, faster and leaner: twins of the definitions, put in place from outside.

    lean(model)         evaluation with norms folded into convolutions; training that saves less
    plain(model)        the definitions again
    DEVICES             where the twins compute: on CPUs, unless more is added

Names, parameters, state dict and values stay what they are, but for rounding;
``tests/models/test_ops.py`` proves it. Nothing here is imported by a definition.
"""

from typing import TypeVar

from torch import nn

from ..blocks import Bottleneck
from ..trunk import ResTrunk
from .convolution import DEVICES
from .twins import TWINS, LeanSequential, embed

__all__ = ['DEVICES', 'lean', 'plain']

Model = TypeVar('Model', bound=nn.Module)


def lean(model: Model) -> Model:
    """Puts the twins in place, in every network of ours that the model contains.

    Args:
        model: a network of this package, or whatever contains some.

    Returns:
        the same model.
    """
    for trunk in [module for module in model.modules() if isinstance(module, ResTrunk)]:
        trunk.entrance = embed
        for module in trunk.modules():
            cls = TWINS.get(type(module))
            if (
                cls is None
                and type(module) is nn.Sequential
                and len(module)
                and not isinstance(module[0], Bottleneck)
            ):
                cls = LeanSequential  # a stem or a shortcut, not a stage
            if cls is not None:
                module.__class__ = cls
    return model


def plain(model: Model) -> Model:
    """Puts the definitions back; the inverse of ``lean``."""
    for module in model.modules():
        if isinstance(module, ResTrunk):
            module.entrance = None
        definition = type(module).__dict__.get('definition')
        if definition is not None:
            module.__class__ = definition
    return model
