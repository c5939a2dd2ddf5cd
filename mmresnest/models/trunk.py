"""Trunks: stem, stages, and the rules that hold for every kind of network; and ResTrunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from itertools import islice
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..errors import ArgumentError, check_indices, nearest
from .blocks import (
    KINDS,
    BlockGeometry,
    BlockModules,
    Bottleneck,
    ConvNormAct,
    ConvNormSequential,
    DropPath,
    conv3x3,
)
from .blocks.bottleneck import Norm
from .blocks.pool import CeilAvgPool2d, CeilMaxPool2d
from .stem import deep_stem, plain_stem

Spec = TypeVar('Spec', bound='StageSpec')
Network = TypeVar('Network', bound='Trunk')

Conv3x3 = Callable[..., nn.Module]


@dataclass(frozen=True)
class StageSpec:
    """What the networks of all trunks are told; :class:`ResTrunk` documents the arguments.

    Raises:
        ArgumentError: geometry that cannot be built, with the legal values.
    """

    #: name of a kind of network -> its blocks
    kinds: ClassVar[Mapping[str, type[Bottleneck]]] = KINDS
    expansion: ClassVar[int] = 4  # of its blocks

    kind: str
    depths: Sequence[int]
    in_channels: int = 3
    base_channels: int = 64
    strides: Sequence[int] = (1, 2, 2, 2)
    dilations: Sequence[int] = (1, 1, 1, 1)
    contract_dilation: bool | None = None
    out_indices: Sequence[int] = (0, 1, 2, 3)
    frozen_stages: int = -1
    norm_eval: bool = False
    with_cp: bool = False
    drop_path_rate: float = 0.0
    zero_init_residual: bool = True
    norm: Norm = nn.BatchNorm2d
    convs3x3: Sequence[Conv3x3] | None = None
    channels_last: bool | None = None
    block: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be built, before anything is built."""
        self.check_stages()
        self.check_options()

    @classmethod
    def from_arguments(
        cls: type[Spec], kind: str, depths: Sequence[int], arguments: dict[str, Any]
    ) -> Spec:
        """Return the arguments of a trunk, those of its blocks apart."""
        own = cls.trunk_arguments() & arguments.keys()
        return cls(
            kind,
            depths,
            **{name: arguments[name] for name in own},
            block={name: value for name, value in arguments.items() if name not in own},
        )

    @classmethod
    def trunk_arguments(cls) -> set[str]:
        """Return the arguments that every such trunk takes beside ``kind`` and ``depths``."""
        return {each.name for each in fields(cls)} - {'kind', 'depths', 'block'}

    @classmethod
    def block_arguments(cls, kind: str) -> set[str]:
        """Return the arguments of a kind of bottleneck, those it inherits included."""
        return {
            name
            for block in cls.kinds[kind].__mro__
            if issubclass(block, Bottleneck)
            for name, parameter in signature(block.__init__).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    @classmethod
    def legal_arguments(cls, kind: str) -> set[str]:
        """Return every argument that a trunk of this kind obeys."""
        return {'kind', 'depths'} | cls.trunk_arguments() | cls.block_arguments(kind)

    def check_stages(self) -> None:
        """Refuse numbers of stages, and what is given for each, that do not go together."""
        if self.kind not in self.kinds:
            raise ArgumentError(
                f'kind={self.kind!r} is unknown; {nearest(self.kind, self.kinds)}',
                code='argument.value',
            )
        for name in ('depths', 'strides', 'dilations', 'out_indices'):
            check_indices(name, getattr(self, name))
        stages, out_indices = len(self.depths), tuple(self.out_indices)
        if not 1 <= stages <= 4:
            raise ArgumentError(
                f'num_stages={stages} is not supported; legal: 1, 2, 3, 4', code='argument.value'
            )
        for name, values in (('strides', self.strides), ('dilations', self.dilations)):
            if len(values) < stages or any(value < 1 for value in values):
                raise ArgumentError(
                    f'{name}={tuple(values)} must give a number above 0 for each of '
                    f'the {stages} stages',
                    code='argument.value',
                )
        if not out_indices or out_indices != tuple(sorted(set(out_indices) & set(range(stages)))):
            raise ArgumentError(
                f'out_indices={out_indices} must be ascending stage indices; '
                f'legal: {", ".join(map(str, range(stages)))}',
                code='argument.value',
            )

    def check_options(self) -> None:
        """Refuse values, and arguments of blocks, that the kind does not have."""
        stages = len(self.depths)
        if not -1 <= self.frozen_stages <= stages:
            raise ArgumentError(
                f'frozen_stages={self.frozen_stages} is not supported; legal: -1 (nothing), '
                f'0 (the stem) to {stages}',
                code='argument.value',
            )
        if not 0 <= self.drop_path_rate < 1:
            raise ArgumentError(
                f'drop_path_rate={self.drop_path_rate} must lie in [0, 1)', code='argument.value'
            )
        for name in self.block.keys() - self.block_arguments(self.kind):
            raise ArgumentError(
                f'{name!r} is not an argument of a {self.kind!r} network; '
                f'{nearest(name, sorted(self.legal_arguments(self.kind)))}',
                code='argument.unknown',
            )

    @property
    def num_built(self) -> int:
        """How many stages are built: one that nobody reads is not."""
        return max(self.out_indices) + 1

    @property
    def contracts(self) -> bool:
        """Whether the first block of a dilated stage has half of its dilation."""
        return self.contract_dilation is not False

    @property
    def is_channels_last(self) -> bool:
        """Whether maps are computed in the channels-last layout."""
        return self.channels_last is not False

    def stage_channels(self, stage: int) -> int:
        """Return the channels of a stage's map."""
        return (self.base_channels << stage) * self.expansion

    def first_dilation(self, stage: int) -> int:
        """Return the dilation of the first block of a stage."""
        dilation = self.dilations[stage]
        return dilation // 2 if self.contracts and dilation > 1 else dilation

    def count_blocks(self, stage: int) -> int:
        """Return how many blocks a stage has."""
        return self.depths[stage]

    def drop_paths(self) -> Iterator[nn.Module]:
        """Yield the stochastic depth of each block, from the first on."""
        total = sum(map(self.count_blocks, range(len(self.depths))))
        for index in range(total):
            rate = self.drop_path_rate * index / max(total - 1, 1)
            yield DropPath(rate) if rate > 0 else nn.Identity()

    def block_modules(self, stage: int) -> BlockModules:
        """Return what all blocks of a stage are built from."""
        return BlockModules(self.norm, conv3x3 if self.convs3x3 is None else self.convs3x3[stage])


@dataclass(frozen=True)
class TrunkSpec(StageSpec):
    """What a residual trunk is made of."""

    stem: int | Sequence[int] = 64
    pooled_shortcut: bool = False
    shortcut_kernel: int = 1
    stride_in_1x1: bool = False
    ceil_pool: bool = False
    multi_grid: Sequence[int] | None = None
    compat: str | None = None

    def check_stages(self) -> None:
        """Refuse also a multi-grid for another number of blocks."""
        super().check_stages()
        if self.multi_grid is not None and len(self.multi_grid) != self.depths[-1]:
            raise ArgumentError(
                f'multi_grid={tuple(self.multi_grid)} must give one dilation for each of '
                f'the {self.depths[-1]} blocks of the last stage',
                code='argument.value',
            )

    def check_options(self) -> None:
        """Refuse also forms that a residual trunk does not have."""
        super().check_options()
        if self.compat not in (None, 'mm'):
            raise ArgumentError(
                f"compat={self.compat!r} is unknown; legal: None, 'mm'", code='argument.value'
            )
        if not isinstance(self.stem, int) and len(self.stem) != 3:
            raise ArgumentError(
                f'stem={tuple(self.stem)} must be one width (7x7) or three (deep)',
                code='argument.value',
            )

    @property
    def contracts(self) -> bool:
        """Whether the first block of a dilated stage has half of its dilation."""
        return self.compat != 'mm' if self.contract_dilation is None else self.contract_dilation

    @property
    def is_channels_last(self) -> bool:
        """Whether maps are computed in the channels-last layout."""
        return self.compat != 'mm' if self.channels_last is None else self.channels_last

    def block_dilations(self, stage: int) -> list[int]:
        """Return the dilation of each block of a stage."""
        if self.multi_grid is not None and stage == len(self.depths) - 1:
            return list(self.multi_grid)
        return [self.first_dilation(stage)] + [self.dilations[stage]] * (self.depths[stage] - 1)

    def first_geometry(self, stage: int, in_channels: int) -> BlockGeometry:
        """Return where the first block of a stage stands."""
        return BlockGeometry(
            in_channels,
            planes=self.base_channels << stage,
            stride=self.strides[stage],
            stage=stage,
            first=True,
            base_channels=self.base_channels,
            stride_in_1x1=self.stride_in_1x1,
            pool_needs_stride=self.compat == 'mm',
            sum_splits_first=self.compat == 'mm',
        )


class BlockWalk(ConvNormAct):
    """What runs blocks: ``with_cp`` has each computed again in the backward pass, not saved."""

    with_cp = False

    def run_block(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """Return what a block makes of its inputs."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint_block(block, *inputs)
        with self.recompute_scope():
            return block(*inputs)


class Stage(BlockWalk, nn.Sequential):
    """Blocks in a row."""

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B 4p H' W'."""
        for block in self:
            x = self.run_block(block, x)
        return x


class Trunk(ConvNormAct, nn.Module):
    """A stem and up to four stages: what holds for every network without its classifier.

    A subclass builds the modules, and says which of them are the stem.
    """

    #: the arguments of such a trunk
    spec: type[StageSpec]
    #: names of the stages of a whole network, in order
    all_stages: tuple[str, ...]

    def __init__(self, spec: StageSpec):
        super().__init__()
        self.out_indices, self.frozen_stages = tuple(spec.out_indices), spec.frozen_stages
        self.norm_eval, self.channels_last = spec.norm_eval, spec.is_channels_last
        self.stage_names = self.all_stages[: spec.num_built]
        #: channels of the maps returned, for necks that ask
        self.out_channels = tuple(map(spec.stage_channels, self.out_indices))

    def settle(self, spec: StageSpec) -> None:
        """Initialize what has been built, and put it into its modes."""
        self.with_cp = spec.with_cp
        init_trunk(self, spec.zero_init_residual)
        if self.channels_last:
            to_memory_format(self, torch.channels_last)
        self.train()

    @property
    def stages(self) -> list[nn.Module]:
        """The stages that are built, in order."""
        return [getattr(self, name) for name in self.stage_names]

    @property
    def blocks(self) -> list[Bottleneck]:
        """All blocks, in order."""
        return [module for module in self.modules() if isinstance(module, Bottleneck)]

    @property
    def stem_modules(self) -> list[nn.Module]:
        """The modules of the stem that have weights."""
        raise NotImplementedError

    @property
    def with_cp(self) -> bool:
        """Whether blocks are computed again in the backward pass instead of saved."""
        return any(module.with_cp for module in self.modules() if isinstance(module, BlockWalk))

    @with_cp.setter
    def with_cp(self, wanted: bool) -> None:
        for module in self.modules():
            if isinstance(module, BlockWalk):
                module.with_cp = wanted

    def forward_stem(self, image: Tensor) -> Tensor:
        """Compute what the first stage is given."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """B 3 H W -> one map per out_index, at strides 4, 8, 16, 32 unless dilated."""
        x = self.forward_stem(image)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def train(self: Network, mode: bool = True) -> Network:
        """Set the mode, keeping frozen stages (and, with ``norm_eval``, norms) in evaluation."""
        super().train(mode)
        if self.frozen_stages >= 0:  # 0 freezes the stem alone
            for part in (*self.stem_modules, *self.stages[: self.frozen_stages]):
                part.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


class ResTrunk(Trunk):
    """A residual network without its classifier: one map per stage asked for.

    Args:
        kind: kind of bottleneck, a key of ``blocks.KINDS``.
        depths: blocks per stage, one to four stages.
        stem: width of a 7x7 stem, or the three widths of a deep one; 64.
        in_channels: channels of the image; 3.
        base_channels: planes of the first stage; 64.
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
        zero_init_residual: start every branch's last norm at zero, so blocks start as identities;
            True.
        norm: makes a norm layer from a number of channels; ``nn.BatchNorm2d``.
        convs3x3: one maker of 3x3 convolutions per stage (deformable ones, say).
        compat: ``'mm'`` reproduces mmdet's and mmseg's own departures from the published networks,
            for checkpoints that were trained with them.
        channels_last: compute in the channels-last layout whatever the image's layout is. ``None``:
            True, or False where ``compat='mm'``, which is theirs to the bit.
        **block: arguments of the kind of bottleneck.

    Raises:
        ArgumentError: an argument that is unknown or cannot be obeyed, with the legal values.
    """

    conv1: nn.Module  # } of a plain stem
    bn1: nn.Module  # }
    relu: nn.Module  # }

    spec = TrunkSpec
    all_stages = ('layer1', 'layer2', 'layer3', 'layer4')

    def __init__(self, kind: str, depths: Sequence[int], **arguments: Any):
        spec = TrunkSpec.from_arguments(kind, depths, arguments)
        super().__init__(spec)
        if isinstance(spec.stem, int):
            self.stem = None
            for name, module in plain_stem(spec.stem, spec.norm, spec.in_channels).items():
                self.add_module(name, module)
            channels = spec.stem
        else:
            self.stem = deep_stem(spec.stem, spec.norm, spec.in_channels)
            channels = spec.stem[-1]
        self.maxpool = CeilMaxPool2d(3, 2) if spec.ceil_pool else nn.MaxPool2d(3, 2, 1)
        drop_paths = spec.drop_paths()
        for stage, name in enumerate(self.stage_names):
            self.add_module(name, build_stage(spec, stage, channels, drop_paths))
            channels = spec.stage_channels(stage)
        self.settle(spec)

    @property
    def stem_modules(self) -> list[nn.Module]:
        """The modules of the stem that have weights, whichever of its two forms it has."""
        return [self.conv1, self.bn1] if self.stem is None else [self.stem]

    def forward_stem(self, image: Tensor) -> Tensor:
        """Apply stem and max pool: B 3 H W -> B C H/4 W/4."""
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        with self.recompute_scope():
            if self.stem is None:
                x = self.conv_norm_act(self.conv1, self.bn1, image, act=self.relu)
            else:
                x = self.stem(image)
            return self.maxpool(x)


def to_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Put a module's 4-D weights into a memory layout, in place."""
    # torch's stubs of this method leave the argument out.
    module.to(memory_format=memory_format)  # type: ignore[call-overload]


def build_stage(
    spec: TrunkSpec, stage: int, in_channels: int, drop_paths: Iterator[nn.Module]
) -> Stage:
    """Return the blocks of a stage, whose stochastic depths are taken from ``drop_paths``."""
    geometry = spec.first_geometry(stage, in_channels)
    modules = spec.block_modules(stage)
    blocks = []
    dilations = spec.block_dilations(stage)
    for dilation, drop_path in zip(dilations, islice(drop_paths, len(dilations))):
        geometry = replace(geometry, dilation=dilation)
        shortcut = build_shortcut(geometry, spec)
        blocks.append(
            KINDS[spec.kind](
                geometry, replace(modules, shortcut=shortcut, drop_path=drop_path), **spec.block
            )
        )
        geometry = geometry.get_next()
    return Stage(*blocks)


def build_shortcut(geometry: BlockGeometry, spec: TrunkSpec) -> nn.Module | None:
    """Return the projection where a block changes size or channels, else None."""
    out_channels, norm = geometry.out_channels, spec.norm
    if geometry.stride == 1 and geometry.in_channels == out_channels:
        return None
    if not spec.pooled_shortcut:
        # Where dilation took a stride away, the kernel stays and is dilated like the block's own.
        kernel = spec.shortcut_kernel if geometry.stride > 1 or geometry.stage > 0 else 1
        dilation = geometry.dilation if kernel > 1 else 1
        return ConvNormSequential(
            nn.Conv2d(
                geometry.in_channels,
                out_channels,
                kernel,
                geometry.stride,
                kernel // 2 * dilation,
                dilation,
                bias=False,
            ),
            norm(out_channels),
        )
    # A place for the pool also where the stride is 1: the keys of the checkpoints count it.
    pool = nn.Identity() if geometry.stride == 1 else CeilAvgPool2d(geometry.stride)
    return ConvNormSequential(
        pool, nn.Conv2d(geometry.in_channels, out_channels, 1, bias=False), norm(out_channels)
    )


def init_trunk(trunk: nn.Module, zero_init_residual: bool) -> None:
    """Initialize by fan-out (He et al., arXiv:1502.01852), offsets of convolutions at zero."""
    if any(parameter.is_meta for parameter in trunk.parameters()):
        return  # there are no values, and torch takes its time over them
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith('conv_offset'):
                nn.init.zeros_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Bottleneck) and zero_init_residual:
            if isinstance(module.bn3.weight, nn.Parameter):  # there is none where affine=False
                nn.init.zeros_(module.bn3.weight)


def checkpoint_block(block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run a block with checkpointing that counts each batch once in the running statistics.

    A compiled graph needs no care for that: what is written to buffers becomes an output of the
    graph, which recomputing does not repeat. (The backend ``eager``, for debugging of graphs, does
    repeat it, and raises.)
    """
    if torch.compiler.is_compiling():
        return checkpoint(block, *inputs, use_reentrant=False)
    return checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), keep_statistics(block)),
    )


@contextmanager
def keep_statistics(block: nn.Module) -> Iterator[None]:
    """Let norms compute as in training and leave their running statistics as they are."""
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
