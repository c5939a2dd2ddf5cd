"""What differs between the two stacks, and what stands in for packages that are missing.

This is the only package of mmresnest that patches anything of another project. Nothing is patched
before it is used: :func:`install` only puts three finders on ``sys.meta_path``, so ``import
mmresnest`` imports neither torch nor mmengine.

Imports security, utils, and the reading of annotation files in data.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from . import patches, warnings
from .mmcv_ext import ExtFinder
from .panopticapi import PanopticFinder


class PatchFinder(MetaPathFinder):
    """Find a module that :mod:`.patches` names by the other finders, and patch it once it ran."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as without us, and patch it after its loader."""
        if name not in patches.PATCHES and name not in patches.CONTEXTS:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, 'find_spec'):  # importlib skips such, too
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = PatchLoader(spec.loader)
                return spec
        return None


class PatchLoader(Loader):
    """Run another loader, and a patch after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the making of the module to the other loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then its patch. It keeps the other loader: inspect asks for that."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        name = module.__name__
        with patches.CONTEXTS.get(name, nullcontext)():
            self.loader.exec_module(module)
        if name in patches.PATCHES:
            patches.PATCHES[name](module)


def install() -> None:
    """Put the patches, the stand-ins for missing packages and the log filters in place, once."""
    if any(isinstance(finder, PatchFinder) for finder in sys.meta_path):
        return
    warnings.install()
    sys.meta_path.insert(0, PatchFinder())
    sys.meta_path.append(PanopticFinder())  # last, so that a real one wins
    sys.meta_path.append(ExtFinder())
    for name, patch in patches.PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
