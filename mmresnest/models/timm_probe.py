"""What timm says of its networks, and what is found by a pass without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, UserError, nearest
from .variants import ALIASES, VARIANTS

PREFIX = 'timm/'  # of a name that is timm's
STRIDES = (4, 8, 16, 32)  # of the indices of maps
ANY_SIZE: tuple[dict[str, bool], ...] = (dict(strict_img_size=False), dict(dynamic_img_size=True))
"""What lets networks that were trained at one size, Swin say, take images of any."""


@dataclass(frozen=True)
class Probe:
    """What is known of a network before it is built."""

    arch: str
    options: Mapping[str, Any]  # of timm's create_model
    maps: Mapping[int, int]  # stride of the network, not dilated -> timm's index
    channels: Sequence[int]  # of each of timm's maps
    needs: Sequence[frozenset[str]]  # names of the parameters that each depends on
    stem: frozenset[str]  # what stride 2 depends on, or the first map beside its own module
    is_channels_last: bool

    def find_map(self, index: int) -> int:
        """Return timm's index of a map.

        Raises:
            UserError: the network has no map of its stride.
        """
        if index not in range(len(STRIDES)):
            raise ArgumentError(
                f'out_indices: {index} is not a map; legal: 0, 1, 2, 3, of strides 4, 8, 16, 32',
                code='argument.value',
            )
        if STRIDES[index] not in self.maps:
            has = [f'{index} (stride {s})' for index, s in enumerate(STRIDES) if s in self.maps]
            raise UserError(
                f'timm/{self.arch} has no map of stride {STRIDES[index]}, which is out_indices '
                f'{index}; it has maps of strides {", ".join(map(str, self.maps))}: legal '
                f'out_indices: {", ".join(has) or "none, take another network"}',
                code='timm.stride',
            )
        return self.maps[STRIDES[index]]


def import_timm() -> ModuleType:
    """Return timm.

    Raises:
        UserError: it is not installed, or it cannot be imported beside this torch.
    """
    if find_spec('timm') is None:
        raise UserError(
            "timm is not installed: pip install 'mmresnest[timm]'", code='package.missing'
        )
    try:
        import timm
    except Exception as error:  # of whatever it imports, torchvision say
        raise UserError(
            f'timm cannot be imported beside torch {torch.__version__} '
            f'({type(error).__name__}: {error}). It needs a torchvision built for this torch: '
            'install both from one index, as pip install --force-reinstall torch torchvision does',
            code='package.broken',
        ) from error
    return timm


def check_name(arch: str) -> None:
    """Refuse names that timm does not know, and networks that this package has itself.

    Raises:
        UserError: it is one of ours.
        ArgumentError: there is no such network.
    """
    name = arch.partition('.')[0]
    own = ALIASES.get(name, name)
    if own in VARIANTS:
        raise UserError(
            f'timm/{arch} is a network of this package, where its values are its '
            f"authors' at every size: write arch {own} (type='mmresnest.{VARIANTS[own].type}')",
            code='timm.own-network',
        )
    timm = import_timm()
    if not timm.is_model(arch):
        tagged = timm.list_models(pretrained=True) if '.' in arch else timm.list_models()
        raise ArgumentError(
            f'timm {timm.__version__} has no network {arch!r}; {nearest(arch, tagged)}',
            code='argument.value',
        )


def get_settings(arch: str) -> Any:
    """Return timm's settings of a network's weights: where they are, sizes and statistics."""
    check_name(arch)
    try:
        return import_timm().models.get_pretrained_cfg(arch, allow_unregistered=False)
    except RuntimeError as error:
        raise ArgumentError(f'timm: {error}', code='argument.value') from error


def get_pixels(arch: str) -> dict[str, list[float]]:
    """Return mean and standard deviation of pixels from 0 to 255, RGB, that a network expects."""
    settings = get_settings(arch)
    return {key: [255 * value for value in getattr(settings, key)] for key in ('mean', 'std')}


def create_network(arch: str, options: Mapping[str, Any], **more: Any) -> Any:
    """Return a network of timm, a module."""
    return import_timm().create_model(arch, **options, **more)


def probe_network(arch: str, options: Mapping[str, Any]) -> Probe:
    """Return what a network has, without memory for it.

    Raises:
        UserError: it gives no maps.
        ArgumentError: it cannot obey an option.
    """
    settings = get_settings(arch)
    sizes = ANY_SIZE if settings.fixed_input_size else ()
    with torch.device('meta'), torch.enable_grad():
        for more in (*sizes, {}):
            try:
                net = create_network(arch, {**options, **more}, features_only=True)
                break
            except TypeError as error:
                if more:
                    continue
                raise ArgumentError(f'timm/{arch}: {error}', code='argument.value') from error
            except (RuntimeError, AssertionError, AttributeError) as error:
                raise describe_failure(arch, options, error) from error
        image = torch.zeros(1, options['in_chans'], *settings.input_size[1:])
        maps = net.eval()(image)
    names = {parameter: name for name, parameter in net.named_parameters()}
    needs = [frozenset(names[one] for one in find_parameters(map_)) for map_ in maps]
    info = net.feature_info
    strides, own = info.reduction(), info.module_name(0).replace('.', '_')
    if options.get('output_stride'):  # what is dilated keeps the stride that it had
        for index in range(1, len(strides)):
            strides[index] = max(strides[index], 2 * strides[index - 1])
    stem = needs[0]
    if strides[0] > 2:
        stem = frozenset(name for name in stem if not name.replace('.', '_').startswith(own + '_'))
    return Probe(
        arch,
        {**options, **more},
        {stride: index for index, stride in enumerate(strides)},
        info.channels(),
        needs,
        stem,
        is_channels_last='NHWC' in str(getattr(net, 'output_fmt', '')).upper(),
    )


def describe_failure(arch: str, options: Mapping[str, Any], error: Exception) -> UserError:
    """Return the error of a network that timm cannot build with maps."""
    given = {key: value for key, value in options.items() if key != 'in_chans'}
    if given:
        return ArgumentError(
            f'timm/{arch} cannot be built with {given} ({error or type(error).__name__}); '
            'leave it out',
            code='argument.value',
        )
    return UserError(
        f'timm/{arch} gives no maps ({error or type(error).__name__}): it cannot be a backbone; '
        'take one of those that timm builds with features_only=True',
        code='timm.maps',
    )


def find_parameters(result: Tensor) -> Iterator[nn.Parameter]:
    """Iterate over the parameters that a result was computed from."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, 'variable'):
            yield node.variable
        waiting.extend(following for following, _ in node.next_functions)
