"""The description in an exported file: what the file takes and gives, checked when it is read.

Whoever wrote the file may be a stranger, so no value is used before it was checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError

METADATA_KEY = 'mmresnest'
"""The key under which a file holds the description."""
METADATA_VERSION = 1
MAX_SIDE = 16384  # px


def read_metadata(text: str | None, path: Path) -> dict[str, Any]:
    """Return the description that a file holds, checked.

    Args:
        text: the description as json.
        path: of the file, for messages.

    Raises:
        UserError: it has none, a damaged one, or one of a newer version.
    """
    if not text:
        raise UserError(
            f'{path} was not written by `mmresnest export`: it does not say how images '
            'are prepared for it; export it anew',
            code='exported.foreign',
        )
    try:
        metadata = json.loads(text)
        version = metadata['version']
    except (ValueError, KeyError, TypeError):
        metadata, version = {}, None
    if version != METADATA_VERSION:
        raise UserError(
            f'{path} is described in version {version}, and this mmresnest reads '
            f'{METADATA_VERSION}; update mmresnest, or export it anew',
            code='exported.version',
        )
    wrong = [name for name, right in METADATA_CHECKS.items() if not right(metadata.get(name))]
    if wrong:
        raise UserError(
            f'the description in {path} is damaged: {", ".join(wrong)}; export it anew',
            code='exported.damaged',
        )
    return metadata


def _is_side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIDE


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_side, value))


def _is_input_spec(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    open_ended = all(value.get(name) is None for name in ('batch', 'height', 'width'))
    fixed = all(_is_side(value.get(name)) for name in ('batch', 'height', 'width'))
    return (open_ended or fixed) and _is_side(value.get('divisor')) and _is_side(value.get('least'))


METADATA_CHECKS: dict[str, Callable[[Any], bool]] = {
    'part': lambda value: value in ('model', 'whole', 'neck', 'backbone'),
    'task': lambda value: value in ('detection', 'instance', 'panoptic', 'semantic'),
    'names': lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    'outputs': lambda value: isinstance(value, list) and len(value) > 0,
    'input': _is_input_spec,
    'resize': lambda value: (
        value is None
        or (
            isinstance(value, dict)
            and _is_size(value.get('scale'))
            and type(value.get('keep_ratio')) is bool
        )
    ),
    'window': lambda value: (
        value is None
        or (
            isinstance(value, dict)
            and _is_size(value.get('size'))
            and _is_size(value.get('stride'))
        )
    ),
    'mask_threshold': lambda value: isinstance(value, float) and 0 <= value <= 1,
    'align_corners': lambda value: type(value) is bool,
}
"""Key -> whether a value of it is legal."""
