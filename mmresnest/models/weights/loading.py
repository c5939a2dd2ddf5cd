"""Load checkpoints of whatever layout (:mod:`.layouts`), and say what was loaded.

There are two ways in. :func:`load` reads a file and fills a network. The hook that
:func:`convert_on_load` hangs on a network meets every other way, ``load_state_dict`` of whatever
contains it and mmengine's loaders of a whole detector, none of which says more of a tensor that
stays empty than a line in a log. Either way all tensors are filled, or an error names those that
are not. The exception: ``load_state_dict(..., strict=False)`` of the network itself loads a part,
as everywhere in PyTorch; so does a checkpoint that has nothing at all under the network's prefix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ...errors import UserError
from .hub import is_trusted, locate_checkpoint
from .layouts import OURS, convert_values, recognize_backbone
from .match import (
    ZOO,
    Facts,
    LoadReport,
    Say,
    adapt_stem,
    compare_tensors,
    facts_of,
    known_facts,
    match_state_dict,
    zoo_advice,
)

if TYPE_CHECKING:
    from ..trunk import Trunk
from .reader import METADATA_KEY, notes_in, parse_checkpoint, tensors_of, unwrap_checkpoint

__all__ = ['convert_on_load', 'load']


def log_report(line: str) -> None:
    """Log a report where there is no mm library."""
    logging.getLogger('mmresnest').info(line)


@dataclass(frozen=True)
class Source:
    """Where tensors come from."""

    name: str  # for messages
    layout: str
    noted: Facts | None  # what the network that they were saved from has noted
    file: str = ''  # the name of the file, or its URL, where that is known

    @property
    def is_zoo(self) -> bool:
        """Whether another toolbox's own class was trained, as far as can be told."""
        if self.noted is not None:
            return False
        if self.layout == 'detectron2':
            return True
        if not self.file:
            return self.layout == 'mmdet'
        return bool(ZOO.search(self.file)) or self.file.startswith('open-mmlab://')


def fit_tensors(
    trunk: Trunk,
    native: Mapping[str, Tensor],
    source: Source,
    partly: bool = False,
    beside: Iterable[str] = (),
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return what ``load_state_dict`` of a trunk is to be given, and what to report of it.

    Args:
        trunk: the network.
        native: tensors by our names.
        source: where they come from.
        partly: let PyTorch judge what is missing or of another shape.
        beside: what else the source holds, by name.

    Raises:
        UserError: see :func:`~.match.match_state_dict`.
    """
    known = known_facts(source.file.rpartition('/')[2], source.layout, source.noted)
    tensors, left_out, notes = match_state_dict(trunk, native, source.name, known, partly)
    own = trunk.state_dict()
    return tensors, LoadReport(
        source.name,
        source.layout,
        len(own.keys() & tensors.keys()),
        len(own),
        tuple(sorted({*left_out, *beside})),
        notes + zoo_advice(trunk, source.is_zoo),
    )


def convert_on_load(trunk: Trunk, say: Say = log_report) -> None:
    """Let ``load_state_dict`` of a trunk, or of whatever contains it, take any layout.

    Args:
        trunk: the network.
        say: gets the report's line. A function of a module, so that the network can be pickled.
    """
    # Public only since torch 2.5.
    trunk._register_load_state_dict_pre_hook(partial(on_load, say=say), with_module=True)
    trunk._register_state_dict_hook(note_facts)


def note_facts(trunk: Trunk, state: Mapping[str, Tensor], prefix: str, metadata: dict) -> None:
    """Note in a state dict what its tensors do not show, for :func:`~.match.known_facts`."""
    metadata[METADATA_KEY] = facts_of(trunk)


def on_load(
    trunk: Trunk,
    state: dict[str, Tensor],
    prefix: str,
    metadata: Mapping[str, Any],
    *_: Any,
    say: Say,
) -> None:
    """Rewrite, in place, what ``load_state_dict`` is about to read.

    Whether it was asked to be strict is not told: torch and mmengine pass True to every hook and
    judge at the end. But a part is loaded on purpose by asking the network itself, so a prefix
    tells: below one, everything must be filled.

    Raises:
        UserError: see :func:`fit_tensors`.
    """
    full = {key[len(prefix) :]: key for key in state if key.startswith(prefix)}
    if not full:  # heads alone, say: nothing is claimed for the backbone
        return
    if any(hasattr(weight, 'ds_id') for weight in trunk.parameters()):
        return  # DeepSpeed at stage 3: weights are elsewhere, these empty
    if full.keys() <= trunk.state_dict().keys() and not any(map(OURS.fullmatch, full)):
        return  # adapters put into the network (LoRA's), which are saved without it
    layout, native = to_native_keys(trunk, {short: state[key] for short, key in full.items()})
    if layout is None and not prefix:
        return  # no network: PyTorch tells
    name = f'{prefix}* of the checkpoint' if prefix else 'the state dict'
    source = Source(name, layout or 'mmdet', metadata.get(METADATA_KEY))
    try:
        tensors, report = fit_tensors(trunk, native, source, partly=not prefix)
    except UserError as error:
        if prefix:
            raise UserError(
                f'{error}. To load a part on purpose, load it into the backbone itself '
                f'with strict=False',
                code=error.code,
            ) from error
        raise
    for key in full.values():
        del state[key]
    state.update({prefix + key: value for key, value in tensors.items()})
    if prefix or report.left_out or report.notes:
        say(str(report))


def to_native_keys(
    trunk: Trunk, given: Mapping[str, Tensor]
) -> tuple[str | None, dict[str, Tensor]]:
    """Return the layout of a network's state dict, and its tensors by our names.

    Keys that the layout does not know stay as they are, as do all where no layout is recognised,
    which is then None. What has the trunk's own names needs none.
    """
    if not compare_tensors(trunk.state_dict(), given):
        return 'mmdet', dict(given)
    found = recognize_backbone(given)
    if found is None or found.prefix:
        return None, dict(given)
    if found.layout == 'mmdet':
        return 'mmdet', dict(given)
    native = {
        found.native(key) or key if found.knows(key) else key: value for key, value in given.items()
    }
    return found.layout, convert_values(native, found.layout)


def adapt_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a whole model's state dict as its backbones take it: renamed, and stems adapted.

    Nothing is judged: what does not fit is still there, or still missing.
    """
    from ..trunk import Trunk

    result = dict(state)
    for name, trunk in model.named_modules():
        if not isinstance(trunk, Trunk):
            continue
        prefix = name + '.' if name else ''
        inside = {key[len(prefix) :]: result.pop(key) for key in state if key.startswith(prefix)}
        _, native = to_native_keys(trunk, inside)
        adapt_stem(trunk.state_dict(), native)
        result.update({prefix + key: value for key, value in native.items()})
    return result


def load(
    trunk: Trunk,
    checkpoint: str,
    prefix: str | None = None,
    content: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Fill every tensor of a trunk from a file or a URL, or raise.

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
        path, fetched = locate_checkpoint(checkpoint)
        file, content = path.name, parse_checkpoint(path, trusted=not fetched and is_trusted())
    whole = unwrap_checkpoint(content, checkpoint)
    state = tensors_of(whole)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        state = {key: value for key, value in state.items() if key.startswith(prefix)}
    found = recognize_backbone(state)
    if found is None:
        raise UserError(
            f'{checkpoint}: no backbone of this package is recognised by its keys'
            + (f' under prefix={prefix!r}' if prefix else '')
            + f', which begin {", ".join(list(state)[:3]) or "nowhere: it is empty"}',
            code='weights.unknown-keys',
        )
    native: dict[str, Tensor] = {}
    beside: set[str] = set()
    for key, value in state.items():
        if found.knows(key):
            native[found.native(key) or key] = value
        elif not found.prefix:
            beside.add(key.split('.')[0])  # beside a bare network: left out, by name
        elif key.startswith(found.prefix):
            native[key[len(found.prefix) :]] = value  # within it: fit_tensors() refuses
    source = Source(str(checkpoint), found.layout, notes_in(whole, found.prefix), file)
    native = convert_values(native, found.layout)
    tensors, report = fit_tensors(trunk, native, source, beside=beside)
    trunk.load_state_dict(tensors, strict=False)  # fit_tensors() was stricter, and told more
    return report
