"""Errors that a user can fix: what was wrong, where, and what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral
from typing import Any

MAX_LISTED = 24  # legal values that a message lists in full


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what to do instead.

    The command line prints it without a traceback and exits with status 2.

    Args:
        message: what was wrong, where, and what to do next. Its wording may change.
        code: what was wrong, as a name that stays: ``'config.base-missing'``. docs/errors.md has
            the list; ``'error'`` is whatever has no name of its own.
    """

    def __init__(self, message: object, code: str = 'error') -> None:
        super().__init__(message)
        self.code = code


class ArgumentError(UserError, TypeError):
    """An argument that is unknown, or that this network cannot obey."""

    def __init__(self, message: object, code: str = 'argument') -> None:
        super().__init__(message, code)


def close_to(name: object, legal: Iterable[str], count: int = 3) -> list[str]:
    """List the legal values that look like a wrong one, best first, in any case of letters."""
    lowered = {str(value).lower(): str(value) for value in legal}
    close = get_close_matches(str(name).lower(), lowered, n=count, cutoff=0.6)
    return [lowered[value] for value in close]


def nearest(name: object, legal: Iterable[str], count: int = 3) -> str:
    """Name the legal values closest to a wrong one, for the end of an error message.

    Args:
        name: what the user wrote.
        legal: every value that would have been accepted.
        count: how many near misses to show at most.

    Returns:
        ``'nearest: a, b'``, or ``'legal: ...'`` where nothing is near: all of them, or how many
        more there are.
    """
    legal = [str(value) for value in legal]
    close = close_to(name, legal, count)
    if close:
        return 'nearest: ' + ', '.join(close)
    if len(legal) > MAX_LISTED:
        legal[MAX_LISTED // 2 :] = [f'and {len(legal) - MAX_LISTED // 2} more']
    return 'legal: ' + ', '.join(legal)


def check_indices(name: str, value: Any) -> tuple[int, ...]:
    """Return an argument that is a list or tuple of whole numbers as a tuple.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, (list, tuple)) and all(isinstance(one, Integral) for one in value):
        return tuple(value)
    raise ArgumentError(
        f'{name}={value!r} is not supported; legal: a list or tuple of whole numbers',
        code='argument.value',
    )
