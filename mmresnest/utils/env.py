"""What is switched on by the environment, and so in child processes, too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

TRUST = 'MMRESNEST_TRUST_CHECKPOINTS'
"""Checkpoints of one's own may run the code that they carry."""

SAFE = 'MMRESNEST_SAFE_CONFIG'
"""Configs are read as data."""


def is_on(name: str) -> bool:
    """Return whether a variable says yes, in a spelling that torch accepts for its own."""
    return os.environ.get(name, '').lower() in ('1', 'y', 'yes', 'true')


@contextmanager
def enable_switch(name: str) -> Iterator[None]:
    """Set a variable within, and gives it its value back."""
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
