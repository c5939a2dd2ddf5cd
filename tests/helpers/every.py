"""Enumerations of what costs next to nothing each: one test, and a list of all that failed."""

from collections.abc import Callable, Iterable
from typing import Any


def check_every(items: Iterable[Any], check: Callable[[Any], None]) -> None:
    """Check all items, then fail with those that failed.

    Args:
        items: files, names; each failure begins with one of them.
        check: asserts what holds for an item.
    """
    failures = []
    for item in items:
        try:
            check(item)
        except AssertionError as error:
            failures.append(f'{item}: {error}')
    assert not failures, f'{len(failures)} failed:\n' + '\n'.join(failures)
