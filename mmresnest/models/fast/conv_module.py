"""mmcv's ``ConvModule`` in inference: convolution, norm and ReLU in one step. Imported late."""

from typing import Any

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from .convolution import convolve
from .guards import is_eager, is_known
from .twins import FoldCache, is_recorded

plain_forward = ConvModule.forward


class FoldedConvModule(ConvModule):
    """A ``ConvModule`` that computes by what a cache holds, where nobody can tell a difference."""

    fold_cache: FoldCache | None = None

    @classmethod
    def from_module(cls, module: nn.Module, cache: FoldCache | None) -> 'FoldedConvModule':
        """Return one of the same layers, hooks and settings, which both have from now on."""
        twin = cls.__new__(cls)
        for name, value in vars(module).items():
            object.__setattr__(twin, name, value)
        twin.fold_cache = cache
        return twin

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Compute B I H W -> B O H' W'."""
        act = self.activate if activate and self.with_activation else None
        layers = [self.conv, *([self.norm] if norm and self.with_norm else [])]
        if (
            is_eager(x)
            and all(map(is_known, layers))
            and (act is None or type(act) is nn.ReLU and is_known(act))
            and not is_recorded(x, *(p for layer in layers for p in layer.parameters()))
        ):
            if self.fold_cache is None:
                self.fold_cache = FoldCache()
            conv = self.fold_cache.find(*layers)
            if conv is not None:
                return convolve(conv, x, conv.weight, conv.bias, relu=act is not None)
        return plain_forward(self, x, activate, norm)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop('fold_cache', None)
        return state


def is_plain(module: nn.Module) -> bool:
    """Return whether a module is a ``ConvModule`` to the letter, its layers in the usual order."""
    return (
        type(module) is ConvModule
        and ConvModule.forward is plain_forward
        and 'forward' not in vars(module)
        and module.order == ('conv', 'norm', 'act')
        and not module.with_spectral_norm
        and not module.with_explicit_padding
        and module.efficient_conv_bn_eval_forward is None
        and is_known(module.conv)
    )
