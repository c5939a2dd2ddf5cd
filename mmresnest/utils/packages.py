"""Packages that extras of ours bring, and that need not be there."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import UserError


def import_optional(package: str, extra: str) -> Any:
    """Import a package that an extra of ours brings.

    Raises:
        UserError: it is not installed, or it cannot be imported beside this torch.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f'the package {error.name!r} is not installed: pip install "mmresnest[{extra}]"',
            code='package.missing',
        ) from error
    except Exception as error:  # of whatever it imports, as torchvision without its operators
        release = getattr(sys.modules.get('torch'), '__version__', 'as it is installed')
        raise UserError(
            f'the package {package!r} cannot be imported ({type(error).__name__}: {error}). It and '
            f'what it imports, as torchvision, have to be built for torch {release}: '
            f'pip install --force-reinstall torch "mmresnest[{extra}]" takes all from one index',
            code='package.broken',
        ) from error


def require_packages(what: str, extra: str, *packages: str) -> None:
    """Refuse what needs packages that are not installed, before it takes its time.

    Args:
        what: is refused, as a message begins with it.
        extra: of ours, that brings them.
        packages: their names.

    Raises:
        UserError: with those that are missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f'{what} needs {" and ".join(missing)}: pip install "mmresnest[{extra}]"',
            code='package.missing',
        )
