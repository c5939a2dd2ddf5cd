"""Put a network into a config: ``--arch NAME`` replaces the backbone and all that depends on it.

That are its weights, the pixel statistics that it was trained with, and the channels of whatever
reads its maps: the neck, or where there is none the heads. What a config says of training it
(:data:`KEPT`) is kept, what makes the former network what it is (:data:`IDENTITY`) goes with it,
and what is neither is refused: nothing is dropped in silence.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..errors import ArgumentError, UserError, nearest
from ..models.norms import replace_sync_norms
from ..models.timm_network import HUB, PREFIX, Maps, find_network
from ..models.variants import pixel_statistics, variant
from ..models.weights import SCHEME
from ..registry import MODELS
from .inspect import iterate_dicts, iterate_transforms, model_of, task_of, type_of
from .load import load_config, name_of

SCOPES = ('', 'mmdet', 'mmseg')
RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'ResNeSt', 'Res2Net', 'RegNet')
"""Backbones of mmdet and mmseg with four stages of strides 4 to 32, in our dialect."""

KEPT = (
    'in_channels',
    'num_stages',
    'out_indices',
    'strides',
    'dilations',
    'contract_dilation',
    'multi_grid',
    'frozen_stages',
    'norm_cfg',
    'norm_eval',
    'conv_cfg',
    'dcn',
    'stage_with_dcn',
    'with_cp',
    'drop_path_rate',
    'channels_last',
)
"""What a config says of a network whichever it is."""

IDENTITY = (
    'type',
    'arch',
    'depth',
    'init_cfg',
    'pretrained',
    'style',
    'deep_stem',
    'stem_channels',
    'base_channels',
    'avg_down',
    'avg_down_stride',
    'groups',
    'base_width',
    'radix',
    'reduction_factor',
    'scales',
    'compat',
    'zero_init_residual',
)
"""What makes a network the one it is."""

OF_TIMM = ('in_channels', 'out_indices', 'frozen_stages', 'norm_cfg', 'norm_eval', 'with_cp')
"""What is kept of these for a network of timm, beside ``drop_path_rate`` and the output stride."""
WITHIN = ('num_stages', 'strides', 'dilations', 'contract_dilation', 'channels_last')
"""What timm's networks have their own way of, once stages and output stride are told."""

READERS = ('rpn_head', 'bbox_head', 'panoptic_head', 'track_head')
"""Heads of detectors that read the maps themselves where there is no neck."""
VIEWING = ('CenterNet',)
"""Detectors that view maps as vectors, which those of a channels-last layout do not allow."""
LEADING = ('CLRFPN',)
"""Necks that read the first maps of those that they are given, and not the last."""
PASSING = ('JPU',)
"""Necks that hand all maps but the last on as they are."""


def set_architecture(
    cfg: Config,
    arch: str,
    from_scratch: bool | None = None,
    demo: bool | None = None,
    trains: bool | None = None,
) -> None:
    """Replace the backbone of a config, in place.

    Args:
        cfg: of a detector or segmentor with a backbone of :data:`RESNETS` or of ours.
        arch: a network of :func:`~mmresnest.list_archs`, or ``timm/NAME``.
        from_scratch: its weights will not be loaded.
        demo: likewise.
        trains: they are loaded before the first step, so that there have to be some.

    Raises:
        UserError: there is no such network, the config has no backbone that can be replaced, or
            asks something of it that the network cannot do.
    """
    model = find_detector(cfg)
    old = check_backbone(cfg, model, arch)
    network = describe_network(cfg, arch, old)
    new = network.settings
    if type_of(model) in VIEWING and not arch.startswith(PREFIX):
        new.setdefault('channels_last', False)
    channels = probe_channels(cfg, new, arch)
    has_weights = drop_former_weights(cfg, model, old)
    new['init_cfg'] = None
    if has_weights and network.weights:
        new['init_cfg'] = dict(type='Pretrained', checkpoint=network.weights)
    if has_weights and trains and not (from_scratch or demo):
        require_weights(cfg, new, arch)
    model['backbone'] = ConfigDict(new)
    set_channels(cfg, model, channels)
    if new.get('in_channels', 3) == 3:  # those of other channels are the data's
        set_pixels(cfg, model, network.pixels)


@dataclass
class Network:
    """What a network is for a config."""

    settings: dict[str, Any]  # of the backbone
    weights: str | None  # as a checkpoint; None: none were published
    pixels: dict[str, list[float]]


def describe_network(cfg: Config, arch: str, old: dict[str, Any]) -> Network:
    """Return a network of ours, or of timm, with what is kept of the former one's settings."""
    if arch.startswith(PREFIX):
        name = arch.removeprefix(PREFIX)
        _, published = find_network(name)
        has_weights = published.hf_hub_id or published.url
        settings = dict(type='mmresnest.Timm', arch=name, **keep_for_timm(cfg, arch, old))
        return Network(settings, HUB if has_weights else None, scale_pixels(published))
    row = variant(arch)
    settings = dict(type=f'mmresnest.{row.type}', arch=row.name)
    settings.update({key: copy.deepcopy(old[key]) for key in KEPT if key in old})
    pixels = pixel_statistics(row.type, detects=task_of(cfg) != 'semantic')
    return Network(settings, SCHEME + row.name if row.weights else None, pixels)


def scale_pixels(published: Any) -> dict[str, list[float]]:
    """Return mean and standard deviation of pixels from 0 to 255, by timm's settings of weights."""
    return {key: [255 * value for value in getattr(published, key)] for key in ('mean', 'std')}


def keep_for_timm(cfg: Config, arch: str, old: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a backbone's settings, in the words of ``mmresnest.Timm``.

    Raises:
        UserError: the config asks for something that only networks of ours can do.
    """
    kept = {key: copy.deepcopy(old[key]) for key in OF_TIMM if key in old}
    if old.get('drop_path_rate'):
        kept['drop_path_rate'] = old['drop_path_rate']
    stages = old.get('num_stages', 4)
    kept.setdefault('out_indices', tuple(range(stages)))
    stride = 4 * math.prod(old.get('strides', (1, 2, 2, 2))[:stages])
    if stride < 4 << stages - 1:
        if can_dilate(arch.removeprefix(PREFIX), stride):
            kept['output_stride'] = stride
        else:
            print_log(
                f'--arch {arch}: timm does not dilate its stages: it keeps its own strides, where '
                f'{name_of(cfg)} has an output stride of {stride}',
                'current',
                logging.WARNING,
            )
    for key in KEPT:
        if key in kept or key in OF_TIMM + WITHIN or old.get(key) in (None, False, ()):
            continue
        if key == 'stage_with_dcn' or key == 'conv_cfg' and old[key].get('type') == 'Conv2d':
            continue
        raise UserError(
            f'--arch {arch}: the backbone of {name_of(cfg)} has {key}={old[key]}, which a network '
            'of timm cannot do; take a config without it',
            code='arch.setting',
        )
    return kept


def can_dilate(name: str, stride: int) -> bool:
    """Return whether timm builds a network with an output stride."""
    try:
        Maps(name, dict(in_chans=3, output_stride=stride))
    except ArgumentError:
        return False
    return True


def load_with_arch(config: str | os.PathLike | Config, arch: str | None) -> Any:
    """Return a config as it is, or where a network is named a copy that has it instead."""
    if arch is None:
        return config
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    set_architecture(cfg, arch)
    return cfg


def find_detector(cfg: Config) -> dict[str, Any]:
    """Return the model that has the backbone: the one inside where a model wraps a detector."""
    model = model_of(cfg)
    if 'reid' in model:
        raise UserError(
            f'--arch: {name_of(cfg)} tells objects apart by a second network, which is trained '
            'with the pixel statistics of the first; replace both in a config of your own',
            code='arch.part',
        )
    inner = model.get('detector')
    return inner if isinstance(inner, dict) else model


def check_backbone(cfg: Config, model: dict[str, Any], arch: str) -> dict[str, Any]:
    """Return the settings of a backbone that can be replaced.

    Raises:
        UserError: there is none, or a part of the network is elsewhere in the model.
    """
    backbone = model.get('backbone')
    backbone = backbone if isinstance(backbone, dict) else {}
    type_ = backbone.get('type', '')
    scope = type_.rpartition('.')[0] if isinstance(type_, str) else ''
    if scope != 'mmresnest' and (scope not in SCOPES or type_of(backbone) not in RESNETS):
        raise UserError(
            f'--arch replaces a ResNet or one of its kind, and the backbone of {name_of(cfg)} is '
            f'{type_ or "not named"}; take a config whose backbone is one of '
            f'{", ".join(RESNETS)}, or of mmresnest',
            code='arch.backbone',
        )
    for key, value in backbone.items():
        if key not in (*KEPT, *IDENTITY) and value not in (None, False, ()):
            raise UserError(
                f'--arch {arch}: the backbone of {name_of(cfg)} has {key}={value}, which is not '
                f'to be had with it; {nearest(key, KEPT)}. Take a config without it',
                code='arch.setting',
            )
    if (model.get('roi_head') or {}).get('shared_head'):
        raise UserError(
            f'--arch {arch}: roi_head.shared_head of {name_of(cfg)} is the last stage of the '
            'backbone that it has; take a config with a neck (FPN), or with a dilated last stage '
            '(named c4-dilated or dc5)',
            code='arch.part',
        )
    return backbone


def probe_channels(cfg: Config, backbone: dict[str, Any], arch: str) -> tuple[int, ...]:
    """Return the channels of the maps of a network, from the network itself, without its weights.

    Raises:
        UserError: it cannot do what the config asks of it.
    """
    backbone = copy.deepcopy(backbone)
    replace_sync_norms(backbone)  # whether they can run is asked later
    try:
        with torch.device('meta'):
            return tuple(MODELS.build(backbone).out_channels)
    except UserError as error:
        raise type(error)(f'--arch {arch} in {name_of(cfg)}: {error}', code=error.code) from error


def drop_former_weights(cfg: Config, model: dict[str, Any], backbone: dict[str, Any]) -> bool:
    """Take out of a config what it loads into its network, and return whether that is anything."""
    found = bool(backbone.get('init_cfg') or backbone.get('pretrained') or model.get('pretrained'))
    if model.get('pretrained'):
        model['pretrained'] = None
    for owner, key in ((cfg, 'load_from'), (model_of(cfg), 'init_cfg'), (model, 'init_cfg')):
        source = owner.get(key)
        if source and (key == 'load_from' or is_pretrained(source)):
            found = True
            owner[key] = None
            print_log(
                f'{key}={source} is of the former network: it is left out',
                'current',
                logging.WARNING,
            )
    return found


def is_pretrained(init_cfg: Any) -> bool:
    """Return whether an initialization loads a checkpoint."""
    return any(node.get('type') == 'Pretrained' for node in iterate_dicts(init_cfg))


def require_weights(cfg: Config, backbone: dict[str, Any], arch: str) -> None:
    """Make sure that there are weights for a network as the config wants it.

    Raises:
        UserError: none were published, or those that were have other norms.
    """
    scratch = '--from-scratch trains it from random weights'
    if backbone['init_cfg'] is None:
        raise UserError(
            f'no weights were published for {arch}; {scratch}', code='weights.unpublished'
        )
    norm = (backbone.get('norm_cfg') or {}).get('type', 'BN')
    if norm == 'GN':
        raise UserError(
            f'--arch {arch}: the backbone of {name_of(cfg)} has norms of type {norm}, and the '
            f'weights are published with BN; take a config with BN or SyncBN; {scratch}',
            code='arch.norm',
        )


def set_channels(cfg: Config, model: dict[str, Any], channels: Sequence[int]) -> None:
    """Set the channels of whatever reads the maps of the backbone.

    Args:
        cfg: the config, for messages.
        model: with its neck and heads; changed in place.
        channels: of the maps, in order.

    Raises:
        UserError: nothing that reads them was found.
    """
    necks = model.get('neck')
    neck = necks[0] if isinstance(necks, (list, tuple)) and necks else necks
    if neck:
        if 'in_channels' not in neck:
            raise unreadable(cfg, 'its neck has no in_channels')
        read = channels[: len(neck['in_channels'])] if type_of(neck) in LEADING else channels
        neck['in_channels'] = fit_channels(neck['in_channels'], read)
        if type_of(neck) in PASSING:
            _set_decode_channels(model, (*channels[:-1], None))
    elif task_of(cfg) == 'semantic':
        _set_decode_channels(model, channels)
    else:
        _set_detector_channels(cfg, model, channels)


def unreadable(cfg: Config, why: str) -> UserError:
    """Return the error of a model whose readers are not known."""
    return UserError(
        f'--arch: what reads the maps of the backbone of {name_of(cfg)} is not known: {why}; '
        'write a config for the network, see docs/own_config.md',
        code='arch.part',
    )


def fit_channels(old: int | Sequence[int], channels: Sequence[int]) -> Any:
    """Return new channels for a part that reads the last map, or the last several."""
    if isinstance(old, int):
        return channels[-1]
    last = channels[-len(old) :]
    return tuple(last) if isinstance(old, tuple) else list(last)


def _set_decode_channels(model: dict[str, Any], channels: Sequence[int | None]) -> None:
    """Set the channels of a segmentor's heads; None where a neck makes its own."""
    for part in ('decode_head', 'auxiliary_head'):
        heads = model.get(part) or []
        heads = list(heads) if isinstance(heads, (list, tuple)) else [heads]
        for node in iterate_dicts(heads):
            if 'in_channels' not in node or not (
                'in_index' in node or any(node is head for head in heads)
            ):
                continue
            old, index = node['in_channels'], node.get('in_index', -1)
            if isinstance(old, int):
                node['in_channels'] = channels[index] or old
            else:
                read = [channels[one] for one in index] if 'in_index' in node else channels
                several = zip(old, read[-len(old) :])
                node['in_channels'] = type(old)(new or former for former, new in several)
            if node.get('c1_in_channels'):
                node['c1_in_channels'] = channels[0]


def _set_detector_channels(cfg: Config, model: dict[str, Any], channels: Sequence[int]) -> None:
    """Set the channels of a detector's heads that read the maps themselves."""
    found = [head for name in READERS if (head := model.get(name)) and 'in_channels' in head]
    if not found:
        raise unreadable(cfg, 'it has neither a neck nor a head with in_channels')
    old = found[0]['in_channels']
    for head in found:
        head['in_channels'] = fit_channels(old, channels)
    for name, part in (model.get('roi_head') or {}).items():
        for node in part if isinstance(part, (list, tuple)) else [part]:
            key = 'out_channels' if name.endswith('roi_extractor') else 'in_channels'
            if isinstance(node, dict) and node.get(key) == old:
                node[key] = channels[-1]


def set_pixels(cfg: Config, model: dict[str, Any], pixels: dict[str, list[float]]) -> None:
    """Set mean and standard deviation of the pixels, which are read as RGB.

    A transform that fills an image up with their mean, as ``Expand`` does, gets the new one.
    """
    former = []
    for owner in (cfg, model_of(cfg), model):
        for node in iterate_dicts(owner.get('data_preprocessor')):
            if 'mean' in node:
                former.append(sorted(node['mean']))
                node.update(copy.deepcopy(pixels), bgr_to_rgb=True)
                node.pop('rgb_to_bgr', None)
    for step in iterate_transforms(cfg):
        if sorted(step.get('mean') or ()) in former:
            step['mean'] = list(pixels['mean'])[:: 1 if step.get('to_rgb', True) else -1]
