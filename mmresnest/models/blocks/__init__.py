"""The four kinds of bottleneck, by the name under which a variant asks for one."""

from .bottleneck import BlockGeometry, BlockModules, Bottleneck, DropPath, conv3x3
from .functional import ConvNormAct, ConvNormSequential
from .res2net import Res2NetBottleneck
from .resnext import ResNeXtBottleneck
from .se import SEBottleneck, SqueezeExcite
from .split_attention import SplitAttention, SplitAttentionBottleneck

KINDS: dict[str, type[Bottleneck]] = dict(
    resnext=ResNeXtBottleneck,
    se=SEBottleneck,
    res2=Res2NetBottleneck,
    split=SplitAttentionBottleneck,
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
    'SplitAttention',
    'SplitAttentionBottleneck',
    'SqueezeExcite',
    'conv3x3',
]
