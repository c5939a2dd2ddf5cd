"""Narrow a config's model: fewer channels in backbone, neck and heads, and fewer regions.

Every layer, head and loss stays the config's own. The demo and the schedule for laptops are what
narrows, and say by how much.
"""

from __future__ import annotations

from mmengine.config import ConfigDict

from .inspect import iterate_dicts

NARROWER = 4  # neck and heads: their channels are divided by this
CLOSER = 6  # rates of an ASPP are divided by this: 36 cells are more than a small map has
BASE_CHANNELS = 64  # of the first stage's blocks, in every network that was published
#: names of our networks; those of timm have the width that was published
OWN = tuple(
    f'mmresnest.{name}' for name in ('ResNe', 'Res2Net', 'SEResNe', 'SENet', 'SKNet', 'DLA')
)
ROIS = 64  # sampled per image to train the second stage
PROPOSALS = 200  # per image, after the first stage
BEFORE_NMS = 400  # per level

#: where a detector's neck and heads hold a number of channels
WIDTHS = (
    'in_channels',
    'out_channels',
    'feat_channels',
    'conv_out_channels',
    'fc_out_channels',
    'inner_channels',
)
HEADS = ('rpn_head', 'roi_head', 'bbox_head', 'mask_head', 'semantic_head')


def narrow_detector(model: ConfigDict) -> None:
    """Narrow neck and heads, and let fewer regions through."""
    neck = model.get('neck')
    if neck:
        neck.out_channels //= NARROWER  # its in_channels are the backbone's
    for part in HEADS:
        for node in iterate_dicts(model.get(part)):
            for key in WIDTHS:
                if isinstance(node.get(key), int):
                    node[key] //= NARROWER
            if isinstance(node.get('num_groups'), int):
                node.num_groups //= NARROWER  # of a GroupNorm: as many channels a group
    for part in ('train_cfg', 'test_cfg'):
        for node in iterate_dicts(model.get(part)):
            for key, most in (('nms_pre', BEFORE_NMS), ('max_per_img', PROPOSALS)):
                if isinstance(node.get(key), int):
                    node[key] = min(node[key], most)
    for node in iterate_dicts((model.get('train_cfg') or {}).get('rcnn')):
        if isinstance(node.get('num'), int):
            node.num = min(node.num, ROIS)


def narrow_backbone(model: ConfigDict, factor: int) -> bool:
    """Divide the widths of one of our networks, and what neck or heads say of its maps.

    Returns:
        whether it was one of ours; others keep their width.
    """
    backbone = model.backbone
    if not str(backbone.get('type')).startswith(OWN):
        return False
    backbone.base_channels = backbone.get('base_channels', BASE_CHANNELS) // factor
    parts = [model[key] for key in ('decode_head', 'auxiliary_head') if model.get(key)]
    if model.get('neck'):
        parts = [model.neck]
    for part in parts:
        for reader in part if isinstance(part, (list, tuple)) else [part]:
            for key in ('in_channels', 'c1_in_channels'):
                old = reader.get(key)
                if isinstance(old, (list, tuple)):
                    reader[key] = type(old)(channels // factor for channels in old)
                elif old:
                    reader[key] = old // factor
    return True


def narrow_segmentor(model: ConfigDict) -> None:
    """Narrow the heads, and bring closer what they read; their in_channels are the backbone's."""
    for part in ('decode_head', 'auxiliary_head'):
        for node in iterate_dicts(model.get(part)):
            for key in ('channels', 'c1_channels'):
                if isinstance(node.get(key), int):
                    node[key] //= NARROWER
            if 'dilations' in node:
                node.dilations = tuple(max(1, rate // CLOSER) for rate in node.dilations)
