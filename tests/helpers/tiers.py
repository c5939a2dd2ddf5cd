"""Which tests of many `make test` runs: one of each kind; see conftest.py."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def mark_slow(
    values: Iterable[Any], is_fast: Callable[[Any], bool], on_both: bool = False
) -> list[Any]:
    """Return the values of a parametrized test, those that are not fast marked as slow.

    The fast ones, one of each kind, run on both stacks, the slow ones on the first alone.

    Args:
        values: of one parameter, or tuples of those of several.
        is_fast: whether `make test` runs the test with a value.
        on_both: the slow ones run on the second stack, too: each has to do with other parts of it.
    """
    marks = [pytest.mark.slow] if on_both else [pytest.mark.slow, pytest.mark.once]

    def mark(value):
        several = value if type(value) is tuple else (value,)
        return pytest.param(*several, marks=[] if is_fast(value) else marks)

    return [mark(value) for value in values]
