"""The walks of the definitions once more, over convolutions that have their norms folded in.

A twin is a subclass that adds no state: a module becomes its twin, and itself again, by changing
its class. A trunk, whose class users know by name, is handed another walk through its stem.
Whatever traces, compiles, exports or counts a network meets the definition's forward.
"""

from contextlib import AbstractContextManager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import (
    Bottleneck,
    DropPath,
    Res2NetBottleneck,
    ResNeXtBottleneck,
    SEBottleneck,
    SplitAttention,
    SplitAttentionBottleneck,
)
from ..trunk import ResTrunk
from .attention import Attend, Pooled, attended
from .convolution import (
    PLACES_PER_CHANNEL,
    ScaledConv,
    conv_norm,
    convolve,
    eager,
    finish,
    fold,
    hooked,
    ordinary,
)
from .recompute import Compute, again, recomputing, remember


def lightly(module: nn.Module) -> AbstractContextManager[None]:
    """Saves little for the backward pass, if there will be one through norms that train."""
    return recomputing(torch.is_grad_enabled() and module.training)


class LeanBottleneck(Bottleneck):
    """The walk of ``Bottleneck`` with ``mixed`` for ``mix`` and ``joined`` for all behind it."""

    definition: type[nn.Module] = Bottleneck

    def mixed(self, x: Tensor) -> Tensor:
        """``mix``."""
        return self.mix(x)

    def joined(self, y: Tensor, shortcut: Tensor) -> Tensor:
        """relu(drop_path(gate(norm(conv(y)))) + shortcut)."""
        if isinstance(self.drop_path, DropPath) and self.training:
            y = self.drop_path(self.gate(conv_norm(self.conv3, self.bn3, y)))
            return F.relu(y + shortcut, inplace=True)
        return conv_norm(self.conv3, self.bn3, y, add=shortcut, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B 4p H' W'."""
        if not eager(x):
            return super().forward(x)
        with lightly(self):
            y = self.mixed(conv_norm(self.conv1, self.bn1, x, relu=True))
            return self.joined(y, x if self.downsample is None else self.downsample(x))


class LeanResNeXtBottleneck(LeanBottleneck, ResNeXtBottleneck):
    """A grouped 3x3."""

    definition = ResNeXtBottleneck

    def mixed(self, x: Tensor) -> Tensor:
        """B w H W -> B w H' W'."""
        return conv_norm(self.conv2, self.bn2, x, relu=True)


class LeanSEBottleneck(LeanResNeXtBottleneck, SEBottleneck):
    """Squeeze before expanding: the mean of W y + b is W mean(y) + b."""

    definition = SEBottleneck

    def joined(self, y: Tensor, shortcut: Tensor) -> Tensor:
        """The gate's scale is known before the map that it scales is computed."""
        folded = None
        graph = torch.is_grad_enabled()
        # The scaled convolution's gradients are taken sample by sample: not of small maps.
        small = y.shape[2] * y.shape[3] < PLACES_PER_CHANNEL * y.shape[1]
        if not (
            hooked(self.se)
            or isinstance(self.drop_path, DropPath)
            and self.training
            or torch.is_autocast_enabled(y.device.type)
            or graph
            and small
        ) and ordinary(self.conv3):
            folded = fold(self.conv3, self.bn3, y, pool=True)
        if folded is None or folded.pooled is None:
            y = self.drop_path(self.gate(conv_norm(self.conv3, self.bn3, y)))
            return finish(y, shortcut, True)
        z = F.linear(folded.pooled, folded.weight.flatten(1), folded.bias)  # B 4p
        s = self.se.excitation(z[:, :, None, None])  # B 4p 1 1
        if graph and (y.requires_grad or folded.weight.requires_grad):
            return finish(ScaledConv.apply(y, folded.weight, folded.bias, s), shortcut, True)
        y = convolve(self.conv3, y, folded.weight, folded.bias)
        return torch.addcmul(shortcut, y, s).relu_()


class LeanRes2NetBottleneck(LeanBottleneck, Res2NetBottleneck):
    """The ladder."""

    definition = Res2NetBottleneck

    def mixed(self, x: Tensor) -> Tensor:
        """B ws H W -> B ws H' W'."""
        splits = x.split(self.width, 1)  # s times B w H W
        rungs: list[Tensor] = []
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns)):
            own = again(splits[index])
            if self.hierarchical and index > 0:
                y = splits[index] + rungs[-1]  # B w H W
                remember(y, partial(total, own, again(rungs[-1])))
            else:
                y = splits[index].clone()
                remember(y, partial(total, own))
            rungs.append(conv_norm(conv, norm, y, relu=True))
        if self.scales > 1:
            rungs.append(self.pool(splits[-1]))
        parts = [again(rung) for rung in rungs]
        y = torch.cat(rungs, 1)  # B ws H' W'
        remember(y, lambda: torch.cat([part() for part in parts], 1))
        return y


def total(one: Compute, other: Compute | None = None) -> Tensor:
    """What a convolution of the ladder receives, a map without gaps."""
    return one().clone() if other is None else one() + other()


class LeanSplitAttentionBottleneck(LeanBottleneck, SplitAttentionBottleneck):
    """Split attention, which has a twin of its own."""

    definition = SplitAttentionBottleneck


class LeanSplitAttention(SplitAttention):
    """One pass over the map for the means, one for each split in the sum."""

    definition = SplitAttention

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C H' W'."""
        if not eager(x) or self.sum_splits_first or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        u = conv_norm(self.conv, self.bn0, x, relu=True)  # B RC H W
        if not (torch.is_grad_enabled() and u.requires_grad):
            return attended(u, self.attention(self.squeeze(u)), self.channels)
        values = again(u)
        u, means = Pooled.apply(u)
        a = self.attention(sum(means.split(self.channels, 1)))  # B RC 1 1
        V = Attend.apply(u, a, self.channels)  # B C H W
        weights = a.detach()
        remember(V, lambda: attended(values(), weights, self.channels))
        return V


class LeanSequential(nn.Sequential):
    """A stem or a shortcut: convolutions each with its norm, and maybe a ReLU."""

    definition: type[nn.Module] = nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        """Layer by layer, up to three of them in one step."""
        if not eager(x):
            return super().forward(x)
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, nn.Conv2d) or not layers:
                x = layer(x)
                continue
            norm = layers.pop(0)
            relu = bool(layers) and type(layers[0]) is nn.ReLU and not hooked(layers[0])
            x = conv_norm(layer, norm, x, relu=relu)
            if relu:
                layers.pop(0)
        return x


def embed(trunk: ResTrunk, image: Tensor) -> Tensor:
    """B 3 H W -> B C H/4 W/4: ``ResTrunk.embed``."""
    if not eager(image):
        return trunk.embed(image)
    with lightly(trunk):
        if trunk.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        if trunk.stem is None:
            x = conv_norm(trunk.conv1, trunk.bn1, image, relu=True)
        else:
            x = trunk.stem(image)
        return trunk.maxpool(x)


#: definition -> its twin
TWINS: dict[type[nn.Module], type[nn.Module]] = {
    cls.definition: cls
    for cls in (
        LeanResNeXtBottleneck,
        LeanSEBottleneck,
        LeanRes2NetBottleneck,
        LeanSplitAttention,
        LeanSplitAttentionBottleneck,
    )
}
