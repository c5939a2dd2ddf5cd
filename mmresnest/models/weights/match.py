"""Match the tensors of a checkpoint with those of a network, and say what fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import UserError
from ..variants import TABLE, Variant
from .layouts import CLASSIFIER, unused_projections

if TYPE_CHECKING:
    from ..trunk import Trunk

Facts = Mapping[str, bool]
Say = Callable[[str], None]


#: fact -> what it says of the network that a checkpoint was trained in
FACT_TEXTS = {
    'ceil_pool': (
        'the max pool of Caffe, which rounds sizes up and does not pad, behind the stem',
        'a padded max pool behind the stem, as PyTorch has it',
    ),
    'avd_first': (
        'pools before the 3x3 convolutions (a "fast" ResNeSt)',
        'no pools before the 3x3 convolutions',
    ),
}


def facts_of(trunk: nn.Module) -> dict[str, bool]:
    """Return what the weights of a network are for, and names and shapes do not tell."""
    return dict(
        ceil_pool=bool(getattr(getattr(trunk, 'maxpool', None), 'ceil_mode', False)),
        avd_first=any(getattr(module, 'avd_first', False) for module in trunk.modules()),
    )


def facts_of_row(row: Variant) -> dict[str, bool]:
    """Return the same of a published network."""
    return {fact: bool(row.trunk.get(fact, False)) for fact in FACT_TEXTS}


def known_facts(file: str, layout: str, noted: Facts | None) -> Facts:
    """Return what is known of a checkpoint's network: by our note in it, its name, its layout."""
    if noted:
        return {fact: noted[fact] for fact in FACT_TEXTS if isinstance(noted.get(fact), bool)}
    rows = [row for row in TABLE if file in {weights.file for weights in row.weights}]
    if rows:
        return facts_of_row(rows[0])
    return dict(ceil_pool=True) if layout == 'cadene' else {}


def check_facts(trunk: nn.Module, known: Facts, native: Mapping[str, Tensor], source: str) -> None:
    """Raise where weights would fit in shape, but give features they were not trained for."""
    own = facts_of(trunk)
    for fact, value in known.items():
        if own[fact] != value:
            alike = archs_with_shapes(native, known)
            known_as = format_archs(alike)
            advice = f'write {known_as}' if alike else f'build the network with {fact}={value}'
            raise UserError(
                f'{source} was trained with {FACT_TEXTS[fact][not value]}, and this '
                f'network has {FACT_TEXTS[fact][value]}: its features would be wrong; '
                f'{advice}',
                code='weights.other-features',
            )


def archs_with_shapes(state: Mapping[str, Tensor], known: Facts) -> list[str]:
    """Return the archs whose tensors have the names and shapes of a state dict in our layout."""
    from ..trunks import build_trunk

    shapes = {key: tuple(value.shape) for key, value in state.items()}
    depths = tuple(
        len({key.split('.')[1] for key in shapes if key.startswith(f'layer{stage}.')})
        for stage in (1, 2, 3, 4)
    )
    matches = []
    for row in TABLE:
        facts = facts_of_row(row)
        if (
            row.type != 'DLA'
            and row.depths != depths
            or any(facts[fact] != known[fact] for fact in known)
        ):
            continue
        with torch.device('meta'):
            trunk = build_trunk(**row.trunk).state_dict()
        if all(
            shapes.get(key) == tuple(value.shape)
            for key, value in trunk.items()
            if not key.endswith('num_batches_tracked') and not is_first_conv(key)
        ):
            matches.append(row.name)
    return matches


def format_archs(archs: list[str]) -> str:
    """Return the archs as they are written."""
    return ' or '.join(f"arch='{arch}'" for arch in archs)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded, in one line."""

    source: str
    layout: str
    filled: int
    total: int
    left_out: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        left = f', left out {", ".join(self.left_out)}' if self.left_out else ''
        notes = ''.join(f'; {note}' for note in self.notes)
        return (
            f'mmresnest: {self.filled} of {self.total} backbone tensors filled from '
            f'{self.source} ({self.layout} layout{left}){notes}'
        )


class Fit(NamedTuple):
    """A checkpoint's tensors as a network takes them."""

    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def match_state_dict(
    trunk: Trunk, native: Mapping[str, Tensor], source: str, known: Facts, partly: bool = False
) -> Fit:
    """Leave out what the network has no place for, and adapts its stem.

    Args:
        trunk: the network.
        native: tensors by our names.
        source: the checkpoint, for messages.
        known: see :func:`known_facts`.
        partly: let PyTorch judge what is missing or of another shape.

    Raises:
        UserError: the checkpoint is another network's, or lacks tensors.
    """
    unbuilt = set(trunk.all_stages) - set(trunk.stage_names)
    unused = unused_projections(native)
    left_out = sorted(
        {
            name
            for key in native
            if (name := key.split('.')[0]) in unbuilt or key.startswith(CLASSIFIER)
        }
        | {key.partition('.project.')[0] + '.project' for key in unused}
    )
    kept = {
        key: value
        for key, value in native.items()
        if key.split('.')[0] not in left_out and key not in unused
    }
    own = trunk.state_dict()
    check_facts(trunk, known, native, source)
    if not partly and (differences := compare_tensors(own, kept)):
        alike = archs_with_shapes(native, known)
        advice = offsets_advice(own, kept) or (
            f'it looks like {format_archs(alike)}: write that'
            if alike
            else 'it is none of the published networks'
        )
        raise UserError(
            f'{source} does not fit this network: {"; ".join(differences)}; {advice}',
            code='weights.misfit',
        )
    return Fit(kept, tuple(left_out), tuple(adapt_stem(own, kept)))


def compare_tensors(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return how a checkpoint differs from a network: tensors of one alone, and shapes."""
    # Batch counts are only used by norms without momentum; older checkpoints lack them.
    missing = [key for key in own if key not in given and not key.endswith('num_batches_tracked')]
    foreign = [key for key in given if key not in own]
    shapes = [key for key in own if key in given and differ_in_shape(key, own, given)]
    problems = [
        f'{len(keys)} {what}, such as {keys[0]}'
        for keys, what in (
            (missing, 'tensors of the network are not in the file'),
            (foreign, 'tensors of the file are not in the network'),
        )
        if keys
    ]
    if shapes:
        key = shapes[0]
        problems.append(
            f'{len(shapes)} shapes differ, such as {key}: '
            f'{tuple(given[key].shape)} in the file, {tuple(own[key].shape)} here'
        )
    return problems


def offsets_advice(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return what to write where networks differ in deformable convolutions alone; '' elsewhere."""
    plain = [
        {key: value for key, value in state.items() if '.conv_offset.' not in key}
        for state in (own, given)
    ]
    offsets = {key: value for key, value in given.items() if key.endswith('.conv_offset.weight')}
    if compare_tensors(*plain):
        return ''
    if not offsets:
        return 'it has no deformable convolutions: leave out dcn'
    stages = tuple(
        any(key.startswith((f'layer{stage}.', f'level{stage + 1}.')) for key in offsets)
        for stage in (1, 2, 3, 4)
    )
    made = len(next(iter(offsets.values())))
    kind, groups = ('DCNv2', made // 27) if made % 27 == 0 else ('DCN', made // 18)
    return (
        f"it has deformable convolutions: write dcn=dict(type='{kind}', "
        f'deform_groups={groups}), stage_with_dcn={stages}'
    )


def shape_to_match(key: str, state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return a shape; that of the first convolution without the image's channels, as it adapts."""
    whole = tuple(state[key].shape)
    return whole[:1] + whole[2:] if is_first_conv(key) else whole


def differ_in_shape(key: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor of the checkpoint cannot be made that of the network."""
    return shape_to_match(key, own) != shape_to_match(key, given)


def is_first_conv(key: str) -> bool:
    """Return whether a key of ours is the weight that meets the image."""
    return key in ('stem.0.weight', 'conv1.weight', 'base_layer.0.weight')


def adapt_stem(own: Mapping[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """Fit the first convolution to another number of image channels, and return what to say of it.

    One channel gets the sum of the three colours' weights, so that a grey image gives what its RGB
    copy gave. More channels repeat the three in turn, scaled by 3 / channels, so that the response
    keeps its size.
    """
    for key in own:
        if not is_first_conv(key) or key not in given or differ_in_shape(key, own, given):
            continue
        weight, channels = given[key], own[key].shape[1]
        there = weight.shape[1]
        if there == channels:
            continue
        if channels == 1:
            given[key] = weight.sum(1, keepdim=True)
        else:
            repeats = -(-channels // there)
            given[key] = weight.repeat(1, repeats, 1, 1)[:, :channels] * (there / channels)
        return [f'{key} adapted from {there} to {channels} image channels']
    return []


# What mmdet and mmseg have published: made from detectron2's or the authors' weights, and trained.
ZOO = re.compile(r'resnest\d+_d2-|_mmdetv2-|_\d{8}_\d{6}-[0-9a-f]{8}\.pth$')


def zoo_advice(trunk: nn.Module, from_zoo: bool) -> tuple[str, ...]:
    """Return a hint where other toolboxes' own classes would compute something else."""
    pools = any(
        isinstance(module, nn.AvgPool2d) and (module.kernel_size, module.stride) == (3, 1)
        for module in trunk.modules()
    )
    if not (from_zoo and pools):
        return ()
    return (
        'this network has average pools of stride 1, as published, and those of mmdet, mmseg '
        "and detectron2's fork have none: for what they have trained, write compat='mm'",
    )
