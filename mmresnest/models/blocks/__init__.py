"""The five kinds of bottleneck, by the name under which a variant asks for one."""

from .bottleneck import BlockGeometry, BlockModules, Bottleneck, DropPath, conv3x3
from .functional import ConvNormAct, ConvNormSequential
from .res2net import Res2NetBottleneck
from .resnext import ResNeXtBottleneck
from .se import SEBottleneck, SqueezeExcite
from .selective_kernel import SelectiveKernel, SelectiveKernelBottleneck
from .split_attention import SplitAttention, SplitAttentionBottleneck, SplitWeighting

KINDS: dict[str, type[Bottleneck]] = dict(
    resnext=ResNeXtBottleneck,
    se=SEBottleneck,
    res2=Res2NetBottleneck,
    split=SplitAttentionBottleneck,
    sk=SelectiveKernelBottleneck,
)

__all__ = [
    'BlockGeometry',
    'BlockModules',
    'Bottleneck',
    'ConvNormAct',
    'ConvNormSequential',
    'DropPath',
    'KINDS',
    'Res2NetBottleneck',
    'ResNeXtBottleneck',
    'SEBottleneck',
    'SelectiveKernel',
    'SelectiveKernelBottleneck',
    'SplitAttention',
    'SplitAttentionBottleneck',
    'SplitWeighting',
    'SqueezeExcite',
    'conv3x3',
]
