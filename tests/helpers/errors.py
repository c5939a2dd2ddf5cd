"""Errors that tests expect, by their codes: the wording may change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import pytest

from mmresnest.cli import main
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
    check_error(caught.value, code, *parts)


def check_error(error: UserError, code: str, *parts: object) -> None:
    """Compare an error with its code and what its message must name."""
    assert error.code == code, str(error)
    assert isinstance(error, ArgumentError) or not code.startswith('argument')
    for part in parts:
        assert str(part) in str(error), str(error)


def run_refused(line: Sequence[str]) -> UserError:
    """Run a command that must end with a UserError and status 2; return the error that it tells.

    Args:
        line: the arguments of the command line.
    """
    with mock.patch.object(main, '_refuse', wraps=main._refuse) as refuse:
        assert main.main(list(line)) == 2
    ((error, debug),) = (call.args for call in refuse.call_args_list)
    assert not debug
    return error


def check_refused(line: Sequence[str], code: str, *parts: object) -> None:
    """Run a command that must end with a UserError of a code, whose message names these parts.

    Args:
        line: the arguments of the command line.
        code: one of docs/errors.md.
        parts: what the message must say whatever its words are.
    """
    check_error(run_refused(line), code, *parts)
