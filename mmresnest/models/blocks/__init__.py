"""The four kinds of bottleneck, by the name under which a variant asks for one."""

from .bottleneck import Bottleneck, DropPath, Parts, Site, conv3x3
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
    'Bottleneck',
    'DropPath',
    'KINDS',
    'Parts',
    'Res2NetBottleneck',
    'ResNeXtBottleneck',
    'SEBottleneck',
    'Site',
    'SplitAttention',
    'SplitAttentionBottleneck',
    'SqueezeExcite',
    'conv3x3',
]
