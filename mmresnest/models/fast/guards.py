"""For which modules a faster form is right: those that are, to the letter, what it replaces.

A fast form computes with a module's weights and never calls it. Whoever changed what calling it
does, by a hook, a subclass, a parametrization or a ``forward`` of its own, must be obeyed: then the
definition runs.
"""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._device import DeviceContext

from ..blocks import DropPath, Res2NetBottleneck, SelectiveKernel, SplitAttention, SqueezeExcite

#: types of devices on which fast forms compute; on all others the definitions do. No GPU was at
#: hand to show that they are right and fast there: ``fast.DEVICES.add('cuda')`` tries.
DEVICES = {'cpu'}

#: a known type -> its methods that compute
KNOWN: dict[type[nn.Module], dict[str, object]] = {}

HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith('_hooks'))


def add_known(cls: type[nn.Module], *methods: str) -> type[nn.Module]:
    """Let a fast form take the place of modules of exactly this type."""
    KNOWN[cls] = {name: getattr(cls, name) for name in ('forward', '__call__', *methods)}
    return cls


add_known(nn.Conv2d, '_conv_forward')
add_known(nn.BatchNorm2d, '_check_input_dim')
add_known(nn.Identity)
add_known(nn.ReLU)
add_known(DropPath)
add_known(SqueezeExcite, 'excitation')
add_known(SplitAttention, 'attention', 'squeeze', 'splits')
add_known(SelectiveKernel, 'attention', 'squeeze', 'splits')
add_known(Res2NetBottleneck, 'spatial_mix', 'gates')


def is_known(module: nn.Module) -> bool:
    """Return whether calling a module does what its type says, and nothing else."""
    methods = KNOWN.get(type(module))
    if methods is None or has_hooks(module):
        return False
    own = vars(module)
    return (
        all(name not in own and getattr(type(module), name) is f for name, f in methods.items())
        and own.get('_compiled_call_impl') is None
        and all(
            p is None or type(p) in (Tensor, nn.Parameter)  # none that is sharded or quantized
            for p in module._parameters.values()
        )
        and (not isinstance(module, nn.BatchNorm2d) or is_as_constructed(module))
        and (not isinstance(module, nn.Conv2d) or is_zero_padded(module))
    )


def has_hooks(module: nn.Module) -> bool:
    """Return whether anybody waits for this module, or for any, to be called, saved or loaded."""
    return _has_any_global_hook() or any(map(vars(module).get, HOOKS))


def is_as_constructed(norm: nn.BatchNorm2d) -> bool:
    """Return whether a norm has weights and statistics, and uses them."""
    return (
        norm.track_running_stats
        and norm.affine
        and norm.weight is not None
        and norm.bias is not None
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def is_zero_padded(conv: nn.Conv2d) -> bool:
    """Return whether a convolution pads with so many zeros, and has weights of its own."""
    return (
        conv.padding_mode == 'zeros'
        and isinstance(conv.padding, tuple)
        and isinstance(conv._parameters.get('weight'), Tensor)
    )


def is_eager(x: Tensor) -> bool:
    """Return whether ``x`` is computed with here and now: nothing traces, transforms or counts."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and not torch.jit.is_tracing()
        and x.device.type in DEVICES
        and x.numel() > 0
        and not torch._C._len_torch_dispatch_stack()
        and not is_dispatch_observed()
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def is_dispatch_observed() -> bool:
    """Return whether somebody looks at the functions called, as PreciseBN does at batch norms.

    A default device (``torch.set_default_device``) is such a mode too, and looks at nothing.
    """
    stack = map(torch._C._get_function_stack_at, range(torch._C._len_torch_function_stack()))
    return any(not isinstance(mode, DeviceContext) for mode in stack)
