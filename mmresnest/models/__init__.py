"""The networks: blocks, trunk, variants, weights, fast forms, and their registered names.

A config names the networks as ``mmresnest.ResNeSt``; Python finds the classes here. All of this
folder but :mod:`.backbones` and :mod:`.heads` needs torch alone, so the registered classes, which
need mmengine and mmcv, are imported when they are asked for.

Imports utils, security and registry; neither mmdet, mmseg, data nor engine.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Import the registered classes when one of them is asked for."""
    if name[:1].isupper():  # a class; the import system asks for modules here, too
        return getattr(import_module('.backbones', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
