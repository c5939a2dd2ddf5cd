"""The description in an exported file: what the file takes and gives, checked when it is read.

Whoever wrote the file may be a stranger, so no value is used before it was checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError

METADATA_KEY = 'mmresnest'
"""The key under which a file holds the description."""
METADATA_VERSION = 1
MAX_LENGTH = 2**22
"""Characters of a description: ten thousand long class names fit in."""
MAX_SIDE = 16384  # px
MAX_INPUT = 2**28
"""Pixels of all images of a batch; four times those of 64 images at 800 x 1344."""
MAX_NAME = 1000


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
        metadata = json.loads(text) if len(text) <= MAX_LENGTH else {}
        version = metadata['version']
    except (ValueError, KeyError, TypeError, RecursionError):
        metadata, version = {}, None
    if type(version) is not int:
        raise UserError(
            f'the description in {path} is damaged: it has no version; export it anew',
            code='exported.damaged',
        )
    if version != METADATA_VERSION:
        raise UserError(
            f'{path} is described in version {version}, and this mmresnest reads '
            f'{METADATA_VERSION}; update mmresnest, or export it anew',
            code='exported.version',
        )
    wrong = [
        name
        for name, right in METADATA_CHECKS.items()
        if name not in metadata or not right(metadata[name])
    ]
    if wrong:
        raise UserError(
            f'the description in {path} is damaged: {", ".join(wrong)}; export it anew',
            code='exported.damaged',
        )
    return metadata


def _is_number(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_number(side, 1, MAX_SIDE) for side in value)
        and value[0] * value[1] <= MAX_INPUT
    )


def _is_input_spec(value: Any) -> bool:
    if not isinstance(value, dict) or not {'batch', 'height', 'width'} <= set(value):
        return False
    if not (_is_number(value.get('divisor'), 1, 1024) and _is_number(value.get('least'), 1, 1024)):
        return False
    form: list[Any] = [value.get(name) for name in ('batch', 'height', 'width')]
    is_fixed = all(_is_number(number, 1, MAX_SIDE) for number in form)
    return all(number is None for number in form) or (is_fixed and math.prod(form) <= MAX_INPUT)


def _is_resize_rule(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_size(value.get('scale'))
        and type(value.get('keep_ratio')) is bool
    )


def _is_window(value: Any) -> bool:
    """Tell whether windows of a size and stride cover an image, and are not too many."""
    return (
        isinstance(value, dict)
        and _is_size(value.get('size'))
        and _is_size(value.get('stride'))
        and all(side / 16 <= step <= side for side, step in zip(value['size'], value['stride']))
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(name, str) and len(name) <= MAX_NAME for name in value
    )


METADATA_CHECKS: dict[str, Callable[[Any], bool]] = {
    'part': lambda value: value in ('model', 'whole', 'neck', 'backbone'),
    'task': lambda value: value in ('detection', 'instance', 'panoptic', 'semantic'),
    'names': _are_names,
    'outputs': lambda value: _are_names(value) and len(value) > 0,
    'input': _is_input_spec,
    'resize': lambda value: value is None or _is_resize_rule(value),
    'window': lambda value: value is None or _is_window(value),
    'mask_threshold': lambda value: isinstance(value, float) and 0 <= value <= 1,
    'align_corners': lambda value: type(value) is bool,
}
"""Key -> whether a value of it is legal."""
