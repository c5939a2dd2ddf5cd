"""Import imgaug where lanes are augmented, and not with mmdet.

A transform of lanes in one stack's mmdet imports it, and with it scipy's statistics: 1.6 s of
processor time in every process that imports mmdet, each worker that is spawned among them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

MODULES = (
    'imgaug',
    'imgaug.augmenters',
    'imgaug.augmentables',
    'imgaug.augmentables.lines',
    'imgaug.augmentables.segmaps',
)
"""What the transform imports, packages before what is in them."""


class DeferredModule(ModuleType):
    """A module of functions, each of which imports the real one of its name once it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(import_module(self.__name__), name)(*args, **kwargs)

        return call


@contextmanager
def defer_imgaug() -> Iterator[None]:
    """Have imports of imgaug give a stand-in; afterwards, and where it is there, they are real."""
    if 'imgaug' in sys.modules:
        yield
        return
    for name in MODULES:
        sys.modules[name] = module = DeferredModule(name)
        package, _, child = name.rpartition('.')
        if package:
            setattr(sys.modules[package], child, module)
    try:
        yield
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)
