"""Convert a checkpoint into another layout of keys."""

import json
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from ...errors import UserError
from ...utils.files import write_whole
from . import safetensors_file
from .hub import locate, trusted
from .layouts import LAYOUTS, convert, layout_named, recognise
from .match import known_facts
from .reader import NOTE, notes_in, parse, tensors_of, unwrap

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
        content = safetensors_file.dump(state, {NOTE: json.dumps(metadata)} if metadata else {})
        write_whole(file, lambda out: out.write(content))
        return
    if metadata:
        vars(state)['_metadata'] = OrderedDict(metadata)
    write_whole(file, lambda out: torch.save(state, out))
