"""The fast form of inference for a model that goes on being trained: its weights folded beside it.

    form = InferenceForm(model)
    with form.in_place():
        model.val_step(batch)

Norms are folded into convolutions, and these put into oneDNN's order, once for as long as their
weights stay as they are. Nothing of it is in the model: parameters, buffers, state dict, hooks and
names are the same before, within and after. What is to the letter a convolution, or mmcv's
``ConvModule`` of convolution, batch norm and ReLU, has another class within, which computes from
what lies beside; the networks of this package ask their own fast form, as they always do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from torch import nn

from ..blocks import ConvNormAct
from .convolution import KEPT_ASIDE, PackedConv2d
from .guards import DEVICES, is_known
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
        self.classes: dict[nn.Module, type[nn.Module]] = {}
        self.kept: dict[nn.Module, dict[str, Any]] = {}
        owned: set[nn.Module] = set()  # convolutions that something else computes with
        for module in model.modules():
            if module._compiled_call_impl is not None or isinstance(module, ConvNormAct):
                owned.update(module.modules())
        compiled = {
            inner
            for module in model.modules()
            if module._compiled_call_impl is not None
            for inner in module.modules()
        }
        for module in model.modules():
            if module in compiled or not is_on_device(module):
                continue
            if isinstance(module, ConvNormAct):
                if isinstance(module.fast, FoldedForm):
                    self.networks.append(module)
            elif module not in owned:
                cls = class_in_inference(module)
                if cls is not None:
                    self.classes[module] = cls
                    if cls is not PackedConv2d:
                        self.kept[module] = {'fold_cache': self.cache}
                        owned.add(module.get_submodule('conv'))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Compute by what lies beside the model, within this context and not beyond it."""
        forms = [module.fast for module in self.networks]
        classes = [type(module) for module in self.classes]
        try:
            for module in self.networks:
                assert isinstance(module.fast, FoldedForm)
                module.fast = replace(module.fast, cache=self.cache)
            for other, cls in self.classes.items():
                other.__class__ = cls
                vars(other).update(self.kept.get(other, {}))
            yield
        finally:
            for module, form in zip(self.networks, forms):
                module.fast = form
            for other, cls in zip(self.classes, classes):
                other.__class__ = cls
                own = vars(other)
                self.kept[other] = {name: own.pop(name) for name in KEPT if name in own}

    def release(self) -> None:
        """Give back the memory of what lies beside the model."""
        self.cache.folded.clear()
        self.kept.clear()


#: what the classes of inference keep in a module, and what is put aside when it leaves them
KEPT = ('fold_cache', *KEPT_ASIDE)


def class_in_inference(module: nn.Module) -> type[nn.Module] | None:
    """Return the class by which a module computes in inference; None for its own."""
    if type(module) is nn.Conv2d and is_known(module):
        return PackedConv2d
    if type(module).__name__ == 'ConvModule' and find_spec('mmcv') is not None:
        from .conv_module import FoldedConvModule, is_plain

        return FoldedConvModule if is_plain(module) else None
    return None


def is_on_device(module: nn.Module) -> bool:
    """Return whether fast forms compute where the weights of a module are."""
    return all(weight.device.type in DEVICES for weight in module.parameters())
