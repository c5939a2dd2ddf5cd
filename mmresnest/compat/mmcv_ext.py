"""Stand in for mmcv's compiled module ``mmcv._ext``.

mmcv's Python side asks its compiled module for functions by name, at import; without the module
``import mmcv.ops`` fails, and mmdet and mmseg with it.  Where nobody has compiled it, this finder
provides a module of the same name: the operators of :mod:`.ops` under their names, and under every
other name a function that says, once called, what is missing and where to get it.

The finder stands at the end of ``sys.meta_path``, after the one that looks into directories, so a
compiled ``mmcv._ext`` is always found first.  Importing this module imports no torch.
"""

import importlib
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

from ..errors import UserError

NAME = 'mmcv._ext'

# How to get the compiled module, by the distribution that mmcv came from. Wheels are built against
# one version of torch; for any other the source is compiled, which needs setuptools that still has
# pkg_resources.
COMPILE = (
    'else try to compile it against the torch that is installed, with a C++ compiler and '
    "about half an hour on two cores: `pip install 'setuptools<81' wheel ninja && "
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary {0} --no-deps '
    '--force-reinstall {0}=={1}`'
)
ADVICE = {
    'onedl-mmcv': (
        'if torch {torch} and this Python are among the wheels of https://mmwheels.onedl.ai: '
        '`pip install onedl-mim && mim install onedl-mmcv`; '
    ),
    'mmcv': (
        'for torch 2.1 and older (here it is {torch}) there are wheels: '
        "`pip install openmim && mim install 'mmcv>=2.0.0rc4,<2.2.0'`; "
    ),
}


class ExtFinder(MetaPathFinder):
    """Find the stand-in; append an instance to ``sys.meta_path``, never put it before others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the stand-in, for its one name."""
        if fullname != NAME:
            return None
        return spec_from_loader(fullname, ExtLoader(), origin=__name__)


class ExtLoader(Loader):
    """Fill the stand-in; torch is imported here and not before."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the operators and the refusals in place."""
        from .ops import TABLE

        module.__doc__ = 'Stand-in for the compiled operators of mmcv, by mmresnest.'
        vars(module).update(
            TABLE,
            __getattr__=make_refusal,
            get_compiler_version=describe_compiler,
            get_compiling_cuda_version=describe_compiler,
        )


def describe_compiler() -> str:
    """Return what reports of the environment say of the compiler of the ops."""
    return 'none: PyTorch operators of mmresnest'


def make_refusal(name: str) -> Callable:
    """Return a function that refuses; the module's ``__getattr__``.

    mmcv asks with ``hasattr`` for every operator that it could ever use, so a name must exist even
    where it can do nothing; only private names do not.
    """
    if name.startswith('_'):
        raise AttributeError(f'module {NAME!r} has no attribute {name!r}')

    def refuse(*args: object, **kwargs: object) -> None:
        raise UserError(
            f'mmcv was installed without compiled operators, and {name!r} is none of those that '
            'mmresnest provides in their place. To get it, install compiled mmcv: '
            f'{install_advice()}',
            code='package.no-operator',
        )

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


def install_advice() -> str:
    """Return how to install compiled mmcv in place of the one that is installed."""
    import torch

    for distribution in ('onedl-mmcv', 'mmcv-lite', 'mmcv'):
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        source = distribution.removesuffix('-lite')
        first = '' if source == distribution else f'`pip uninstall {distribution}`, then '
        return first + (ADVICE[source] + COMPILE).format(source, version, torch=torch.__version__)
    return 'see https://mmcv.readthedocs.io/en/latest/get_started/build.html'


def operator_sources() -> dict[str, str]:
    """Return which implementation each operator uses here.

    Returns:
        by name of the operator: ``'compiled mmcv'``, ``'torchvision'`` or ``'torch'``.

    Raises:
        ImportError: there is no mmcv, or its compiled module does not load with this torch.
    """
    from .ops import TABLE, torchvision

    module = importlib.import_module(NAME)
    if not is_stand_in(module):
        return dict.fromkeys(TABLE, 'compiled mmcv')
    return {
        name: 'torchvision' if torchvision.replaces_mmcv_op(name) else 'torch' for name in TABLE
    }


def is_stand_in(module: ModuleType) -> bool:
    """Return whether a module named ``mmcv._ext`` is this one, not a compiled one."""
    return isinstance(getattr(module.__spec__, 'loader', None), ExtLoader)
