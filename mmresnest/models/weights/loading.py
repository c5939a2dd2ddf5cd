"""Load checkpoints of whatever layout (:mod:`.layouts`), and say what was loaded.

There are two ways in. :func:`load` reads a file and fills a network. The hook that
:func:`convert_on_load` hangs on a network meets every other way, ``load_state_dict`` of whatever
contains it and mmengine's loaders of a whole detector, none of which says more of a tensor that
stays empty than a line in a log. Either way all tensors are filled, or an error names those that
are not. The exception: ``load_state_dict(..., strict=False)`` of the network itself loads a part,
as everywhere in PyTorch; so does a checkpoint that has nothing at all under the network's prefix.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...errors import UserError
from .convert import convert_file
from .hub import PUBLISHED, SCHEME, fetch, locate, trusted
from .layouts import CLASSIFIER, LAYOUTS, convert, exchange, recognise
from .match import ZOO, Report, Say, adapt_stem, compare, facts_of, fit, known_facts, zoo_advice
from .reader import NOTE, notes_in, parse, read, tensors_of, unwrap

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
    from ..trunk import ResTrunk

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
