"""Convert a checkpoint into another layout of keys."""

import json
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from ...errors import UserError
from ...utils.files import write_whole
from . import safetensors_file
from .hub import is_trusted, locate_checkpoint
from .layouts import LAYOUTS, convert, layout_named, recognize_backbone
from .match import known_facts
from .reader import METADATA_KEY, notes_in, parse_checkpoint, tensors_of, unwrap_checkpoint


def convert_file(source: str, target: str, to: str, force: bool = False) -> str:
    """Write a checkpoint's network, and its classifier, in another layout.

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
        raise UserError(
            f'{file} exists; give another name, or --force to replace it', code='option.exists'
        )
    if not file.absolute().parent.is_dir():
        raise UserError(
            f'the folder {file.absolute().parent} does not exist; make it first',
            code='option.no-folder',
        )
    path, fetched = locate_checkpoint(source)
    whole = unwrap_checkpoint(parse_checkpoint(path, trusted=not fetched and is_trusted()), source)
    state = tensors_of(whole)
    found = recognize_backbone(state)
    if found is None:
        raise UserError(
            f'{source}: no network of this package is recognised by its keys, which '
            f'begin {", ".join(list(state)[:3])}',
            code='weights.unknown-keys',
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
    metadata = {LAYOUTS[to].outer.removesuffix('.'): {METADATA_KEY: dict(known)}} if known else {}
    write_state_dict(converted, metadata, file)
    left = f', left out {", ".join(beside)}' if beside else ''
    return f'{file}: {len(converted)} tensors, from the {found.layout} to the {to} layout{left}'


def write_state_dict(state: 'OrderedDict[str, Tensor]', metadata: dict, file: Path) -> None:
    """Write a state dict, and our note, in the format that the file's name says."""
    if file.suffix == '.safetensors':
        texts = {METADATA_KEY: json.dumps(metadata)} if metadata else {}
        content = safetensors_file.dump_tensors(state, texts)
        write_whole(file, lambda out: out.write(content))
        return
    if metadata:
        vars(state)['_metadata'] = OrderedDict(metadata)
    write_whole(file, lambda out: torch.save(state, out))
