"""Wrap methods of single objects of other libraries, where these offer no hook."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def wrap_method(owner: Any, name: str, around: Callable[[Callable[[], Any]], Any]) -> None:
    """Call a function around each call of a method of one object.

    Args:
        owner: the object; its class stays as it is.
        name: of the method.
        around: is given the call, as a function without arguments, and returns its result.
    """
    method = getattr(owner, name)

    @wraps(method)
    def call_around(*args: Any, **kwargs: Any) -> Any:
        return around(lambda: method(*args, **kwargs))

    setattr(owner, name, call_around)
