"""Which tests of many `make test` runs: one of each kind; see conftest.py."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def mark_slow(values: Iterable[Any], is_fast: Callable[[Any], bool]) -> list[Any]:
    """Return the values of a parametrized test, those that are not fast marked as slow.

    Args:
        values: of one parameter, or tuples of those of several.
        is_fast: whether `make test` runs the test with a value.
    """

    def mark(value):
        several = value if type(value) is tuple else (value,)
        return pytest.param(*several, marks=[] if is_fast(value) else pytest.mark.slow)

    return [mark(value) for value in values]
