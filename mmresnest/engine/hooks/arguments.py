"""Check the arguments of hooks."""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentError


def check_whole_number(
    hook: Any, name: str, value: Any, *, least: int = 1, none: str | None = None
) -> None:
    """Refuse an argument that is no whole number from ``least`` on.

    Args:
        hook: the object whose argument it is.
        name: of the argument.
        value: what was given.
        least: the smallest legal number.
        none: what None stands for, if it is legal.

    Raises:
        ArgumentError: the value is not legal.
    """
    if value is None and none is not None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        also = f', or {none}' if none else ''
        raise ArgumentError(
            f'{type(hook).__name__}: {name}={value!r} is not supported; legal: whole numbers from '
            f'{least}{also}'
        )
