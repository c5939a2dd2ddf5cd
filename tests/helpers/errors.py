"""Errors that tests expect, by their codes: the wording may change."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mmresnest.errors import ArgumentError, UserError


@contextmanager
def refuses(code: str, *parts: object) -> Iterator[pytest.ExceptionInfo]:
    """Expect a UserError of a code, whose message names these parts.

    Args:
        code: one of docs/errors.md.
        parts: what the message must say whatever its words are: paths, names, numbers, options.
    """
    with pytest.raises(UserError) as caught:
        yield caught
    assert caught.value.code == code, str(caught.value)
    assert isinstance(caught.value, ArgumentError) or not code.startswith('argument')
    for part in parts:
        assert str(part) in str(caught.value), str(caught.value)
