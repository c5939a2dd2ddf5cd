"""ResNeSt, Res2Net, SE-ResNeXt and ResNeXt as one residual trunk, for mmdet and mmseg.

Importing this package imports neither torch nor any mm library. It does put the repairs of
:mod:`mmresnest.compat` in place, so it is what a script imports before it reads a config.
"""

from typing import TYPE_CHECKING, Any

from . import compat
from .version import __version__

if TYPE_CHECKING:
    from .inference.predictor import Predictor
    from .models.factory import build_backbone, list_archs

__all__ = ['Predictor', '__version__', 'build_backbone', 'list_archs']

compat.install()


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and with it torch; for ``Predictor`` also mmengine."""
    if name == 'Predictor':
        from .inference.predictor import Predictor

        return Predictor
    if name not in ('build_backbone', 'list_archs'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .models import factory

    return getattr(factory, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
