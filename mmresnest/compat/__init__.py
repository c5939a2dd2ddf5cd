"""What differs between the two stacks, and what stands in for packages that are missing.

This is the only package of mmresnest that patches anything of another project. Nothing is patched
before it is used: :func:`install` only puts three finders on ``sys.meta_path``, so ``import
mmresnest`` imports neither torch nor mmengine.

Imports security and utils.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from . import patches, warnings
from .mmcv_ext import ExtFinder
from .panopticapi import PanopticFinder


class RepairFinder(MetaPathFinder):
    """Lets the other finders find a module of :data:`stacks.REPAIRS`; it is mended once it ran."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds the module as without us, with the repair behind its loader."""
        if name not in patches.REPAIRS:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, 'find_spec'):  # importlib skips such, too
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = RepairLoader(spec.loader)
                return spec
        return None


class RepairLoader(Loader):
    """Another loader, and a repair after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leaves the making of the module to the other loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module, then its repair. It keeps the other loader: inspect asks for that."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        patches.REPAIRS[module.__name__](module)


def install() -> None:
    """Puts the repairs, the stand-ins for missing packages and our silence in place, once."""
    if any(isinstance(finder, RepairFinder) for finder in sys.meta_path):
        return
    warnings.install()
    sys.meta_path.insert(0, RepairFinder())
    sys.meta_path.append(PanopticFinder())  # last, so that a real one wins
    sys.meta_path.append(ExtFinder())
    for name, repair in patches.REPAIRS.items():
        if name in sys.modules:
            repair(sys.modules[name])
