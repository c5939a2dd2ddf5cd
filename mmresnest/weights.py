"""Checkpoints: how each publisher spells the keys, and loading that tells the truth.

A layout is a list of pairs (their key, our key). In a pair ``#`` stands for a number and ``*`` for
the rest of the key; both are carried over. The same list read from right to left writes the layout,
so a conversion loses nothing, and a key that no pair knows raises.

Our own keys are those of mmdet and mmseg: ``stem.N`` for deep stems (theirs is one Sequential, so
the numbers count norms and ReLUs), ``conv1``/``bn1`` for plain ones, ``fc`` for the classifier,
which backbones do not have and loading therefore drops.
"""
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from .errors import UserError
from .variants import TABLE, Variant, variant

Pair = tuple[str, str]
Pairs = tuple[Pair, ...]

CLASSIFIER = 'fc.'
SCHEME = 'mmresnest://'         # + arch: the published weights of a row of the variant table


@dataclass(frozen=True)
class Layout:
    """How a publisher spells the keys of a network, with a deep stem and with a plain one."""
    deep: Pairs
    plain: Pairs
    #: a checkpoint is in this layout if it has one of these keys, tried in the order of LAYOUTS
    marks: tuple[str, ...]


BLOCKS = ('layer#.#.*', 'layer#.#.*')
HEAD = ('fc.*', 'fc.*')
POOLED_FIRST = ('layer1.0.downsample.0.*', 'layer1.0.downsample.1.*')
UNPOOLED_NORM = ('layer1.0.downsample.1.*', 'layer1.0.downsample.2.*')


def conv_norms(theirs_conv: str, theirs_norm: str, start: int = 1) -> Pairs:
    """The three convolutions and norms of a deep stem, numbered by the publisher from ``start``."""
    return tuple(pair for index in range(3) for pair in (
        (theirs_conv.format(index + start) + '.*', f'stem.{3 * index}.*'),
        (theirs_norm.format(index + start) + '.*', f'stem.{3 * index + 1}.*')))


CADENE_REST = (('layer#.#.se_module.*', 'layer#.#.se.*'), BLOCKS, ('last_linear.*', 'fc.*'))
MMPRETRAIN_REST = (('layer#.#.se_layer.conv1.conv.*', 'layer#.#.se.fc1.*'),
                   ('layer#.#.se_layer.conv2.conv.*', 'layer#.#.se.fc2.*'), BLOCKS,
                   ('head.fc.*', 'fc.*'))

LAYOUTS: Mapping[str, Layout] = {
    # Cadene's pretrained-models and timm's legacy_*: SENet's Caffe names
    'cadene': Layout(
        deep=(*conv_norms('layer0.conv{}', 'layer0.bn{}'), *CADENE_REST),
        plain=(('layer0.conv1.*', 'conv1.*'), ('layer0.bn1.*', 'bn1.*'), *CADENE_REST),
        marks=('layer0.conv1.weight',)),
    # mmpretrain: stem of ConvModules, no place for a pool in a stride-1 shortcut
    'mmpretrain': Layout(
        deep=(*conv_norms('stem.{}.conv', 'stem.{}.bn', start=0), POOLED_FIRST, UNPOOLED_NORM,
              *MMPRETRAIN_REST),
        plain=(('conv1.*', 'conv1.*'), ('bn1.*', 'bn1.*'), *MMPRETRAIN_REST),
        marks=('stem.0.conv.weight', 'layer1.0.se_layer.conv1.conv.weight', 'head.fc.weight')),
    # the authors' ResNeSt and Res2Net v1b, timm, Gluon ports; plain stems as in torchvision
    'official': Layout(
        deep=(('conv1.#.*', 'stem.#.*'), ('bn1.*', 'stem.7.*'), BLOCKS, HEAD),
        plain=(('conv1.*', 'conv1.*'), ('bn1.*', 'bn1.*'), BLOCKS, HEAD),
        marks=('conv1.0.weight', 'conv1.weight')),
    # mmdet and mmseg, and ourselves
    'mmdet': Layout(
        deep=(('stem.#.*', 'stem.#.*'), BLOCKS, HEAD),
        plain=(('conv1.*', 'conv1.*'), ('bn1.*', 'bn1.*'), BLOCKS, HEAD),
        marks=('stem.0.weight',)),
}


class Match(NamedTuple):
    """Where in a checkpoint a backbone is, and how it is spelt."""
    prefix: str
    layout: str
    deep: bool


def recognise(keys: Any) -> Optional[Match]:
    """Finds a backbone among the keys of a checkpoint, at any prefix; None if there is none."""
    keys = set(keys)
    for name, layout in LAYOUTS.items():
        for mark in layout.marks:
            prefixes = [key[:-len(mark)] for key in keys
                        if key.endswith(mark) and (key == mark or key[-len(mark) - 1] == '.')]
            # the block's own conv1.weight ends like the stem's: a stage must stand beside it
            for prefix in sorted(prefixes, key=len):
                if any(key.startswith(prefix + 'layer1.0.') for key in keys):
                    return Match(prefix, name, is_deep(prefix, keys))
    return None


def is_deep(prefix: str, keys: set[str]) -> bool:
    """Whether the stem spelt by these keys has three convolutions."""
    return any(prefix + key in keys for key in (
        'stem.0.weight', 'stem.0.conv.weight', 'conv1.0.weight', 'layer0.conv2.weight'))


@cache
def compiled(pairs: Pairs, reverse: bool) -> tuple[tuple[re.Pattern, str], ...]:
    """The pairs as patterns and the templates to fill from their groups."""
    rules = []
    for theirs, ours in pairs:
        source, target = (ours, theirs) if reverse else (theirs, ours)
        pattern = re.escape(source).replace(r'\#', r'(\d+)').replace(r'\*', '(.+)')
        rules.append((re.compile(pattern), re.sub(r'[#*]', '{}', target)))
    return tuple(rules)


def rename(key: str, pairs: Pairs, reverse: bool = False) -> str:
    """One key, from a layout to ours, or back.

    Raises:
        UserError: the layout has no such key.
    """
    for pattern, template in compiled(pairs, reverse):
        match = pattern.fullmatch(key)
        if match:
            return template.format(*match.groups())
    raise UserError(f'{key!r} is not a key of this layout')


def convert(state: Mapping[str, Tensor], to: str = 'mmdet') -> dict[str, Tensor]:
    """A backbone's state dict in another layout; keys outside the backbone are refused.

    Args:
        state: in any layout.
        to: a key of LAYOUTS.

    Raises:
        UserError: unknown layout, no backbone in it, or a key that its layout does not have.
    """
    if to not in LAYOUTS:
        raise UserError(f'layout {to!r} is unknown; legal: {", ".join(LAYOUTS)}')
    found = recognise(state)
    if found is None:
        raise UserError('no network of this package is recognised by its keys, which begin '
                        + ', '.join(list(state)[:3]))
    source, target = (getattr(LAYOUTS[name], 'deep' if found.deep else 'plain')
                      for name in (found.layout, to))
    return {rename(rename(key[len(found.prefix):], source), target, reverse=True): value
            for key, value in state.items()}


def convert_on_load(trunk: nn.Module) -> None:
    """Lets ``load_state_dict`` of a trunk, or of whatever contains it, take any layout."""
    trunk.register_load_state_dict_pre_hook(rewrite)


def rewrite(module: nn.Module, state: dict, prefix: str, *_: Any) -> None:
    """The hook; a function of the module, since networks are pickled with their hooks."""
    own = {key[len(prefix):]: key for key in state if key.startswith(prefix)}
    found = recognise(own)
    if found is None or found.prefix or found.layout == 'mmdet':
        return
    layout = LAYOUTS[found.layout]
    renamed = {rename(key, layout.deep if found.deep else layout.plain): state.pop(full)
               for key, full in own.items()}
    for key, value in renamed.items():
        if not key.startswith(CLASSIFIER):
            state[prefix + key] = value


@dataclass(frozen=True)
class Report:
    """What was loaded, in one line."""
    source: str
    layout: str
    filled: int
    total: int
    left_out: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        left = f', left out {", ".join(self.left_out)}' if self.left_out else ''
        return (f'mmresnest: {self.filled} of {self.total} backbone tensors filled from '
                f'{self.source} ({self.layout} layout{left})')


def load(trunk: nn.Module, checkpoint: str, prefix: Optional[str] = None,
         content: Optional[Mapping[str, Any]] = None) -> Report:
    """Fills every tensor of a trunk from a file or a URL, or raises.

    Args:
        trunk: the network.
        checkpoint: path, http(s) URL, or ``mmresnest://arch`` for published weights.
        prefix: where in the checkpoint the backbone is; found by itself if None.
        content: what the checkpoint holds, where the caller has read it.

    Raises:
        UserError: not a checkpoint, a hash that differs, another network, missing tensors.
    """
    state = tensors_of(read(checkpoint) if content is None else content, checkpoint)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        state = {key[len(prefix):]: value for key, value in state.items()
                 if key.startswith(prefix)}
    found = recognise(state)
    if found is None:
        raise UserError(f'{checkpoint}: no backbone of this package is recognised by its keys'
                        + (f' under prefix={prefix!r}' if prefix else '')
                        + f', which begin {", ".join(list(state)[:3]) or "nowhere: it is empty"}')
    layout = LAYOUTS[found.layout]
    native = {}
    for key, value in state.items():
        if key.startswith(found.prefix):
            inner = key[len(found.prefix):]
            if found.prefix or is_backbone_key(inner, layout):
                native[rename(inner, layout.deep if found.deep else layout.plain)] = value
    own = trunk.state_dict()
    left_out = sorted({key.split('.')[0] for key in native if key.startswith(CLASSIFIER)
                       or key.startswith('layer') and not hasattr(trunk, key.split('.')[0])})
    native = {key: value for key, value in native.items() if key.split('.')[0] not in left_out}
    compare(own, native, checkpoint)
    adapt_stem(own, native)
    trunk.load_state_dict(native, strict=False)        # compare() was stricter, and told more
    return Report(str(checkpoint), found.layout, len(own.keys() & native.keys()), len(own),
                  tuple(left_out))


def is_backbone_key(key: str, layout: Layout) -> bool:
    """Whether a key without a prefix belongs to the network rather than to what surrounds it."""
    for pairs in (layout.deep, layout.plain):
        if any(pattern.fullmatch(key) for pattern, _ in compiled(pairs, False)):
            return True
    return False


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    """Raises unless the checkpoint holds each tensor of the network, in its shape, and no other."""
    # Batch counts are only used by norms without momentum; older checkpoints lack them.
    missing = [key for key in own if key not in given and not key.endswith('num_batches_tracked')]
    foreign = [key for key in given if key not in own]
    shapes = [key for key in own if key in given and own[key].shape != given[key].shape
              and not is_first_conv(key)]
    if not (missing or foreign or shapes):
        return
    problems = [f'{len(keys)} {what}, such as {keys[0]}' for keys, what in (
        (missing, 'tensors of the network are not in the file'),
        (foreign, 'tensors of the file are not in the network')) if keys]
    if shapes:
        key = shapes[0]
        problems.append(f'{len(shapes)} shapes differ, such as {key}: '
                        f'{tuple(given[key].shape)} in the file, {tuple(own[key].shape)} here')
    alike = like(given)
    advice = (f"it looks like arch='{alike[0]}'" if alike else
              'it is none of the published networks')
    raise UserError(f'{source} does not fit this network: {"; ".join(problems)}; {advice}')


def is_first_conv(key: str) -> bool:
    """Whether a key of ours is the weight that meets the image."""
    return key in ('stem.0.weight', 'conv1.weight')


def adapt_stem(own: Mapping[str, Tensor], given: dict[str, Tensor]) -> None:
    """Fits the first convolution to another number of image channels.

    One channel gets the sum of the three colours' weights, so that a grey image gives what its RGB
    copy gave. More channels repeat the three in turn, scaled by 3 / channels, so that the response
    keeps its size.
    """
    for key in filter(is_first_conv, own):
        weight, channels = given[key], own[key].shape[1]
        if weight.shape[1] == channels:
            return
        if channels == 1:
            given[key] = weight.sum(1, keepdim=True)
        else:
            repeats = -(-channels // weight.shape[1])
            given[key] = weight.repeat(1, repeats, 1, 1)[:, :channels] * (
                weight.shape[1] / channels)


def like(state: Mapping[str, Tensor]) -> list[str]:
    """The archs whose tensors have the names and shapes of this state dict (in our layout)."""
    from .trunk import ResTrunk
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    matches = []
    for row in TABLE:
        with torch.device('meta'):
            trunk = ResTrunk(**row.trunk).state_dict()
        if all(shapes.get(key) == tuple(value.shape) for key, value in trunk.items()
               if not key.endswith('num_batches_tracked') and not is_first_conv(key)):
            matches.append(row.name)
    return matches


WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')


def tensors_of(content: Any, source: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, whatever they are wrapped in."""
    for _ in WRAPPERS:
        if not isinstance(content, Mapping):
            break
        content = next((content[name] for name in WRAPPERS
                        if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping) or not any(
            isinstance(value, Tensor) for value in content.values()):
        raise UserError(f'{source} holds no tensors by name: it is not a checkpoint')
    return {re.sub(r'^module\.', '', key): value for key, value in content.items()
            if isinstance(value, Tensor)}


def read(checkpoint: str) -> Any:
    """What a file or a URL holds, never running code from it.

    Raises:
        UserError: it is missing, broken, of another hash than its name says, or not tensors.
    """
    if checkpoint.startswith(SCHEME):
        path = fetch(variant(checkpoint[len(SCHEME):]))
    elif checkpoint.startswith(('http://', 'https://')):
        path = download((checkpoint,), checkpoint)
    else:
        path = Path(checkpoint)
        if not path.is_file():
            raise UserError(f'checkpoint {path.absolute()} does not exist')
    verify_hash(path)
    return parse(path)


def fetch(row: Variant) -> Path:
    """The published weights of a network: from the cache, or from the first host that has them.

    Raises:
        UserError: none were published, or no host can be reached; says what to put where by hand.
    """
    if not row.weights:
        raise UserError(f'no weights were published for {row.name}; train from scratch with '
                        f'--from-scratch, or give a checkpoint of your own')
    return download(tuple(weights.url for weights in row.weights), row.name)


def download(urls: tuple[str, ...], what: str) -> Path:
    """The first of the files that is in torch hub's cache or can be fetched into it."""
    cache = Path(torch.hub.get_dir()) / 'checkpoints'
    files = [cache / url.rpartition('/')[2] for url in urls]
    here = next((file for file in files if file.is_file()), None)
    if here is None and int(os.environ.get('LOCAL_RANK', 0)) == 0:
        here = first_that_answers(urls, files, what)
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()               # one process of a machine fetches for all of them
        here = here or next((file for file in files if file.is_file()), None)
    if here is None:
        raise UserError(f'{what}: the process that fetches the weights failed; see its message')
    return here


def first_that_answers(urls: tuple[str, ...], files: list[Path], what: str) -> Path:
    """Fetches the first file whose host answers and whose hash is right."""
    files[0].parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url, file in zip(urls, files):
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=PUBLISHED.get(file.name))
            return file
        except (OSError, RuntimeError) as error:          # no connection, 404, or another hash
            failures.append(f'{url} ({error})')
    names = ' or '.join(dict.fromkeys(file.name for file in files))
    raise UserError(f'the weights of {what} cannot be fetched: {"; ".join(failures)}. Fetch '
                    f'{names} on a machine that is online and put it into {files[0].parent}, or '
                    f'train from random weights with --from-scratch')


def parse(path: Path) -> Any:
    """What a checkpoint file holds."""
    if path.suffix == '.safetensors':
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise UserError(f'{path}: reading it needs `pip install safetensors`') from error
        return load_file(path)
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise UserError(f'{path} cannot be read as a checkpoint of tensors '
                        f'({str(error).splitlines()[0] if str(error) else type(error).__name__}); '
                        f'it is truncated, not a checkpoint, or wants to run code') from error


#: file name -> the hex digits with which its sha256 begins
PUBLISHED = {weights.file: weights.sha256 for row in TABLE for weights in row.weights}


def verify_hash(path: Path) -> None:
    """Compares a published file with the sha256 prefix in its name; other names are let pass."""
    wanted = PUBLISHED.get(path.name)
    if wanted is None:
        return
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if not digest.hexdigest().startswith(wanted):
        raise UserError(f"{path}: its sha256 begins {digest.hexdigest()[:8]}, the published file's "
                        f'{wanted}: it is damaged or another file; fetch it again')
