"""The same networks, faster: one step computed otherwise, put in place from outside.

    enable(model)                       evaluation with norms folded into convolutions
    enable(model, save_memory=True)     and training that saves less for the backward pass
    disable(model)                      the definitions again
    DEVICES                             where the fast form computes: on CPUs, unless more is added

Names, parameters, state dict and values stay what they are, but for rounding, and what is not to
the letter what the fast form replaces (a hook, a subclass, a parametrization ...) is computed as
it is defined; ``tests/models/test_fast.py`` proves it. Nothing here is imported by a definition.
"""

from typing import TypeVar

from torch import nn

from ..blocks import ConvNormAct
from .guards import DEVICES
from .twins import FoldedForm

__all__ = ['DEVICES', 'FoldedForm', 'disable', 'enable', 'lean', 'plain']

Model = TypeVar('Model', bound=nn.Module)


def enable(model: Model, save_memory: bool = False) -> Model:
    """Compute by the fast form, in every network of ours that the model contains.

    Args:
        model: a network of this package, or whatever contains some.
        save_memory: also in training, where the backward pass then computes again what is cheap
            instead of having it saved: about half the bytes, in about the same time. Without it
            whatever records a gradient is computed as it is defined.

    Returns:
        the same model.
    """
    for module in model.modules():
        if isinstance(module, ConvNormAct):
            module.fast = FoldedForm(save_memory)
    return model


def disable(model: Model) -> Model:
    """Compute by the definitions; the inverse of ``enable``."""
    for module in model.modules():
        if isinstance(module, ConvNormAct):
            module.fast = None
    return model


#: the former names, kept for one version
lean, plain = enable, disable
