"""Checkpoints: loading that tells the truth, from whatever layout (:mod:`mmresnest.layouts`).

There are two ways in. :func:`load` reads a file and fills a network. The hook that
:func:`convert_on_load` hangs on a network meets every other way, ``load_state_dict`` of whatever
contains it and mmengine's loaders of a whole detector, none of which says more of a tensor that
stays empty than a line in a log. Either way all tensors are filled, or an error names those that
are not. The exception: ``load_state_dict(..., strict=False)`` of the network itself loads a part,
as everywhere in PyTorch; so does a checkpoint that has nothing at all under the network's prefix.
"""

import json
import logging
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from . import claims, safetensors
from . import download as web
from .errors import UserError
from .layouts import CLASSIFIER, LAYOUTS, convert, exchange, layout_named, recognise
from .storage import sha256_of, write_whole
from .switches import TRUST, is_on
from .variants import TABLE, Variant, variant

__all__ = [
    'CLASSIFIER',
    'LAYOUTS',
    'PUBLISHED',
    'SCHEME',
    'Report',
    'convert',
    'convert_file',
    'convert_on_load',
    'fetch',
    'load',
    'read',
    'recognise',
]

SCHEME = 'mmresnest://'  # + arch: the published weights of a row of the variant table
NOTE = 'mmresnest'  # where in a state dict's metadata our facts stand

#: file name -> the hex digits with which its sha256 begins
PUBLISHED = {weights.file: weights.sha256 for row in TABLE for weights in row.weights}

Facts = Mapping[str, bool]
Say = Callable[[str], None]


# What tensors do not show ------------------------------------------------------------------------

#: fact -> what it says of the network that a checkpoint was trained in
MEANING = {
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
    """What the weights of a network are for, and their names and shapes do not tell."""
    return dict(
        ceil_pool=bool(getattr(getattr(trunk, 'maxpool', None), 'ceil_mode', False)),
        avd_first=any(getattr(module, 'avd_first', False) for module in trunk.modules()),
    )


def facts_of_row(row: Variant) -> dict[str, bool]:
    """The same of a published network."""
    return {fact: bool(row.trunk.get(fact, False)) for fact in MEANING}


def known_facts(file: str, layout: str, noted: Facts | None) -> Facts:
    """What is known of the network behind a checkpoint: by our note in it, its name, its layout."""
    if noted:
        return {fact: bool(noted[fact]) for fact in MEANING if fact in noted}
    rows = [row for row in TABLE if file in {weights.file for weights in row.weights}]
    if rows:
        return facts_of_row(rows[0])
    return dict(ceil_pool=True) if layout == 'cadene' else {}


def check_facts(trunk: nn.Module, known: Facts, native: Mapping[str, Tensor], source: str) -> None:
    """Raises where weights would fit in shape, but give features they were not trained for."""
    own = facts_of(trunk)
    for fact, value in known.items():
        if own[fact] != value:
            alike = like(native, known)
            advice = f'write {named(alike)}' if alike else f'build the network with {fact}={value}'
            raise UserError(
                f'{source} was trained with {MEANING[fact][not value]}, and this '
                f'network has {MEANING[fact][value]}: its features would be wrong; '
                f'{advice}'
            )


def like(state: Mapping[str, Tensor], known: Facts) -> list[str]:
    """The archs whose tensors have the names and shapes of this state dict (in our layout)."""
    from .trunk import ResTrunk

    shapes = {key: tuple(value.shape) for key, value in state.items()}
    depths = tuple(
        len({key.split('.')[1] for key in shapes if key.startswith(f'layer{stage}.')})
        for stage in (1, 2, 3, 4)
    )
    matches = []
    for row in TABLE:
        facts = facts_of_row(row)
        if row.depths != depths or any(facts[fact] != known[fact] for fact in known):
            continue
        with torch.device('meta'):
            trunk = ResTrunk(**row.trunk).state_dict()
        if all(
            shapes.get(key) == tuple(value.shape)
            for key, value in trunk.items()
            if not key.endswith('num_batches_tracked') and not is_first_conv(key)
        ):
            matches.append(row.name)
    return matches


def named(archs: list[str]) -> str:
    """The archs as they are written."""
    return ' or '.join(f"arch='{arch}'" for arch in archs)


# Filling a network -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
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


def fit(
    trunk: nn.Module, native: Mapping[str, Tensor], source: str, known: Facts, partly: bool = False
) -> Fit:
    """Leaves out what the network has no place for, and adapts its stem.

    Args:
        trunk: the network.
        native: tensors by our names.
        source: the checkpoint, for messages.
        known: see :func:`known_facts`.
        partly: let PyTorch judge what is missing or of another shape.

    Raises:
        UserError: the checkpoint is another network's, or lacks tensors.
    """
    unbuilt = {f'layer{stage}' for stage in (1, 2, 3, 4) if not hasattr(trunk, f'layer{stage}')}
    left_out = sorted(
        {
            name
            for key in native
            if (name := key.split('.')[0]) in unbuilt or key.startswith(CLASSIFIER)
        }
    )
    kept = {key: value for key, value in native.items() if key.split('.')[0] not in left_out}
    own = trunk.state_dict()
    check_facts(trunk, known, native, source)
    if not partly and (differences := compare(own, kept)):
        alike = like(native, known)
        advice = offsets_advice(own, kept) or (
            f'it looks like {named(alike)}: write that'
            if alike
            else 'it is none of the published networks'
        )
        raise UserError(f'{source} does not fit this network: {"; ".join(differences)}; {advice}')
    return Fit(kept, tuple(left_out), tuple(adapt_stem(own, kept)))


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """How a checkpoint differs from a network: tensors of one alone, and shapes."""
    # Batch counts are only used by norms without momentum; older checkpoints lack them.
    missing = [key for key in own if key not in given and not key.endswith('num_batches_tracked')]
    foreign = [key for key in given if key not in own]
    shapes = [key for key in own if key in given and shape(key, own) != shape(key, given)]
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
    """What to write where networks differ in deformable convolutions alone; '' elsewhere."""
    plain = [
        {key: value for key, value in state.items() if '.conv_offset.' not in key}
        for state in (own, given)
    ]
    offsets = {key: value for key, value in given.items() if key.endswith('.conv_offset.weight')}
    if compare(*plain):
        return ''
    if not offsets:
        return 'it has no deformable convolutions: leave out dcn'
    stages = tuple(
        any(key.startswith(f'layer{stage}.') for key in offsets) for stage in (1, 2, 3, 4)
    )
    made = len(next(iter(offsets.values())))
    kind, groups = ('DCNv2', made // 27) if made % 27 == 0 else ('DCN', made // 18)
    return (
        f"it has deformable convolutions: write dcn=dict(type='{kind}', "
        f'deform_groups={groups}), stage_with_dcn={stages}'
    )


def shape(key: str, state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """A tensor's shape; of the first convolution, which adapts, without the image's channels."""
    whole = tuple(state[key].shape)
    return whole[:1] + whole[2:] if is_first_conv(key) else whole


def is_first_conv(key: str) -> bool:
    """Whether a key of ours is the weight that meets the image."""
    return key in ('stem.0.weight', 'conv1.weight')


def adapt_stem(own: Mapping[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """Fits the first convolution to another number of image channels, and says so.

    One channel gets the sum of the three colours' weights, so that a grey image gives what its RGB
    copy gave. More channels repeat the three in turn, scaled by 3 / channels, so that the response
    keeps its size.
    """
    for key in own:
        if not is_first_conv(key) or key not in given or shape(key, own) != shape(key, given):
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
    """A hint where other toolboxes' own classes would compute something else."""
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


# ... through load_state_dict ---------------------------------------------------------------------


def log(line: str) -> None:
    """Where a report goes without an mm library."""
    logging.getLogger('mmresnest').info(line)


def convert_on_load(trunk: nn.Module, say: Say = log) -> None:
    """Lets ``load_state_dict`` of a trunk, or of whatever contains it, take any layout.

    Args:
        trunk: the network.
        say: gets the report's line. A function of a module, so that the network can be pickled.
    """
    # Public only since torch 2.5.
    trunk._register_load_state_dict_pre_hook(partial(on_load, say=say), with_module=True)
    trunk._register_state_dict_hook(note_facts)


def note_facts(trunk: nn.Module, state: Mapping[str, Tensor], prefix: str, metadata: dict) -> None:
    """Notes in a state dict what its tensors do not show, for :func:`known_facts`."""
    metadata[NOTE] = facts_of(trunk)


def on_load(
    trunk: nn.Module,
    state: dict[str, Tensor],
    prefix: str,
    metadata: Mapping[str, Any],
    *_: Any,
    say: Say,
) -> None:
    """Rewrites, in place, what ``load_state_dict`` is about to read.

    Whether it was asked to be strict is not told: torch and mmengine pass True to every hook and
    judge at the end. But a part is loaded on purpose by asking the network itself, so a prefix
    tells: below one, everything must be filled.

    Raises:
        UserError: see :func:`fit`.
    """
    full = {key[len(prefix) :]: key for key in state if key.startswith(prefix)}
    if not full:  # heads alone, say: nothing is claimed for the backbone
        return
    if any(hasattr(weight, 'ds_id') for weight in trunk.parameters()):
        return  # DeepSpeed at stage 3: weights are elsewhere, these empty
    given = {short: state[key] for short, key in full.items()}
    noted = metadata.get(NOTE)
    source = f'{prefix}* of the checkpoint' if prefix else 'the state dict'
    layout, native = by_our_names(trunk, given)
    if layout is None:
        if not prefix:
            return  # no network: PyTorch tells
        layout = 'mmdet'
    try:
        tensors, left_out, notes = fit(
            trunk, native, source, known_facts('', layout, noted), partly=not prefix
        )
    except UserError as error:
        if prefix:
            raise UserError(
                f'{error}. To load a part on purpose, load it into the backbone itself '
                f'with strict=False'
            ) from error
        raise
    for key in full.values():
        del state[key]
    state.update({prefix + key: value for key, value in tensors.items()})
    if prefix or left_out or notes:
        own = trunk.state_dict()
        notes += zoo_advice(trunk, layout in ('mmdet', 'detectron2') and noted is None)
        say(
            str(Report(source, layout, len(own.keys() & tensors.keys()), len(own), left_out, notes))
        )


def by_our_names(
    trunk: nn.Module, given: Mapping[str, Tensor]
) -> tuple[str | None, dict[str, Tensor]]:
    """The layout of a network's state dict, and its tensors by our names.

    Keys that the layout does not know stay as they are, as do all where no layout is recognised,
    which is then None. What has the trunk's own names needs none.
    """
    if not compare(trunk.state_dict(), given):
        return 'mmdet', dict(given)
    found = recognise(given)
    if found is None or found.prefix:
        return None, dict(given)
    if found.layout == 'mmdet':
        return 'mmdet', dict(given)
    native = {
        found.native(key) or key if found.knows(key) else key: value for key, value in given.items()
    }
    return found.layout, exchange(native, found.layout)


def expected(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole model's state dict as its backbones will take it: renamed, and stems adapted.

    Nothing is judged: what does not fit is still there, or still missing.
    """
    from .trunk import ResTrunk

    result = dict(state)
    for name, trunk in model.named_modules():
        if not isinstance(trunk, ResTrunk):
            continue
        prefix = name + '.' if name else ''
        inside = {key[len(prefix) :]: result.pop(key) for key in state if key.startswith(prefix)}
        _, native = by_our_names(trunk, inside)
        adapt_stem(trunk.state_dict(), native)
        result.update({prefix + key: value for key, value in native.items()})
    return result


# ... from a file ---------------------------------------------------------------------------------


def load(
    trunk: nn.Module,
    checkpoint: str,
    prefix: str | None = None,
    content: Mapping[str, Any] | None = None,
) -> Report:
    """Fills every tensor of a trunk from a file or a URL, or raises.

    Args:
        trunk: the network.
        checkpoint: path, http(s) URL, or ``mmresnest://arch`` for published weights.
        prefix: where in the checkpoint the backbone is; found by itself if None.
        content: what the checkpoint holds, where the caller has read it.

    Raises:
        UserError: not a checkpoint, a hash that differs, another network, missing tensors.
    """
    file = checkpoint
    if content is None:
        path, fetched = locate(checkpoint)
        file, content = path.name, parse(path, trusted=not fetched and trusted())
    whole = unwrap(content, checkpoint)
    state = tensors_of(whole)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        state = {key: value for key, value in state.items() if key.startswith(prefix)}
    found = recognise(state)
    if found is None:
        raise UserError(
            f'{checkpoint}: no backbone of this package is recognised by its keys'
            + (f' under prefix={prefix!r}' if prefix else '')
            + f', which begin {", ".join(list(state)[:3]) or "nowhere: it is empty"}'
        )
    native: dict[str, Tensor] = {}
    beside: set[str] = set()
    for key, value in state.items():
        if found.knows(key):
            native[found.native(key) or key] = value
        elif not found.prefix:
            beside.add(key.split('.')[0])  # beside a bare network: left out, by name
        elif key.startswith(found.prefix):
            native[key[len(found.prefix) :]] = value  # within it: fit() refuses
    noted = notes_in(whole, found.prefix)
    known = known_facts(file.rpartition('/')[2], found.layout, noted)
    tensors, left_out, notes = fit(trunk, exchange(native, found.layout), checkpoint, known)
    trunk.load_state_dict(tensors, strict=False)  # compare() was stricter, and told more
    from_zoo = noted is None and (
        bool(ZOO.search(file)) or file.startswith('open-mmlab://') or found.layout == 'detectron2'
    )
    own = trunk.state_dict()
    return Report(
        str(checkpoint),
        found.layout,
        len(own.keys() & tensors.keys()),
        len(own),
        tuple(sorted({*left_out, *beside})),
        notes + zoo_advice(trunk, from_zoo),
    )


WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')


def unwrap(content: Any, source: str) -> Mapping[str, Any]:
    """The state dict in a checkpoint, whatever it is wrapped in.

    Raises:
        UserError: there is none.
    """
    for _ in WRAPPERS:
        if not isinstance(content, Mapping):
            break
        content = next(
            (content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content
        )
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(f'{source} holds no tensors by name: it is not a checkpoint')
    return content


def tensors_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without the prefix of DistributedDataParallel."""
    return {
        key.removeprefix('module.'): value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def notes_in(state: Mapping[str, Any], prefix: str) -> Facts | None:
    """Our note in a state dict, where a network below this prefix has left one."""
    metadata = getattr(state, '_metadata', None) or {}
    for outer in ('', 'module.'):
        entry = metadata.get((outer + prefix).removesuffix('.'))
        if isinstance(entry, Mapping) and isinstance(entry.get(NOTE), Mapping):
            return entry[NOTE]
    return None


# Files -------------------------------------------------------------------------------------------


def read(checkpoint: str) -> Any:
    """What a file or a URL holds, never running code from it unless the user trusts the file.

    Raises:
        UserError: it is missing, broken, of another hash than its name says, or not tensors.
    """
    path, fetched = locate(checkpoint)
    return parse(path, trusted=not fetched and trusted())


def trusted() -> bool:
    """Whether the user lets files of his own run code, by ``--trust-checkpoint``."""
    return is_on(TRUST)


def locate(checkpoint: str) -> tuple[Path, bool]:
    """The file behind a path, a URL or ``mmresnest://arch``, its hash checked; whether fetched."""
    fetched = True
    if checkpoint.startswith(SCHEME):
        path = fetch(variant(checkpoint[len(SCHEME) :]))
        wanted = PUBLISHED.get(path.name)
    elif checkpoint.startswith(('http://', 'https://')):
        path, wanted = download((checkpoint,), checkpoint), hash_in(checkpoint)
    else:
        path, fetched = Path(checkpoint).expanduser(), False
        wanted = PUBLISHED.get(path.name)
        if not path.is_file():
            raise UserError(f'the checkpoint {path.absolute()} does not exist; correct its path')
    verify_hash(path, wanted)
    return path, fetched


def fetch(row: Variant) -> Path:
    """The published weights of a network: from the cache, or from the first host that has them.

    Raises:
        UserError: none were published, or no host can be reached; says what to put where by hand.
    """
    if not row.weights:
        raise UserError(
            f'no weights were published for {row.name}; train from scratch with '
            f'--from-scratch, or give a checkpoint of your own'
        )
    return download(tuple(weights.url for weights in row.weights), row.name)


def download(urls: tuple[str, ...], what: str) -> Path:
    """The first of the files that is in torch hub's cache or can be fetched into it."""
    folders = [cache_of(url) for url in urls]
    files = [folder / web.file_name(url) for folder, url in zip(folders, urls)]
    here = next((file for file in files if file.is_file()), None)
    distributed = torch.distributed
    try:
        if here is None and int(os.environ.get('LOCAL_RANK', 0)) == 0:
            here = web.fetch(urls, folders[0], what, [hash_in(url) for url in urls])
    finally:  # one process of a machine fetches, or fails, for all of them
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
    here = here or next((file for file in files if file.is_file()), None)
    if here is None:
        raise UserError(f'{what}: the process that fetches the weights failed; see its message')
    return here


def cache_of(url: str) -> Path:
    """The folder for a file: torch hub's, or one per host for names that have no hash in them."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    return folder if hash_in(url) else folder / urlsplit(url).netloc.replace(':', '_')


def hash_in(url: str) -> str | None:
    """The sha256 prefix that a published name ends with, by torch hub's and mm's convention."""
    name = web.file_name(url)
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    by_name = found.group(1) if found and not found.group(1).isdigit() else None  # not a date
    return PUBLISHED.get(name, by_name)


def verify_hash(path: Path, wanted: str | None) -> None:
    """Compares a file with the sha256 prefix that is known of it."""
    if wanted is not None and not (digest := sha256_of(path)).startswith(wanted):
        raise UserError(
            f"{path}: its sha256 begins {digest[: len(wanted)]}, the published file's "
            f'{wanted}: it is damaged or another file; delete it and fetch it again'
        )


class Ignored:
    """Stands in for what a checkpoint of mmengine holds beside its tensors."""

    def __new__(cls, *_: Any) -> 'Ignored':
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# Histories of losses, which are numpy arrays. None is built: the names are bound to the above.
BESIDE_TENSORS = (
    'builtins.bytes',
    'builtins.getattr',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'numpy.dtype',
    'numpy.ndarray',
    *(
        f'numpy.{core}.multiarray.{name}'
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ),
)


def parse(path: Path, trusted: bool = False) -> Any:
    """What a checkpoint file holds.

    Raises:
        UserError: it is broken, claims more than it is long, or holds more than data.
    """
    if path.suffix == '.safetensors':
        tensors, texts = safetensors.load(path)
        state: Any = OrderedDict(tensors)  # torch hangs _metadata on a state dict
        if NOTE in texts:
            state._metadata = _note(texts[NOTE], path)
        return state
    names: list[Any] = [(Ignored, name) for name in BESIDE_TENSORS]
    allow = getattr(torch.serialization, 'safe_globals', nullcontext)  # since torch 2.5
    try:
        with allow(names), warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # of a pickle's protocol; it raises, too
            if not trusted:
                claims.check(path)
            return torch.load(path, map_location='cpu', weights_only=not trusted)
    except UserError:
        raise
    except Exception as error:
        wanted = re.search(r'GLOBAL (\S+)', str(error))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if wanted or 'WeightsUnpickler' in str(error):
            what = wanted.group(1) if wanted else 'objects'
            raise UserError(
                f'{path} cannot be read as a checkpoint of tensors: it holds {what}, '
                f'which could run code. If you trust whoever made this file as you '
                f'trust a program of theirs, give --trust-checkpoint (or set '
                f'{TRUST}=1)'
            ) from error
        raise UserError(
            f'{path} cannot be read as a checkpoint of tensors ({reason}); it is '
            f'truncated, or not a checkpoint: fetch it again'
        ) from error


def _note(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{path}: the note of mmresnest in it is no json ({error}); it is damaged: '
            f'fetch it again'
        ) from error


# From layout to layout ---------------------------------------------------------------------------


def convert_file(source: str, target: str, to: str, force: bool = False) -> str:
    """Writes a checkpoint's network, and its classifier, in another layout.

    Args:
        source: as for :func:`load`.
        target: the file to write; ``.safetensors`` is written as such.
        to: a layout.
        force: replace the file if it exists.

    Returns:
        a line that says what was written.

    Raises:
        UserError: nothing to convert, a network that the layout cannot spell, or a file in the way.
    """
    to, file = layout_named(to), Path(target).expanduser()
    if file.exists() and not force:
        raise UserError(f'{file} exists; give another name, or --force to replace it')
    if not file.absolute().parent.is_dir():
        raise UserError(f'the folder {file.absolute().parent} does not exist; make it first')
    path, fetched = locate(source)
    whole = unwrap(parse(path, trusted=not fetched and trusted()), source)
    state = tensors_of(whole)
    found = recognise(state)
    if found is None:
        raise UserError(
            f'{source}: no network of this package is recognised by its keys, which '
            f'begin {", ".join(list(state)[:3])}'
        )
    # A detector's neck and heads stand beside the network and have no name in another layout.
    inside = {
        key: value
        for key, value in state.items()
        if not found.prefix or found.native(key) is not None
    }
    beside = sorted({key.split('.')[0] for key in state if key not in inside})
    known = known_facts(path.name, found.layout, notes_in(whole, found.prefix))
    converted = OrderedDict((key, value.clone()) for key, value in convert(inside, to).items())
    metadata = {LAYOUTS[to].outer.removesuffix('.'): {NOTE: dict(known)}} if known else {}
    write(converted, metadata, file)
    left = f', left out {", ".join(beside)}' if beside else ''
    return f'{file}: {len(converted)} tensors, from the {found.layout} to the {to} layout{left}'


def write(state: 'OrderedDict[str, Tensor]', metadata: dict, file: Path) -> None:
    """Writes a state dict, and our note, in the format that the file's name says."""
    if file.suffix == '.safetensors':
        content = safetensors.dump(state, {NOTE: json.dumps(metadata)} if metadata else {})
        write_whole(file, lambda out: out.write(content))
        return
    if metadata:
        vars(state)['_metadata'] = OrderedDict(metadata)
    write_whole(file, lambda out: torch.save(state, out))
