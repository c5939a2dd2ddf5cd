"""Packages that a test needs and that most environments lack."""

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest


def import_or_skip(name: str) -> ModuleType:
    """Return a package that imports here; skip the test where it does not.

    With ``MMRESNEST_REQUIRE_TIMM``, which ``make test-timm`` sets, its absence is a failure: a run
    that is made to compare cannot pass by comparing nothing.
    """
    reason = ''
    if find_spec(name) is None:
        reason = f'{name} is not installed'
    else:
        try:
            return import_module(name)
        except (ImportError, RuntimeError) as error:  # a torchvision of another torch
            reason = f'{name} cannot be imported here: {error}'
    if os.environ.get('MMRESNEST_REQUIRE_TIMM'):
        pytest.fail(reason)
    pytest.skip(reason)
