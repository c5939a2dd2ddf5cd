"""ResTrunk: stem, stages, and the rules that hold for every kind of bottleneck."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..errors import ArgumentError, nearest
from .blocks import KINDS, Bottleneck, DropPath, Parts, Site, conv3x3
from .blocks.bottleneck import Norm
from .blocks.pool import CeilAvgPool2d, CeilMaxPool2d
from .stem import deep_stem, plain_stem

Conv3x3 = Callable[..., nn.Module]


class ResTrunk(nn.Module):
    """A residual network without its classifier: one map per stage asked for.

    Args:
        kind: kind of bottleneck, a key of ``blocks.KINDS``.
        depths: blocks per stage, one to four stages.
        stem: width of a 7x7 stem, or the three widths of a deep one.
        in_channels: channels of the image.
        base_channels: planes of the first stage.
        pooled_shortcut: shortcuts average-pool and then convolve with stride 1 (the "D" form).
        shortcut_kernel: kernel of the shortcuts' convolutions from stage 2 on, and of strided ones
            (SENet-154: 3).
        stride_in_1x1: the first 1x1 takes the stride ("caffe" style), not the 3x3.
        ceil_pool: the stem's max pool rounds sizes up and does not pad (Caffe weights).
        strides: one per stage; its first block takes it.
        dilations: one per stage.
        contract_dilation: the first block of a dilated stage uses half its dilation, as all
            published dilated networks do. ``None``: True, or False where ``compat='mm'``.
        multi_grid: dilations of the last stage's blocks, instead of one for all.
        out_indices: stages whose maps are returned. A later stage is not built.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: keep batch norm in evaluation mode while training.
        with_cp: recompute blocks in the backward pass instead of storing their activations.
        drop_path_rate: stochastic depth rate of the last block; earlier ones less, linearly.
        zero_init_residual: start every branch's last norm at zero, so blocks start as identities.
        norm: makes a norm layer from a number of channels.
        convs3x3: one maker of 3x3 convolutions per stage (deformable ones, say).
        compat: ``'mm'`` reproduces mmdet's and mmseg's own departures from the published networks,
            for checkpoints that were trained with them.
        channels_last: compute in the channels-last layout whatever the image's layout is.
        **block: arguments of the kind of bottleneck.

    Raises:
        ArgumentError: an argument that is unknown or cannot be obeyed, with the legal values.
    """

    conv1: nn.Module  # } of a plain stem
    bn1: nn.Module  # }

    #: another walk through the stem, put here from outside; takes the trunk and the image
    entrance: Callable[['ResTrunk', Tensor], Tensor] | None = None

    def __init__(
        self,
        kind: str,
        depths: Sequence[int],
        *,
        stem: int | Sequence[int] = 64,
        in_channels: int = 3,
        base_channels: int = 64,
        pooled_shortcut: bool = False,
        shortcut_kernel: int = 1,
        stride_in_1x1: bool = False,
        ceil_pool: bool = False,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        contract_dilation: bool | None = None,
        multi_grid: Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        drop_path_rate: float = 0.0,
        zero_init_residual: bool = True,
        norm: Norm = nn.BatchNorm2d,
        convs3x3: Sequence[Conv3x3] | None = None,
        compat: str | None = None,
        channels_last: bool = True,
        **block: Any,
    ):
        super().__init__()
        check(
            kind,
            depths,
            strides,
            dilations,
            out_indices,
            frozen_stages,
            drop_path_rate,
            compat,
            multi_grid,
            stem,
        )
        self.out_indices, self.frozen_stages = tuple(out_indices), frozen_stages
        self.norm_eval, self.with_cp, self.channels_last = norm_eval, with_cp, channels_last
        for name in block.keys() - block_arguments(kind):
            raise ArgumentError(
                f'{name!r} is not an argument of a {kind!r} network; '
                f'{nearest(name, sorted(legal_arguments(kind)))}'
            )
        contract = compat != 'mm' if contract_dilation is None else contract_dilation
        build: Callable[..., Bottleneck] = partial(KINDS[kind], **block)

        if isinstance(stem, int):
            self.stem = None
            for name, module in plain_stem(stem, norm, in_channels).items():
                self.add_module(name, module)
            channels = stem
        else:
            self.stem = deep_stem(stem, norm, in_channels)
            channels = stem[-1]
        self.maxpool = CeilMaxPool2d(3, 2) if ceil_pool else nn.MaxPool2d(3, 2, 1)

        total = sum(depths)
        rates = iter([drop_path_rate * index / max(total - 1, 1) for index in range(total)])
        out_channels = []
        for stage in range(max(self.out_indices) + 1):  # a stage that nobody reads is not built
            grid = dilations_of(
                dilations[stage],
                depths[stage],
                contract,
                multi_grid if stage == len(depths) - 1 else None,
            )
            site = Site(
                channels,
                base_channels << stage,
                strides[stage],
                grid[0],
                stage,
                True,
                base_channels,
                stride_in_1x1,
                compat == 'mm',
                compat == 'mm',
            )
            parts = Parts(norm, conv3x3 if convs3x3 is None else convs3x3[stage])
            blocks = []
            for dilation in grid:
                site = replace(site, dilation=dilation)
                rate = next(rates)
                blocks.append(
                    build(
                        site,
                        replace(
                            parts,
                            drop_path=DropPath(rate) if rate > 0 else nn.Identity(),
                            shortcut=shortcut(site, norm, pooled_shortcut, shortcut_kernel),
                        ),
                    )
                )
                channels = site.planes * Bottleneck.expansion
                site = replace(site, in_channels=channels, stride=1, first=False)
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
            out_channels.append(channels)
        #: channels of the maps returned, for necks that ask
        self.out_channels = tuple(out_channels[index] for index in self.out_indices)
        initialise(self, zero_init_residual)
        if channels_last:
            lay_out(self, torch.channels_last)
        self.train()

    @property
    def stages(self) -> list[nn.Sequential]:
        """The stages that are built, in order."""
        return [
            module
            for name, module in self.named_children()
            if name.startswith('layer') and isinstance(module, nn.Sequential)
        ]

    @property
    def stem_parts(self) -> list[nn.Module]:
        """The stem's modules, whichever of its two forms it has."""
        return [self.conv1, self.bn1] if self.stem is None else [self.stem]

    def embed(self, image: Tensor) -> Tensor:
        """B 3 H W -> B C H/4 W/4: stem and max pool."""
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        if self.stem is None:
            x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        else:
            x = self.stem(image)
        return self.maxpool(x)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """B 3 H W -> one map per out_index, at strides 4, 8, 16, 32 unless dilated."""
        call = rerun if self.with_cp and torch.is_grad_enabled() else nn.Module.__call__
        x = self.embed(image) if self.entrance is None else self.entrance(self, image)
        maps = []
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = call(block, x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> 'ResTrunk':
        """Sets the mode, keeping frozen stages (and, with ``norm_eval``, norms) in evaluation."""
        super().train(mode)
        if self.frozen_stages >= 0:  # 0 freezes the stem alone
            for part in (*self.stem_parts, *self.stages[: self.frozen_stages]):
                part.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def lay_out(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Puts a module's 4-D weights into a memory layout, in place."""
    # torch's stubs of this method leave the argument out.
    module.to(memory_format=memory_format)  # type: ignore[call-overload]


def check(
    kind,
    depths,
    strides,
    dilations,
    out_indices,
    frozen_stages,
    drop_path_rate,
    compat,
    multi_grid,
    stem,
) -> None:
    """Refuses geometry that cannot be built, before anything is built."""
    if kind not in KINDS:
        raise ArgumentError(f'kind={kind!r} is unknown; {nearest(kind, KINDS)}')
    stages = len(depths)
    if not 1 <= stages <= 4:
        raise ArgumentError(f'num_stages={stages} is not supported; legal: 1, 2, 3, 4')
    for name, values in (('strides', strides), ('dilations', dilations)):
        if len(values) < stages or any(value < 1 for value in values):
            raise ArgumentError(
                f'{name}={tuple(values)} must give a number above 0 for each of the {stages} stages'
            )
    if (
        not out_indices
        or list(out_indices) != sorted(set(out_indices))
        or not (0 <= min(out_indices) and max(out_indices) < stages)
    ):
        raise ArgumentError(
            f'out_indices={tuple(out_indices)} must be ascending stage indices; '
            f'legal: {", ".join(map(str, range(stages)))}'
        )
    if not -1 <= frozen_stages <= stages:
        raise ArgumentError(
            f'frozen_stages={frozen_stages} is not supported; legal: -1 (nothing), '
            f'0 (the stem) to {stages}'
        )
    if not 0 <= drop_path_rate < 1:
        raise ArgumentError(f'drop_path_rate={drop_path_rate} must lie in [0, 1)')
    if compat not in (None, 'mm'):
        raise ArgumentError(f"compat={compat!r} is unknown; legal: None, 'mm'")
    if multi_grid is not None and len(multi_grid) != depths[-1]:
        raise ArgumentError(
            f'multi_grid={tuple(multi_grid)} must give one dilation for each of '
            f'the {depths[-1]} blocks of the last stage'
        )
    if not isinstance(stem, int) and len(stem) != 3:
        raise ArgumentError(f'stem={tuple(stem)} must be one width (7x7) or three (deep)')


def block_arguments(kind: str) -> set[str]:
    """The arguments of a kind of bottleneck, those it inherits included."""
    return {
        name
        for cls in KINDS[kind].__mro__
        if issubclass(cls, Bottleneck)
        for name, parameter in signature(cls.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def legal_arguments(kind: str) -> set[str]:
    """Every argument that a trunk of this kind obeys."""
    own = {
        name
        for name, parameter in signature(ResTrunk.__init__).parameters.items()
        if name != 'self' and parameter.kind is not parameter.VAR_KEYWORD
    }
    return own | block_arguments(kind)


def dilations_of(
    dilation: int, depth: int, contract: bool, multi_grid: Sequence[int] | None
) -> list[int]:
    """The dilation of each block of a stage."""
    if multi_grid is not None:
        return list(multi_grid)
    return [dilation // 2 if contract and dilation > 1 else dilation] + [dilation] * (depth - 1)


def shortcut(site: Site, norm: Norm, pooled: bool, kernel: int) -> nn.Module | None:
    """The projection where a block changes size or channels, else nothing."""
    out_channels = site.planes * Bottleneck.expansion
    if site.stride == 1 and site.in_channels == out_channels:
        return None
    if not pooled:
        # Where dilation took a stride away, the kernel stays and is dilated like the block's own.
        kernel = kernel if site.stride > 1 or site.stage > 0 else 1
        dilation = site.dilation if kernel > 1 else 1
        return nn.Sequential(
            nn.Conv2d(
                site.in_channels,
                out_channels,
                kernel,
                site.stride,
                kernel // 2 * dilation,
                dilation,
                bias=False,
            ),
            norm(out_channels),
        )
    # A place for the pool also where the stride is 1: the keys of the checkpoints count it.
    pool = nn.Identity() if site.stride == 1 else CeilAvgPool2d(site.stride)
    return nn.Sequential(
        pool, nn.Conv2d(site.in_channels, out_channels, 1, bias=False), norm(out_channels)
    )


def initialise(trunk: nn.Module, zero_init_residual: bool) -> None:
    """He initialisation (arXiv:1502.01852) by fan-out; offsets of deformable convolutions at 0."""
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith('conv_offset'):
                nn.init.zeros_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Bottleneck) and zero_init_residual:
            nn.init.zeros_(module.bn3.get_parameter('weight'))


def rerun(block: nn.Module, x: Tensor) -> Tensor:
    """Checkpointing that counts each batch once in the running statistics.

    A compiled graph needs no care for that: what is written to buffers becomes an output of the
    graph, which recomputing does not repeat. (The backend ``eager``, for debugging of graphs, does
    repeat it, and raises.)
    """
    if torch.compiler.is_compiling():
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(block))
    )


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Lets norms compute as in training and leaves their running statistics as they are."""
    norms = [
        module
        for module in block.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    counts = [norm.num_batches_tracked for norm in norms]
    before = [
        (norm.momentum, None if count is None else count.clone())
        for norm, count in zip(norms, counts)
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, now, (momentum, count) in zip(norms, counts, before):
            norm.momentum = momentum
            if now is not None and count is not None:
                now.copy_(count)
