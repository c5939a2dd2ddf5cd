"""The networks under their registered names, in the dialect of mmdet and mmseg configs.

    backbone=dict(type='mmresnest.ResNeSt', arch='resnest50', frozen_stages=1)
    backbone=dict(type='mmresnest.ResNeSt', depth=50, stem_channels=64, radix=2, ...)

The second form takes the argument names which mmdet and mmseg use for the same network.
"""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from inspect import signature
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import nn

from ..errors import ArgumentError, UserError, nearest
from ..registry import MODELS
from . import fast, weights
from .blocks import conv3x3
from .dla import DLATrunk
from .norms import can_synchronize, replace_sync_norms
from .timm_network import TimmNetwork
from .trunk import ResTrunk
from .variants import R152, VARIANTS, variant

NORMS = ('BN', 'BN2d', 'SyncBN', 'GN')
DCNS = ('DCN', 'DCNv2')
# What mmdet and mmseg call an argument that has another name here.
DIALECT = dict(avg_down_stride='avd', avg_down='pooled_shortcut')
# What other libraries call an argument of mmdet and mmseg.
OTHER_NAMES = dict(width_per_group='base_width', cardinality='groups', scale='scales')


class RegisteredNetwork(BaseModule):
    """A trunk by its published name: what does not depend on the kind of trunk."""

    #: depth -> row of the variant table; a pair gives the row and other depths
    networks: dict[int, Any] = {}
    #: what mmdet and mmseg call an argument that has another name here
    words: dict[str, str] = {}

    def register_weights(
        self, arch: str | None, init_cfg: dict | list | None, pretrained: str | None
    ) -> None:
        """Note where weights come from, and take any layout of them from now on."""
        if pretrained is not None:
            if init_cfg is not None:
                raise ArgumentError(
                    'pretrained and init_cfg cannot both be given; keep init_cfg',
                    code='argument.conflict',
                )
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        self.init_cfg = init_cfg
        self.arch = arch
        weights.convert_on_load(self, log_to_run)

    @classmethod
    def network(cls, arch: str | int | None, depth: Any) -> dict[str, Any]:
        """Return the trunk's arguments for a row of the table or for a depth."""
        if arch is not None:
            if depth is not None:
                raise ArgumentError(
                    f'arch={arch!r} and depth={depth} cannot both be given; keep arch',
                    code='argument.conflict',
                )
            return variant(str(arch), cls.__name__).trunk
        if depth is None:
            raise ArgumentError(
                f'{cls.__name__} needs arch= (a published network) or depth=; '
                f'{nearest("", [*cls.networks.values()][:1])}',
                code='argument.needed',
            )
        if depth not in cls.networks:
            raise ArgumentError(
                f'depth={depth!r} is not a {cls.__name__}; legal: '
                f'{", ".join(map(str, cls.networks))}',
                code='argument.value',
            )
        row = cls.networks[depth]
        if isinstance(row, tuple):
            return dict(VARIANTS[row[0]].trunk, depths=row[1])
        return VARIANTS[row].trunk

    @classmethod
    def dialect(cls, kind: str) -> set[str]:
        """Return every argument name that a network of this class obeys."""
        own = set(signature(cls.__init__).parameters) - {'self', 'trunk'}
        return own | set(cls.words) | cls.spec.legal_arguments(kind) - {'norm', 'convs3x3'}

    def init_weights(self) -> None:
        """Load ``Pretrained`` strictly, and leave the rest to mmengine, which calls this."""
        source = pretrained_config(self.init_cfg)
        if source is not None:
            if not self.is_init:
                content, checkpoint = None, source['checkpoint']
                if '://' in checkpoint and not checkpoint.startswith(
                    (weights.SCHEME, 'http://', 'https://')
                ):
                    content = load_by_scheme(checkpoint)
                log_to_run(str(weights.load(self, checkpoint, source.get('prefix'), content)))
                self._is_init = True
            return
        super().init_weights()


class Backbone(ResTrunk, RegisteredNetwork):
    """A published network, or one described in the words of mmdet and mmseg.

    Give ``arch`` (a row of the variant table) or ``depth``; whatever else is given overrides it.

    Args:
        arch: name of a published network, see ``mmresnest.list_archs()``; or, as the first argument
            of mmdet's and mmseg's classes, the depth.
        depth: as in mmdet and mmseg: the published network of this depth.
        num_stages: stages to build, 1 to 4.
        stem_channels: channels after the stem; else as published, scaled as ``base_channels`` is.
        deep_stem: three 3x3 convolutions instead of one 7x7.
        style: ``'pytorch'`` strides the 3x3 of a block, ``'caffe'`` its first 1x1.
        norm_cfg: dict with ``type`` one of BN, SyncBN, GN. SyncBN becomes BN where it cannot
            run, on a CPU or with one process.
        conv_cfg: None or plain convolutions; kept for configs that say so.
        dcn: dict with ``type`` DCN or DCNv2 for deformable 3x3 convolutions, and its arguments.
            With ``fallback_on_stride=True`` convolutions that have a stride stay plain.
        stage_with_dcn: which of the stages use ``dcn``, one entry for each.
        plugins: not supported.
        pretrained: deprecated form of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: as everywhere in mmengine. ``Pretrained`` loads strictly, from any published
            layout of the weights, and raises where a tensor is left unfilled.
        **trunk: arguments of ``ResTrunk`` and of the network's kind of bottleneck, among them
            ``in_channels, base_channels, strides, dilations, contract_dilation, multi_grid,
            out_indices, frozen_stages, norm_eval, with_cp, zero_init_residual, drop_path_rate,
            compat, channels_last``; ``avg_down`` and ``avg_down_stride`` as in mmdet.

    Raises:
        ArgumentError: unknown, contradictory or unsupported arguments, with the legal ones.
    """

    words = DIALECT
    #: what the first block of a dilated stage does unless told; None: see ``ResTrunk``
    contracts: bool | None = None

    def __init__(
        self,
        arch: str | int | None = None,
        *,
        depth: int | None = None,
        num_stages: int = 4,
        stem_channels: int | None = None,
        deep_stem: bool | None = None,
        style: str | None = None,
        norm_cfg: dict | None = None,
        conv_cfg: dict | None = None,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (),
        plugins: list | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **trunk: Any,
    ):
        if isinstance(arch, int) and depth is None:
            arch, depth = None, arch
        args = self.network(arch, depth)
        assert not isinstance(arch, int)  # with a depth beside it `network` refuses it
        for name, value in trunk.items():
            args[DIALECT.get(name, name)] = value
        refuse_unknown(self.dialect(args['kind']), args, type(self).__name__)
        refuse_unsupported(num_stages, plugins, conv_cfg)
        args['depths'] = args['depths'][:num_stages]
        args.setdefault('out_indices', tuple(range(num_stages)))
        if 'base_channels' in trunk and stem_channels is None and 'stem' not in trunk:
            stem_channels = last_width(args.get('stem', 64)) * trunk['base_channels'] // 64
        args['stem'] = stem_widths(args.get('stem', 64), stem_channels, deep_stem)
        if args.get('contract_dilation') is None:
            args['contract_dilation'] = self.contracts
        if style is not None:
            args['stride_in_1x1'] = is_caffe_style(style, args['kind'])
        set_plain_width(args, given=trunk)
        super().__init__(
            norm=make_norm_builder(norm_cfg),
            convs3x3=make_conv_builders(dcn, stage_with_dcn, num_stages),
            **args,
        )
        self.register_weights(arch, init_cfg, pretrained)
        #: as in mmdet and mmseg, for whoever asks
        self.stem_channels = last_width(args['stem'])
        self.feat_dim = self.spec.expansion * (args.get('base_channels', 64) << num_stages - 1)
        if args.get('compat') is None:  # 'mm' asks for mmdet's bits
            fast.enable(self)

    @property
    def norm1(self) -> nn.Module:
        """The norm of a plain stem, by the name that mmdet and mmseg give it."""
        return self.bn1


def load_by_scheme(checkpoint: str) -> Any:
    """Return what mmengine finds under a scheme of its own, such as ``open-mmlab://``.

    Raises:
        UserError: ``torchvision://`` without torchvision.
    """
    if checkpoint.startswith(('torchvision://', 'modelzoo://')) and not find_spec('torchvision'):
        name = checkpoint.rpartition('/')[2]
        written = f' or write {weights.SCHEME + name!r}' if name in VARIANTS else ''
        raise UserError(
            f'{checkpoint} needs torchvision, which knows where its weights are: '
            f'pip install torchvision{written}',
            code='package.missing',
        )
    return CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')


def log_to_run(line: str) -> None:
    """Put the report of a loading into the log of the run."""
    print_log(line, logger='current')


def pretrained_config(init_cfg: dict | list | None) -> dict | None:
    """Return the initialization from a checkpoint, if it is one.

    Raises:
        ArgumentError: it names no checkpoint, or other initialisations stand beside it.
    """
    configs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    found = next(
        (
            config
            for config in configs
            if isinstance(config, dict) and config.get('type') == 'Pretrained'
        ),
        None,
    )
    if found is not None and len(configs) > 1:
        raise ArgumentError(
            'init_cfg: Pretrained fills every tensor, so whatever stands beside it '
            "has no effect; keep dict(type='Pretrained', checkpoint=...) alone",
            code='argument.conflict',
        )
    if found is not None and not isinstance(found.get('checkpoint'), str):
        raise ArgumentError(
            "init_cfg: Pretrained needs checkpoint=, a path, a URL or 'mmresnest://<arch>'",
            code='argument.needed',
        )
    return found


def refuse_unknown(legal: set[str], given: dict[str, Any], name: str) -> None:
    """Raise for the first argument that the network would not obey."""
    for argument in given:
        if argument not in legal:
            known = OTHER_NAMES.get(argument)
            advice = f'it is called {known!r} here' if known in legal else None
            raise ArgumentError(
                f'{argument!r} is not an argument of {name}; '
                f'{advice or nearest(argument, sorted(legal))}',
                code='argument.unknown',
            )


def refuse_unsupported(num_stages: int, plugins: list | None, conv_cfg: dict | None) -> None:
    """Raise for values that mmdet's and mmseg's networks may have, and ours may not."""
    if num_stages not in (1, 2, 3, 4):
        raise ArgumentError(
            f'num_stages={num_stages} is not supported; legal: 1, 2, 3, 4', code='argument.value'
        )
    if plugins is not None:
        raise ArgumentError('plugins is not supported; legal: None', code='argument.value')
    if conv_cfg is not None and conv_cfg.get('type') not in (None, 'Conv', 'Conv2d'):
        raise ArgumentError(
            f'conv_cfg={conv_cfg} is not supported; legal: None, '
            f"dict(type='Conv2d'); deformable convolutions are dcn=",
            code='argument.value',
        )


def set_plain_width(args: dict[str, Any], given: dict[str, Any]) -> None:
    """Without groups a block is as wide as its planes, unless ``base_width`` is given.

    mmdet and mmseg ignore ``base_width`` then, even if it is given.
    """
    if args['kind'] == 'res2' or args.get('groups', 1) > 1:
        return
    is_ignored = args.get('compat') == 'mm' and args['kind'] == 'split'
    if is_ignored or 'base_channels' in given and 'base_width' not in given:
        args['base_width'] = args.get('base_channels', 64)


def last_width(stem: Any) -> int:
    """Return the channels after a stem of the trunk."""
    return stem if isinstance(stem, int) else stem[-1]


def stem_widths(stem: Any, channels: int | None, deep: bool | None) -> Any:
    """Return the trunk's ``stem`` from mmdet's words: channels after it, and if it is deep."""
    was_deep = not isinstance(stem, int)
    if channels is None:
        channels = last_width(stem)
    elif channels < 2 or channels % 2:
        raise ArgumentError(
            f'stem_channels={channels} must be even and above 0', code='argument.value'
        )
    deep = was_deep if deep is None else deep
    if deep is was_deep and channels == last_width(stem):
        return stem
    return (channels // 2, channels // 2, channels) if deep else channels


def is_caffe_style(style: str, kind: str) -> bool:
    """Return whether the first 1x1 takes the stride."""
    if style not in ('pytorch', 'caffe'):
        raise ArgumentError(
            f"style={style!r} is unknown; legal: 'pytorch', 'caffe'", code='argument.value'
        )
    if style == 'caffe' and kind in ('split', 'res2'):
        raise ArgumentError(
            "style='caffe' does not exist for this network: the stride of its "
            "blocks is part of the 3x3; legal: 'pytorch'",
            code='argument.value',
        )
    return style == 'caffe'


def make_norm_builder(norm_cfg: dict | None):
    """Return a function, channels -> norm layer, as ``norm_cfg`` describes it."""
    config = dict(norm_cfg or dict(type='BN'))
    if config.get('type') not in NORMS:
        raise ArgumentError(
            f'norm_cfg={config} is not supported; legal types: {", ".join(NORMS)}',
            code='argument.value',
        )
    if not can_synchronize() and replace_sync_norms(config):
        warn_once('norm_cfg: SyncBN needs several processes with a GPU each; using BN instead')

    def norm(channels: int) -> nn.Module:
        try:
            return build_norm_layer(config, channels)[1]
        except ValueError as error:
            raise ArgumentError(
                f'norm_cfg={config} does not fit a layer of {channels} channels '
                f'({error}); choose num_groups that divides it, or BN',
                code='argument.value',
            ) from error

    return norm


_said: set[str] = set()


def warn_once(message: str) -> None:
    """Warn, the first time."""
    if message not in _said:
        _said.add(message)
        print_log('mmresnest: ' + message, logger='current', level=logging.WARNING)


def make_conv_builders(dcn: dict | None, stages: Sequence[bool], num_stages: int):
    """Return one maker of 3x3 convolutions per stage, or None where all are plain."""
    if dcn is None:
        if any(stages):
            raise ArgumentError(
                'stage_with_dcn is given without dcn; write '
                "dcn=dict(type='DCNv2', deform_groups=1)",
                code='argument.conflict',
            )
        return None
    config = dict(dcn)  # the config is the caller's: never popped from
    fallback = config.pop('fallback_on_stride', False)
    if config.get('type') not in DCNS:
        raise ArgumentError(
            f'dcn={dcn} is not supported; legal types: {", ".join(DCNS)}', code='argument.value'
        )
    stages = tuple(stages) or (False,) * 4
    if len(stages) not in (num_stages, 4):
        raise ArgumentError(
            f'stage_with_dcn={stages} must have one entry for each of the {num_stages} stages',
            code='argument.value',
        )

    import mmcv.ops  # noqa: F401, registers DCNS; takes a second, which few networks need

    def deformable(
        in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> nn.Module:
        if fallback and stride > 1:
            return conv3x3(
                in_channels, out_channels, stride=stride, dilation=dilation, groups=groups
            )
        return build_conv_layer(
            config,
            in_channels,
            out_channels,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )

    return [deformable if used else conv3x3 for used in stages]


@MODELS.register_module()
class ResNet(Backbone):
    """ResNet (arXiv:1512.03385) and ResNet-D (arXiv:1812.01187)."""

    networks = {50: 'resnet50', 101: 'resnet101', 152: 'resnet152'}
    contracts = False  # mmdet's and mmseg's form is the one that is published with weights


@MODELS.register_module()
class ResNeXt(Backbone):
    """ResNeXt (arXiv:1611.05431): ``groups`` and ``base_width`` (default 32x4d)."""

    networks = {50: 'resnext50_32x4d', 101: 'resnext101_32x4d', 152: ('resnext50_32x4d', R152)}
    contracts = False  # as ResNet's


@MODELS.register_module()
class SEResNet(Backbone):
    """SE-ResNet (arXiv:1709.01507): ``reduction`` (default 16)."""

    networks = {50: 'seresnet50', 101: 'seresnet101', 152: 'seresnet152'}


@MODELS.register_module()
class SEResNeXt(Backbone):
    """SE-ResNeXt (arXiv:1709.01507): ``groups``, ``base_width`` (default 32x4d), ``reduction``."""

    networks = {
        26: ('seresnext50_32x4d', (2, 2, 2, 2)),
        50: 'seresnext50_32x4d',
        101: 'seresnext101_32x4d',
        152: ('seresnext50_32x4d', R152),
    }


@MODELS.register_module()
class SENet(Backbone):
    """SENet-154 (arXiv:1709.01507)."""

    networks = {154: 'senet154'}


@MODELS.register_module()
class Res2Net(Backbone):
    """Res2Net (arXiv:1904.01169): ``scales``, ``base_width``, ``groups`` (Res2NeXt).

    By ``depth``, the v1b networks (26w x 4s, deep stem, pooled shortcuts), as in mmdet.
    """

    networks = {
        50: 'res2net50_v1b_26w_4s',
        101: 'res2net101_v1b_26w_4s',
        152: 'res2net152_v1b_26w_4s',
    }


@MODELS.register_module()
class ResNeSt(Backbone):
    """ResNeSt (arXiv:2004.08955): ``radix``, ``groups``, ``base_width``, ``reduction_factor``,
    ``avg_down_stride``, ``avd_first`` (the "fast" networks).
    """

    networks = {
        14: 'resnest14',
        26: 'resnest26',
        50: 'resnest50',
        101: 'resnest101',
        152: ('resnest101', R152),
        200: 'resnest200',
        269: 'resnest269',
    }


@MODELS.register_module()
class SKNet(Backbone):
    """SKNet (arXiv:1903.06586): ``groups``, ``base_width`` (default 32x4d), ``reduction``,
    ``min_hidden``, ``split_input``.
    """

    networks = {
        26: ('skresnext50_32x4d', (2, 2, 2, 2)),
        50: 'skresnext50_32x4d',
        101: ('skresnext50_32x4d', (3, 4, 23, 3)),
    }


@MODELS.register_module()
class DLA(DLATrunk, RegisteredNetwork):
    """DLA (arXiv:1707.06484), and DLA with the blocks of Res2Net.

    Args:
        arch: name of a published network, see ``mmresnest.list_archs('DLA')``.
        depth: 60 or 102.
        num_stages, norm_cfg, conv_cfg, dcn, stage_with_dcn, plugins, pretrained, init_cfg: as for
            :class:`Backbone`.
        **trunk: arguments of ``DLATrunk``. ``strides`` and ``dilations`` are those of the four
            stages, as for the other networks: the first map is at stride 4.

    Raises:
        ArgumentError: unknown, contradictory or unsupported arguments, with the legal ones.
    """

    networks = {60: 'dla60', 102: 'dla102'}

    def __init__(
        self,
        arch: str | None = None,
        *,
        depth: int | None = None,
        num_stages: int = 4,
        norm_cfg: dict | None = None,
        conv_cfg: dict | None = None,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (),
        plugins: list | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **trunk: Any,
    ):
        args = {**self.network(arch, depth), **trunk}
        refuse_unknown(self.dialect(args['kind']), args, type(self).__name__)
        refuse_unsupported(num_stages, plugins, conv_cfg)
        args['depths'] = args['depths'][:num_stages]
        args.setdefault('out_indices', tuple(range(num_stages)))
        super().__init__(
            norm=make_norm_builder(norm_cfg),
            convs3x3=make_conv_builders(dcn, stage_with_dcn, num_stages),
            **args,
        )
        self.register_weights(arch, init_cfg, pretrained)
        fast.enable(self)


@MODELS.register_module()
class Timm(TimmNetwork, BaseModule):
    """A network of timm by its name there.

    Args:
        arch: ``'convnext_tiny.in12k_ft_in1k'``.
        init_cfg: ``dict(type='Pretrained', checkpoint='timm')`` for the weights that timm
            publishes, or the path of a file of them.
        **options: those of :class:`~.timm_network.TimmNetwork`.
    """

    def __init__(self, arch: str, *, init_cfg: dict | list | None = None, **options: Any):
        super().__init__(arch, **options)
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Load ``Pretrained`` strictly, and leave the rest as timm draws it."""
        source = pretrained_config(self.init_cfg)
        if source is not None and not self.is_init:
            self.load_weights(source['checkpoint'])
            log_to_run(f'weights of timm/{self.arch} from {source["checkpoint"]}')
        self._is_init = True
