"""The fast form of inference for a model that goes on being trained: its weights folded beside it.

    form = InferenceForm(model)
    with form.in_place():
        model.val_step(batch)

Norms are folded into convolutions, and these put into oneDNN's order, once for as long as their
weights stay as they are. Nothing of it is in the model: parameters, buffers, state dict, hooks and
names are the same before, within and after. Within, a twin of the same parameters stands in the
place of what is to the letter a convolution, or mmcv's ``ConvModule`` of convolution, batch norm
and ReLU; the networks of this package ask their own fast form, as they always do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec

from torch import nn

from ..blocks import ConvNormAct
from .convolution import PackedConv2d
from .guards import DEVICES, is_known, is_zero_padded
from .twins import FoldCache, FoldedForm


class InferenceForm:
    """What lies beside a model, and how it is put in place.

    Args:
        model: whatever contains networks of this package, or layers of mmcv and torch. Parts that
            were compiled, and networks in the plain form, are left alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.cache = FoldCache()
        self.networks: list[ConvNormAct] = []
        self.twins: dict[nn.Module, nn.Module] = {}
        compiled = {
            inner
            for module in model.modules()
            if module._compiled_call_impl is not None
            for inner in module.modules()
        }
        owned = set(compiled)  # layers that something else computes with
        for module in model.modules():
            if isinstance(module, ConvNormAct):
                owned.update(module.modules())
        for module in model.modules():
            if module in compiled or not is_on_device(module):
                continue
            if isinstance(module, ConvNormAct):
                if isinstance(module.fast, FoldedForm):
                    self.networks.append(module)
            elif module not in owned:
                twin = make_twin(module, self.cache)
                if twin is not None:
                    self.twins[module] = twin
                    owned.update(module.modules())
        self.places = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent._modules.items()
            if child in self.twins
        ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Compute by what lies beside the model, within this context and not beyond it."""
        forms = [network.fast for network in self.networks]
        changed = set()
        for module, twin in self.twins.items():
            if not isinstance(twin, PackedConv2d):
                continue  # that of a ConvModule has the same layers, and looks at them itself
            if type(module) is nn.Conv2d and is_known(module):
                twin.weight, twin.bias = module.weight, module.bias  # may be other objects by now
            else:  # it was given a hook or a parametrization
                changed.add(module)
        try:
            for network in self.networks:
                assert isinstance(network.fast, FoldedForm)
                network.fast = replace(network.fast, cache=self.cache)
            for parent, name, child in self.places:
                if child not in changed:
                    parent._modules[name] = self.twins[child]
            yield
        finally:
            for network, form in zip(self.networks, forms):
                network.fast = form
            for parent, name, child in self.places:
                parent._modules[name] = child


def make_twin(module: nn.Module, cache: FoldCache | None = None) -> nn.Module | None:
    """Return a module of the same parameters that computes faster in inference; None without."""
    if type(module) is nn.Conv2d and is_known(module) and is_zero_padded(module):
        return PackedConv2d.from_conv(module)
    if type(module).__name__ == 'ConvModule' and find_spec('mmcv') is not None:
        from .conv_module import FoldedConvModule, is_plain

        return FoldedConvModule.from_module(module, cache) if is_plain(module) else None
    return None


def is_on_device(module: nn.Module) -> bool:
    """Return whether fast forms compute where the weights of a module are."""
    return all(weight.device.type in DEVICES for weight in module.parameters())
