"""Networks made ready for use: norms folded, convolutions merged, weights in oneDNN's order.

    model = fuse(model.eval())                      # a copy, for inference only
    model = fuse(model.eval(), compile=True)        # and compiled, with whatever sizes may come
    compile_backbone(model)                         # compiles the network as it is, to train it too
    keep_memory()                                   # this process hands no freed memory back

Evaluation-mode batch norm is a factor and a shift of each channel, k (W x) + b, and so belongs into
the weights of the convolution before it. The convolutions of a Res2Net block without hierarchy do
not see each other's results: they are one grouped convolution.
"""

import copy
import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import UserError
from .models import fast
from .models.blocks import (
    Bottleneck,
    Res2NetBottleneck,
    ResNeXtBottleneck,
    SelectiveKernel,
    SplitAttention,
    SplitWeighting,
)
from .models.dla import Root
from .models.fast.beside import make_twin
from .models.fast.convolution import fold_norm
from .models.fast.guards import has_hooks, is_known
from .models.trunk import ResTrunk, Trunk, to_memory_format

__all__ = ['compile_backbone', 'fold', 'fuse', 'keep_memory', 'compile_disabled']

Model = TypeVar('Model', bound=nn.Module)

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1  # disables trimming: mallopt(3)
PAD = 64 * 2**20  # bytes by which the heap grows at least

#: class -> names of convolutions and of the norms behind them
PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ResTrunk: (('conv1', 'bn1'),),
    Root: (('conv', 'bn'),),
    Bottleneck: (('conv1', 'bn1'), ('conv3', 'bn3')),
    ResNeXtBottleneck: (('conv2', 'bn2'),),
    SplitAttention: (('conv', 'bn0'),),
    SplitWeighting: (('fc1', 'bn1'),),
}

#: the walks of batch norms that a factor and a shift can stand for, mmengine's subclass among them
BATCH_NORMS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def fuse(
    model: Model,
    *,
    inplace: bool = False,
    compile: bool = False,
    dtype: torch.dtype = torch.float32,
    emulate: bool = False,
) -> Model:
    """Return the model for inference, with equal outputs but for rounding.

    Args:
        model: a network of this package, or a detector or segmentor with one. All its mmcv
            ``ConvModule`` are folded, too. Norms that are not batch norm, and those behind
            deformable convolutions or such as other norms share, stay.
        inplace: change the model itself and not a copy. Its norms are gone then for good, and its
            state dict is not that of the network any more.
        compile: have ``compile_backbone`` compile the result.
        dtype: ``torch.bfloat16`` for backbone and neck to compute in it, on CPUs that do so in
            hardware (AVX512-BF16 or AMX). They take and give float32, and heads stay what they are.
        emulate: compute in that dtype on other processors, too: slower, to check values.

    Returns:
        the model in its deployed form, in evaluation mode. It has no gradients.

    Raises:
        UserError: the model is in training mode, where its norms depend on the batch; or this
            processor would be slower in that dtype.
    """
    check_dtype(dtype, emulate)
    training = [
        name or 'the model itself'
        for name, module in model.named_modules()
        if module.training and (module is model or isinstance(module, _BatchNorm))
    ]
    if training:
        raise UserError(
            f'fuse: the model is in training mode ({training[0]}), where norms depend '
            f'on the batch and cannot be folded; call model.eval() first',
            code='model.training-mode',
        )
    if not inplace:
        model = copy.deepcopy(model)
    fold(model)
    replace_modules(model, merge_convs)
    replace_modules(model, lambda module: make_twin(module) or module)
    fast.enable(model)
    model.requires_grad_(False)
    trunks = [module for module in model.modules() if isinstance(module, Trunk)]
    if trunks and all(trunk.channels_last for trunk in trunks):
        to_memory_format(model, torch.channels_last)
    if dtype != torch.float32:
        for part in main_parts(model):
            part.to(dtype)
            part.register_forward_pre_hook(partial(cast_inputs, dtype=dtype))
            part.register_forward_hook(cast_outputs)
    if compile:
        compile_backbone(model)
    return model


def check_dtype(dtype: torch.dtype, emulate: bool) -> None:
    """Refuse a dtype that this processor has not, so that it would be slower than float32.

    Raises:
        UserError: it has not, and is not to emulate it.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise UserError(
            f'fuse: dtype {dtype}; legal: torch.float32, torch.bfloat16', code='option.value'
        )
    if dtype == torch.bfloat16 and not has_bfloat16() and not emulate:
        raise UserError(
            'this processor has neither AVX512-BF16 nor AMX, so that bfloat16 would be slower than '
            'float32 here; leave it out',
            code='device.no-bfloat16',
        )


def has_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16, as torch reports it."""
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    )


def cast_inputs(module: nn.Module, inputs: Any, dtype: torch.dtype) -> Any:
    """Convert the tensors that a part is given."""
    return cast_tensors(inputs, dtype)


def cast_outputs(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Convert the maps of a part to float32."""
    return cast_tensors(outputs, torch.float32)


def cast_tensors(value: Any, dtype: torch.dtype) -> Any:
    """Convert a tensor, or those of a list or tuple."""
    if isinstance(value, (list, tuple)):
        return type(value)(cast_tensors(one, dtype) for one in value)
    return value.to(dtype) if isinstance(value, Tensor) else value


def main_parts(model: nn.Module) -> list[nn.Module]:
    """Return backbone and neck of a detector or segmentor; of a network, itself."""
    parts = [
        part
        for name in ('backbone', 'neck')
        if isinstance(part := getattr(model, name, None), nn.Module)
    ]
    return parts or [model]


def fold(model: Model) -> Model:
    """Fold the norms of a model in evaluation into the convolutions before them, in place."""
    with torch.no_grad():
        found = [pair for module in model.modules() for pair in conv_norm_pairs(module)]
        uses = Counter(parent.get_submodule(conv) for parent, conv, _ in found)
        for parent, conv, norm in found:
            # Heads such as RTMDet's share a convolution among levels, and not the norms behind it.
            if uses[parent.get_submodule(conv)] == 1:
                fold_into(parent, conv, norm)
    return model


def conv_norm_pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield (parent, name of a convolution, name of the norm behind it) for a module."""
    for cls, names in PAIRS.items():
        if isinstance(module, cls):
            yield from ((module, *pair) for pair in names if hasattr(module, pair[0]))
    if isinstance(module, (Res2NetBottleneck, SelectiveKernel)):
        for index in range(len(module.convs)):
            yield module, f'convs.{index}', f'bns.{index}'
    elif isinstance(module, nn.Sequential):
        for conv, norm in pairwise(module._modules):  # whose names need not be numbers
            yield module, conv, norm
    elif type(module).__name__ == 'ConvModule' and getattr(module, 'with_norm', False):
        order = getattr(module, 'order', ())
        if 'conv' in order and order.index('norm') == order.index('conv') + 1:
            yield module, 'conv', str(module.norm_name)


def fold_into(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold a batch norm into the plain convolution before it; leave any other pair as it is."""
    conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
    if (
        not is_plain_conv(conv)
        or not isinstance(norm, _BatchNorm)
        or type(norm).forward not in BATCH_NORMS
        or 'forward' in vars(norm)
        or has_hooks(norm)
        or norm.running_mean is None
        or norm.running_var is None
        or norm.weight is None
    ):
        return
    folded = fold_norm(conv, norm, norm.running_mean, norm.running_var)
    conv.weight, conv.bias = nn.Parameter(folded.weight), nn.Parameter(folded.bias)
    owner, _, name = norm_name.rpartition('.')
    setattr(parent.get_submodule(owner), name, nn.Identity().eval())


def is_plain_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a module is a convolution and no more, as mmcv's subclass is."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and not hasattr(module, 'conv_offset')
        and not vars(module).keys() & {'forward', '_conv_forward'}
        and not has_hooks(module)
        and type(module.weight) is nn.Parameter  # else it is computed, or computes otherwise
    )


def replace_modules(model: nn.Module, replace: Callable[[nn.Module], nn.Module]) -> None:
    """Put what ``replace`` returns in the place of each module below a model, everywhere it is."""
    replaced: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None:
                if child not in replaced:
                    replaced[child] = replace(child)
                parent._modules[name] = replaced[child]


class MergedRes2NetBottleneck(Bottleneck):
    """A Res2Net block without hierarchy, its convolutions one.

    Args:
        block: the block, whose modules this one takes.
        conv: the convolution of all splits but the last.
    """

    pool: nn.Module

    def __init__(self, block: Res2NetBottleneck, conv: nn.Conv2d):
        nn.Module.__init__(self)  # the modules are there: none is made to be replaced
        for name, module in block.named_children():
            self.add_module(name, module)
        self.downsample = block.downsample
        self.convs, self.bns = nn.ModuleList([conv]), nn.ModuleList([nn.Identity()])
        self.sizes = [block.width * (block.scales - 1), block.width]
        self.train(block.training)

    def spatial_mix(self, x: Tensor) -> Tensor:
        """Convolve all splits but the last, and pool that: B ws H W -> B ws H' W'."""
        left, right = x.split(self.sizes, 1)
        y = self.conv_norm_act(self.convs[0], self.bns[0], left.clone())  # B w(s-1) H' W'
        return torch.cat([y, self.pool(right)], 1)


def merge_convs(module: nn.Module) -> nn.Module:
    """Return a Res2Net block without hierarchy with one convolution, other modules as they are."""
    if not isinstance(module, Res2NetBottleneck) or not is_known(module):
        return module
    if (
        module.hierarchical
        or module.scales < 3
        or not all(
            is_known(conv) and conv.bias is not None and type(norm) is nn.Identity
            for conv, norm in zip(module.convs, module.bns)
        )
    ):
        return module
    convs: list[nn.Conv2d] = list(module.convs)  # type: ignore[arg-type]
    first, count = convs[0], len(convs)
    merged = nn.Conv2d(
        first.in_channels * count,
        first.out_channels * count,
        3,
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        first.groups * count,
        device='meta',
    )
    with torch.no_grad():
        merged.weight = nn.Parameter(torch.cat([conv.weight for conv in convs]))
        merged.bias = nn.Parameter(torch.cat([conv.get_parameter('bias') for conv in convs]))
    return MergedRes2NetBottleneck(module, merged)


def compile_backbone(model: Model, **options: Any) -> Model:
    """Compile backbone and neck, once for all image sizes; heads stay as they are.

    Args:
        model: a detector or segmentor, or a network of this package.
        **options: of ``torch.compile``; ``dynamic=True`` unless given, with what
            ``one_graph_for_all_sizes`` does.

    Returns:
        the same model, its state dict and the names in it unchanged. What is compiled is the
        definition: compiled code makes its own choice of what to save.
    """
    options = {'dynamic': True, **options}
    if options['dynamic']:
        one_graph_for_all_sizes()
    for part in main_parts(model):
        part.compile(**options)
    return model


def one_graph_for_all_sizes() -> None:
    """Have no two sizes that happen to be equal taken for one size, in the whole process.

    Else a square image first would mean another graph for the others.

    Raises:
        UserError: this torch has no such setting.
    """
    from torch.fx.experimental import _config

    if not hasattr(_config, 'use_duck_shape') or not hasattr(torch.compiler, 'set_stance'):
        raise UserError(
            'compiling for all sizes (--compile) takes torch 2.6 or newer, and this '
            f'is {torch.__version__}; update it, or compile with dynamic=False',
            code='package.too-old',
        )
    _config.use_duck_shape = False


def compile_disabled() -> AbstractContextManager[None]:
    """Return a context in which modules run as they are written, though they were compiled.

    Compiled code calls no norms that could be watched, and a batch of one would be another graph.
    """
    if not hasattr(torch.compiler, 'set_stance'):  # nothing of ours can have been compiled
        return nullcontext()
    return torch.compiler.set_stance('force_eager')


def keep_memory() -> None:
    """Have this process keep what it frees, from now on, for what it needs next: for use on CPUs.

    glibc hands large pieces back to the system as soon as they are freed, and the system clears
    every page anew when they are asked for again: for each map of each step.

    Faster on CPUs, and larger: what is freed is not always found again where a piece must begin
    at a multiple of 64 bytes, least so by glibc before 2.38. docs/speed.md has figures of both.

    Raises:
        UserError: the C library is not glibc, or does not obey.
    """
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):
        raise UserError(
            'keep_memory sets what glibc does, the C library of most Linux systems, '
            'and it is not here; leave it (--no-malloc-trim) out',
            code='system.no-glibc',
        ) from None
    for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD)):
        if not mallopt(name, value):
            raise UserError(
                f'keep_memory: mallopt of the C library refuses its setting {name}; '
                'leave it (--no-malloc-trim) out',
                code='system.setting-refused',
            )
