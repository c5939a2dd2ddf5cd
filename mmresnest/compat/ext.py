"""The stand-in for mmcv's compiled module ``mmcv._ext``.

mmcv's Python side asks its compiled module for functions by name, at import; without the module
``import mmcv.ops`` fails, and mmdet and mmseg with it.  Where nobody has compiled it, this finder
provides a module of the same name: the operators of ``ops`` under their names, and under every
other name a function that says, once called, what is missing and where to get it.

The finder stands at the end of ``sys.meta_path``, after the one that looks into directories, so a
compiled ``mmcv._ext`` is always found first.
"""
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Callable, Optional, Sequence

from ..errors import UserError

NAME = 'mmcv._ext'


class ExtFinder(MetaPathFinder):
    """Finds the stand-in; append an instance to ``sys.meta_path``, never put it before others."""

    def find_spec(self, fullname: str, path: Optional[Sequence[str]] = None,
                  target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        """The spec of the stand-in, for its one name."""
        if fullname != NAME:
            return None
        return spec_from_loader(fullname, ExtLoader(), origin='mmresnest.compat.ext')


class ExtLoader(Loader):
    """Fills the stand-in; torch is imported here and not before."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Puts the operators and the refusals in place."""
        from .ops import TABLE
        module.__doc__ = 'Stand-in for the compiled operators of mmcv, by mmresnest.'
        vars(module).update(TABLE, __getattr__=missing,
                            get_compiler_version=lambda: 'none (mmresnest stand-in)',
                            get_compiling_cuda_version=lambda: 'none (mmresnest stand-in)')


def missing(name: str) -> Callable:
    """The module's ``__getattr__``: a function that refuses, since mmcv asks with ``hasattr``."""
    if name.startswith('_'):
        raise AttributeError(f'module {NAME!r} has no attribute {name!r}')

    def refuse(*args: object, **kwargs: object) -> None:
        raise UserError(f'the operator {name!r} needs compiled mmcv')

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


def is_stand_in() -> bool:
    """Whether ``mmcv._ext`` is this stand-in."""
    import importlib
    module = sys.modules.get(NAME) or importlib.import_module(NAME)
    return isinstance(getattr(module.__spec__, 'loader', None), ExtLoader)
