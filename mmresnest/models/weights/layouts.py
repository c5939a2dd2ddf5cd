"""How each publisher spells the keys of a checkpoint, as data that reads both ways.

A layout is a list of pairs (their key, our key). In a pair ``#`` stands for a number and ``*`` for
the rest of the key; both are carried over. The same list read from right to left writes the layout,
so a conversion loses nothing, and a key that no pair knows raises. Values are carried over as they
are, but for one kind of tensor of one publisher (``Layout.values``).

Our own keys are those of mmdet and mmseg: ``stem.N`` for deep stems (theirs is one Sequential, so
the numbers count norms and ReLUs), ``conv1``/``bn1`` for plain ones, ``fc`` for the classifier,
which backbones do not have and loading therefore drops.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ...errors import UserError, nearest

Pair = tuple[str, str]
Pairs = tuple[Pair, ...]
Value = TypeVar('Value')

CLASSIFIER = 'fc.'
BLOCKS: Pair = ('layer#.#.*', 'layer#.#.*')
STAGES = range(1, 5)
# DLA, whose publishers and ourselves spell it alike
TREES: Pairs = (('base_layer.*', 'base_layer.*'), ('level#.*', 'level#.*'))


class ValueMapping(NamedTuple):
    """How a publisher's tensor becomes ours, and ours becomes his; both raise UserError.

    Both are given the tensor and the channels of the map that its block mixes.
    """

    read: Callable[[Tensor, int], Tensor]
    write: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Layout:
    """How a publisher spells the keys of a network."""

    deep: Pairs  # the stem of three convolutions
    plain: Pairs  # the stem of one
    rest: Pairs  # the stages
    #: a checkpoint is in this layout if it has one of these keys, tried in the order of LAYOUTS
    marks: tuple[str, ...]
    #: further rules, tried first, where shortcuts are of this form (see ``Form.shortcut``)
    shortcuts: Mapping[str, Pairs] = field(default_factory=dict)
    #: our key -> what else differs in its value
    values: Mapping[str, ValueMapping] = field(default_factory=dict)
    #: further rules, tried first, where blocks mix in this way (see ``ArchTraits.mix``)
    mixes: Mapping[str, Pairs] = field(default_factory=dict)
    stage: str = 'layer1.0.'  # how the keys of the first stage begin
    head: str = 'fc.'  # the classifier
    outer: str = ''  # where a classifier's checkpoint has the backbone


class ArchTraits(NamedTuple):
    """What of a network decides how its keys are spelt."""

    deep: bool  # three convolutions in the stem
    shortcut: str  # 'pooled', 'strided', or 'ladder': pooled, in a Res2Net
    mix: str = ''  # 'split' attention, selective kernels ('sk'), or neither

    def pairs(self, layout: Layout) -> Pairs:
        """Return the rules of a layout for such a network."""
        return (
            *(layout.deep if self.deep else layout.plain),
            *layout.shortcuts.get(self.shortcut, ()),
            *layout.mixes.get(self.mix, ()),
            *layout.rest,
        )


def conv_norms(theirs_conv: str, theirs_norm: str, start: int = 1) -> Pairs:
    """Return the pairs of a deep stem, whose layers the publisher numbers from ``start``."""
    return tuple(
        pair
        for index in range(3)
        for pair in (
            (theirs_conv.format(index + start) + '.*', f'stem.{3 * index}.*'),
            (theirs_norm.format(index + start) + '.*', f'stem.{3 * index + 1}.*'),
        )
    )


def of_stages(*pairs: Pair) -> Pairs:
    """detectron2 counts its stages from two: ``res2`` is our ``layer1``."""
    return tuple(
        (theirs.format(stage + 1), ours.format(stage)) for stage in STAGES for theirs, ours in pairs
    )


def shortcut_pairs(conv: int) -> Pairs:
    """detectron2's shortcut, where its convolution is our ``downsample.<conv>``."""
    return of_stages(
        ('res{}.#.shortcut.weight', f'layer{{}}.#.downsample.{conv}.weight'),
        ('res{}.#.shortcut.norm.*', f'layer{{}}.#.downsample.{conv + 1}.*'),
    )


# Deformable convolutions of the ResNeSt authors' fork of detectron2 (resnest/d2/resnest.py, class
# DeformBottleneckBlock): the convolution that makes the offsets stands outside of the split
# attention, and is grouped: each of the G deformable groups is made from its own share of the
# channels. mmcv's is inside and sees all channels. Both cut what it gives into three, two of them
# offsets and one masks, in the same order, so a grouped one is a whole one with zeros:
#
#   W[o, c] = W_G[o, c - g C / G]    where g = floor(o G / O) = floor(c G / C),    else 0


def ungroup_offsets(weight: Tensor, channels: int) -> Tensor:
    """Fill a grouped weight up with zeros: O C/G 3 3 -> O C 3 3."""
    share = weight.shape[1]
    if share == channels:
        return weight
    groups = channels // share
    if share * groups != channels or len(weight) % groups:
        raise UserError(
            f'offsets by a convolution of shape {tuple(weight.shape)} do not go with '
            f'a map of {channels} channels',
            code='weights.layout',
        )
    result = weight.new_zeros((len(weight), channels, *weight.shape[2:]))
    for rows, block, at in zip(result.chunk(groups), weight.chunk(groups), range(groups)):
        rows[:, at * share : (at + 1) * share] = block
    return result


def group_offsets(weight: Tensor, channels: int) -> Tensor:
    """Cut the zeros off again: O C 3 3 -> O C/G 3 3; O is 27 G with masks (DCNv2), else 18 G."""
    for per_group in (27, 18):
        groups, rest = divmod(len(weight), per_group)
        if rest or channels % groups:
            continue
        blocks = torch.cat(
            [rows.chunk(groups, 1)[at] for at, rows in enumerate(weight.chunk(groups))]
        )
        if torch.equal(ungroup_offsets(blocks, channels), weight):
            return blocks.contiguous()
    raise UserError(
        f'a convolution of shape {tuple(weight.shape)} that makes offsets from all '
        f'channels: the detectron2 layout has each deformable group made from its own',
        code='weights.layout',
    )


def keep_ungrouped(weight: Tensor, channels: int) -> Tensor:
    """Return the same: without split attention detectron2's offsets see all channels, too."""
    if weight.shape[1] != channels:
        raise UserError(
            f'offsets by a grouped convolution of shape {tuple(weight.shape)} could '
            f'not be written back: only networks with split attention have them',
            code='weights.layout',
        )
    return weight


SAME_STEM: Pairs = (('conv1.*', 'conv1.*'), ('bn1.*', 'bn1.*'))
GN_STEM: Pairs = (('conv1.*', 'conv1.*'), ('gn1.*', 'bn1.*'))
GN_BLOCKS: Pairs = (
    ('layer#.#.gn#.*', 'layer#.#.bn#.*'),
    ('layer#.#.conv2.gn#.*', 'layer#.#.conv2.bn#.*'),
    BLOCKS,
)
SE_LAYER: Pairs = (
    ('layer#.#.se_layer.conv1.conv.*', 'layer#.#.se.fc1.*'),
    ('layer#.#.se_layer.conv2.conv.*', 'layer#.#.se.fc2.*'),
)
NO_POOL_IN_STAGE_1: Mapping[str, Pairs] = {
    'pooled': (
        ('layer1.0.downsample.0.*', 'layer1.0.downsample.1.*'),
        ('layer1.0.downsample.1.*', 'layer1.0.downsample.2.*'),
    )
}
# timm's SKNets: each convolution of a block is a module with its norm.
TIMM_SK: Pairs = (
    ('layer#.#.conv2.paths.#.conv.*', 'layer#.#.conv2.convs.#.*'),
    ('layer#.#.conv2.paths.#.bn.*', 'layer#.#.conv2.bns.#.*'),
    ('layer#.#.conv2.attn.fc_reduce.*', 'layer#.#.conv2.fc1.*'),
    ('layer#.#.conv2.attn.bn.*', 'layer#.#.conv2.bn1.*'),
    ('layer#.#.conv2.attn.fc_select.*', 'layer#.#.conv2.fc2.*'),
    *(
        pair
        for number in (1, 3)
        for pair in (
            (f'layer#.#.conv{number}.conv.*', f'layer#.#.conv{number}.*'),
            (f'layer#.#.conv{number}.bn.*', f'layer#.#.bn{number}.*'),
        )
    ),
)
NORM_IN_CONV = tuple(
    pair
    for number in (1, 2, 3)
    for pair in (
        (f'res{{}}.#.conv{number}.norm.*', f'layer{{}}.#.bn{number}.*'),
        (f'res{{}}.#.conv{number}.weight', f'layer{{}}.#.conv{number}.weight'),
    )
)

# fmt: off
LAYOUTS: Mapping[str, Layout] = {
    # Cadene's pretrained-models and timm's legacy_*: SENet's Caffe names
    'cadene': Layout(
        deep=conv_norms('layer0.conv{}', 'layer0.bn{}'),
        plain=(('layer0.conv1.*', 'conv1.*'), ('layer0.bn1.*', 'bn1.*')),
        rest=(('layer#.#.se_module.*', 'layer#.#.se.*'), BLOCKS),
        marks=('layer0.conv1.weight',), head='last_linear.'),
    # mmpretrain, once mmcls: a stem of ConvModules, and no place for a pool in a shortcut of
    # stride 1, but for Res2Net, which has layers of its own
    'mmpretrain': Layout(
        deep=conv_norms('stem.{}.conv', 'stem.{}.bn', start=0), plain=SAME_STEM,
        shortcuts=NO_POOL_IN_STAGE_1, rest=(*SE_LAYER, BLOCKS),
        marks=('stem.0.conv.weight', 'layer1.0.se_layer.conv1.conv.weight'),
        stage='layer1.0.bn1.', head='head.fc.', outer='backbone.'),
    # ... with group norm; no published file is known
    'mmpretrain-gn': Layout(
        deep=conv_norms('stem.{}.conv', 'stem.{}.gn', start=0), plain=GN_STEM,
        shortcuts=NO_POOL_IN_STAGE_1, rest=(*SE_LAYER, *GN_BLOCKS),
        marks=('stem.0.conv.weight', 'layer1.0.se_layer.conv1.conv.weight'),
        stage='layer1.0.gn1.', head='head.fc.', outer='backbone.'),
    # detectron2, and the ResNeSt authors' fork of it: a norm is part of its convolution. It has
    # neither squeeze-and-excitation nor Res2Net; deep stems and pooled shortcuts come together.
    'detectron2': Layout(
        deep=conv_norms('stem.conv1_{}', 'stem.conv1_{}.norm')[::-1],
        plain=(('stem.conv1.norm.*', 'bn1.*'), ('stem.conv1.weight', 'conv1.weight')),
        shortcuts={'pooled': shortcut_pairs(1), 'strided': shortcut_pairs(0)},
        mixes={'split': of_stages(('res{}.#.conv2_offset.*', 'layer{}.#.conv2.conv.conv_offset.*')),
               '': of_stages(('res{}.#.conv2_offset.*', 'layer{}.#.conv2.conv_offset.*'))},
        values={
            'layer#.#.conv2.conv.conv_offset.weight': ValueMapping(ungroup_offsets, group_offsets),
            'layer#.#.conv2.conv_offset.weight': ValueMapping(keep_ungrouped, keep_ungrouped)},
        rest=of_stages(*NORM_IN_CONV, ('res{}.#.conv2.*', 'layer{}.#.conv2.*')),
        marks=('stem.conv1_1.weight', 'stem.conv1.weight'), stage='res2.0.', head='linear.'),
    # mmdet, mmseg and mmpretrain name a norm of a block by its kind; we always write bn
    'mmdet-gn': Layout(
        deep=(('stem.#.*', 'stem.#.*'),),
        plain=GN_STEM, rest=GN_BLOCKS,
        marks=('layer1.0.gn1.weight',)),
    # the authors' ResNeSt and Res2Net v1b, timm, Gluon ports; plain stems as in torchvision
    'official': Layout(
        deep=(('bn1.*', 'stem.7.*'), ('conv1.#.*', 'stem.#.*')), plain=SAME_STEM,
        rest=(BLOCKS, *TREES), mixes={'sk': TIMM_SK}, marks=('conv1.0.weight', 'conv1.weight')),
    # mmdet and mmseg, and ourselves
    'mmdet': Layout(
        deep=(('stem.#.*', 'stem.#.*'),), plain=SAME_STEM, rest=(BLOCKS, *TREES),
        marks=('stem.0.weight',)),
    # DLA: its authors, Res2Net's, timm, and ourselves
    'dla': Layout(
        deep=(), plain=(), rest=TREES, marks=('base_layer.0.weight',), stage='level2.'),
}
# fmt: on

#: what else people call a layout
OTHER_NAMES = dict(
    timm='official',
    torchvision='official',
    gluon='official',
    mmseg='mmdet',
    mmresnest='mmdet',
    mmcls='mmpretrain',
    d2='detectron2',
    **{'timm-legacy': 'cadene'},
)

#: every key that a network of this package, or its classifier, can have
OURS = re.compile(
    r'(stem\.\d|conv1|bn1|fc|layer[1-4]\.\d+\.('
    r'conv[123]|bn[123]|conv2\.(conv|bn0|fc1|bn1|fc2|(convs|bns)\.\d+)|convs\.\d+|bns\.\d+|se\.fc[12]'
    r'|downsample\.[012])(\.conv_offset)?'
    r'|base_layer\.[01]|level[01]\.[01]|level[2-5](\.tree[12])*\.('
    r'project\.[01]|root\.(conv|bn)|conv[123]|bn[123]|convs\.\d+|bns\.\d+)(\.conv_offset)?)'
    r'\.(weight|bias|running_mean|running_var|num_batches_tracked)'
)


def unused_projections(keys: Iterable[str]) -> set[str]:
    """Return the keys of projections that nothing reads.

    The authors' DLAs have one in every tree that changes the channels, and use those of the trees
    whose subtrees are blocks: the ones with a root.
    """
    keys = set(keys)
    return {
        key
        for key in keys
        if '.project.' in key and key.partition('project.')[0] + 'root.conv.weight' not in keys
    }


def layout_named(name: str) -> str:
    """Return the key of LAYOUTS that a user's word stands for.

    Raises:
        UserError: there is no such layout.
    """
    found = OTHER_NAMES.get(name.lower(), name.lower())
    if found not in LAYOUTS:
        raise UserError(
            f'layout {name!r} is unknown; {nearest(name, [*LAYOUTS, *OTHER_NAMES])}',
            code='option.unknown',
        )
    return found


class BackboneMatch(NamedTuple):
    """Where in a checkpoint a backbone is, and how it is spelt."""

    prefix: str
    layout: str
    form: ArchTraits

    def native(self, key: str) -> str | None:
        """Return our spelling of a key of the checkpoint; None for what is not the network's.

        Raises:
            UserError: the key lies within the network, and the layout has no such key.
        """
        layout = LAYOUTS[self.layout]
        root = self.prefix.removesuffix(layout.outer)
        if key.startswith(root + layout.head):
            return CLASSIFIER + key[len(root + layout.head) :]
        if not key.startswith(self.prefix):
            return None
        return rename_key(key[len(self.prefix) :], self.layout, self.form)

    def knows(self, key: str) -> bool:
        """Return whether :meth:`native` has a name for it."""
        try:
            return self.native(key) is not None
        except UserError:
            return False


def recognize_backbone(keys: Iterable[str]) -> BackboneMatch | None:
    """Find a backbone among the keys of a checkpoint, at any prefix; None if there is none."""
    keys = set(keys)
    for name, layout in LAYOUTS.items():
        for mark in layout.marks:
            prefixes = [
                key[: -len(mark)]
                for key in keys
                if key.endswith(mark) and (key == mark or key[-len(mark) - 1] == '.')
            ]
            # `layer1.0.conv1.weight` also ends in `conv1.weight`: accept a prefix only if the
            # keys of a stage stand below it, too
            for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
                if any(key.startswith(prefix + layout.stage) for key in keys):
                    # mmpretrain's plain networks differ by their classifier alone
                    root = prefix.removesuffix('backbone.')
                    if root != prefix and root + 'head.fc.weight' in keys:
                        name = {'official': 'mmpretrain', 'mmdet-gn': 'mmpretrain-gn'}.get(
                            name, name
                        )
                    return BackboneMatch(prefix, name, traits_of(prefix, keys))
    return None


def traits_of(prefix: str, keys: set[str]) -> ArchTraits:
    """Return what the keys, in any layout, say of the network."""

    def has(*names: str) -> bool:
        return any(prefix + name in keys for name in names)

    deep = has(
        'stem.0.weight',
        'stem.0.conv.weight',
        'conv1.0.weight',
        'layer0.conv2.weight',
        'stem.conv1_1.weight',
    )
    # A pool has no key of its own, but takes a number. detectron2 does not number.
    pooled = has(
        'stem.conv1_1.weight', *(f'layer{stage}.0.downsample.2.weight' for stage in STAGES)
    )
    mix = ''
    if has('layer1.0.conv2.conv.weight', 'res2.0.conv2.conv.weight'):
        mix = 'split'
    elif has('layer1.0.conv2.convs.0.weight', 'layer1.0.conv2.paths.0.conv.weight'):
        mix = 'sk'
    if pooled and has('layer1.0.convs.0.weight'):
        return ArchTraits(deep, 'ladder', mix)
    return ArchTraits(deep, 'pooled' if pooled else 'strided', mix)


def pattern_of(spelling: str) -> re.Pattern:
    """Return what ``#`` and ``*`` stand for, as groups."""
    return re.compile(re.escape(spelling).replace(r'\#', r'(\d+)').replace(r'\*', '(.+)'))


def convert_values(native: Mapping[str, Any], layout: str, reverse: bool = False) -> dict[str, Any]:
    """Return values by our names, as a layout has them to ours, or back.

    Raises:
        UserError: a tensor that the other side cannot hold.
    """
    result = dict(native)
    for spelling, change in LAYOUTS[layout].values.items():
        for key, value in native.items():
            if pattern_of(spelling).fullmatch(key) and isinstance(value, Tensor):
                mixed = native.get('.'.join(key.split('.')[:2]) + '.conv1.weight')
                if mixed is None:
                    continue  # whoever asked says what is missing
                try:
                    result[key] = (change.write if reverse else change.read)(value, len(mixed))
                except UserError as error:
                    raise UserError(f'{key}: {error}', code='weights.layout') from None
    return result


@cache
def rules_of(
    layout: str, form: ArchTraits, reverse: bool = False
) -> tuple[tuple[re.Pattern, str], ...]:
    """Return a layout's pairs as patterns and the templates to fill from their groups."""
    rules = []
    for theirs, ours in form.pairs(LAYOUTS[layout]):
        source, target = (ours, theirs) if reverse else (theirs, ours)
        rules.append((pattern_of(source), re.sub(r'[#*]', '{}', target)))
    return tuple(rules)


def rename_key(key: str, layout: str, form: ArchTraits, reverse: bool = False) -> str:
    """Return one key of a network of some form, from a layout to ours, or back.

    Raises:
        UserError: the layout has no such key.
    """
    for pattern, template in rules_of(layout, form, reverse):
        match = pattern.fullmatch(key)
        if match:
            return template.format(*match.groups())
    raise UserError(f'{key!r} is not a key of the {layout} layout', code='weights.unknown-keys')


def convert(state: Mapping[str, Value], to: str = 'mmdet') -> dict[str, Value]:
    """Return a network's state dict in another layout; keys outside the network are refused.

    A classifier is carried over, a prefix is not; mmpretrain's own is written.

    Args:
        state: in any layout.
        to: a key of LAYOUTS, or another name of one.

    Raises:
        UserError: unknown layout, no network in it, a key that its layout does not have, or a
            network that the other layout cannot spell.
    """
    to = layout_named(to)
    found = recognize_backbone(state)
    if found is None:
        raise UserError(
            'no network of this package is recognised by its keys, which begin '
            + ', '.join(list(state)[:3]),
            code='weights.unknown-keys',
        )
    layout = LAYOUTS[to]
    spelt: dict[str, str] = {}  # our key -> its own
    native: dict[str, Value] = {}
    for key, value in state.items():
        ours = found.native(key)
        if ours is None or not OURS.fullmatch(ours):
            raise UserError(
                f'{key!r} is not a key of the {found.layout} layout', code='weights.unknown-keys'
            )
        spelt[ours], native[ours] = key, value
    converted: dict[str, Value] = {}
    for ours, value in convert_values(
        convert_values(native, found.layout), to, reverse=True
    ).items():
        try:
            theirs = (
                layout.head + ours[len(CLASSIFIER) :]
                if ours.startswith(CLASSIFIER)
                else layout.outer + rename_key(ours, to, found.form, reverse=True)
            )
        except UserError:
            raise UserError(
                f'the {to} layout has no name for {spelt[ours]!r}: its publisher has '
                f'no such network',
                code='weights.layout',
            ) from None
        converted[theirs] = value
    back = recognize_backbone(converted)
    if len(converted) < len(state) or back is None or back.form != found.form:
        raise UserError(
            f'the {to} layout cannot spell this network so that it could be read back: '
            f'its publisher has no such network',
            code='weights.layout',
        )
    return converted
