"""What is mended in the mm libraries, each repair beside its reason.

A repair is a function of the module it mends. :mod:`mmresnest.compat` calls it right after that
module was first imported. Nothing here imports torch, numpy or an mm library at module level.
"""
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

from ..errors import UserError, nearest

TRUST = 'MMRESNEST_TRUST_CHECKPOINTS'
"""Environment variable: ``1`` lets checkpoints run the code they carry, in child processes too."""

YES = ('1', 'y', 'yes', 'true')  # the spellings torch accepts for its own two variables


def replace(module: ModuleType, name: str, new: Any) -> None:
    """Sets ``module.name``, and the copies that already imported mm modules hold of it."""
    old = getattr(module, name)
    for other in list(sys.modules.values()):
        if getattr(other, '__name__', '').startswith('mm') and vars(other).get(name) is old:
            setattr(other, name, new)


# Configs by name ---------------------------------------------------------------------------------


def name_packages(module: ModuleType) -> None:
    """Makes mmresnest known by name and, on the onedl stack, lets ``'mmseg::...'`` be found.

    mmengine knows the packages whose configs may be inherited from a closed table, and asks for the
    *distribution* of that table: 'mmsegmentation', which the fork names 'onedl-mmsegmentation'.
    """
    table = module.MODULE2PACKAGE
    table.setdefault('mmresnest', 'mmresnest')
    for name, distribution in table.items():
        if name != distribution and not is_distribution(distribution) and util.find_spec(name):
            table[name] = name


def find_our_configs(module: ModuleType) -> None:
    """Lets ``_base_ = 'mmresnest::faster_rcnn_resnest50_fpn.py'`` be found and built.

    mmengine wants a folder in such a path, and our configs lie flat. It also marks every part of
    what is inherited with the package's scope, but ours name mmdet's and mmseg's parts, in the
    scope that the config itself declares.
    """
    theirs = module.Config._get_cfg_path

    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition('::')
        if not separator or package != 'mmresnest':
            return theirs(cfg_path, filename)
        folder = Path(__file__).parents[1] / '.mim' / 'configs'
        if not (folder / name).is_file():
            legal = [path.name for path in folder.glob('*.py')]
            raise UserError(f'{filename} inherits from {cfg_path}, but mmresnest has no such '
                            f'config; {nearest(name, legal)}')
        return str(folder / name), None

    module.Config._get_cfg_path = staticmethod(_get_cfg_path)


def is_distribution(name: str) -> bool:
    """Whether pip knows a distribution of this name."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


# Packages without pkg_resources ------------------------------------------------------------------


def find_packages_without_setuptools(module: ModuleType) -> None:
    """Replaces what mmengine 0.10.7 asks of pkg_resources, which setuptools 82 no longer has.

    pkg_resources would also place an editable install in site-packages, where its configs are not.
    """
    if 'pkg_resources' in module.is_installed.__code__.co_names:
        for function in (is_installed, get_installed_path, package2module):
            replace(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Whether a distribution or an importable package of this name is there."""
    return is_distribution(package) or _folder(package) is not None


def get_installed_path(package: str) -> str:
    """The folder of a package, named by its distribution or as it is imported.

    Raises:
        PackageNotFoundError: neither is installed (an ImportError).
        RuntimeError: it is a namespace package, which has no one folder.
    """
    folder = _folder(package) or _folder(package2module(package))
    if folder is None:
        raise RuntimeError(f'{package} is a namespace package: it has no folder of its own')
    return folder


def package2module(package: str) -> str:
    """The name under which a distribution is imported.

    Raises:
        PackageNotFoundError: no such distribution is installed (an ImportError).
    """
    names = (metadata.distribution(package).read_text('top_level.txt') or '').split()
    if not names:
        raise ValueError(f'{package} does not say under which name it is imported')
    return names[0]


def _folder(module: str) -> str | None:
    try:
        spec = util.find_spec(module)
    except ValueError:  # in sys.modules without a spec, as a test double may be
        return None
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else None


# Checkpoints that run no code --------------------------------------------------------------------
#
# A checkpoint is a pickle, and an unrestricted pickle runs whatever code its author put in it.
# torch>=2.6 refuses every global that is not on a list. mmengine's own checkpoints need three
# that are not: HistoryBuffer, numpy's arrays, and `getattr`, by which pickle names methods.
#
# mmengine 0.10.7 lists none of them and cannot resume. The fork lists the real ones, and where
# even those do not suffice loads without restriction. Both are open doors: with the real `getattr`
# a pickle reaches `eval` through `getattr.__self__`, and a pickled dtype may claim that an array
# of numbers is one of object pointers (tests/test_compat.py does the former). So the names are
# bound to the few lines below, which understand what mmengine writes and nothing else.


class _StandIn:
    """What a name on the list builds while torch reads; :func:`_settle` takes its ``value``."""

    value: Any = None


class _Dtype(_StandIn):
    """``numpy.dtype`` of numbers, booleans and text of fixed length, never of objects."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        import numpy as np
        if not (isinstance(code, str) and re.fullmatch(r'[biufcSU]\d{1,4}', code)):
            raise UnpicklingError(f'Unsupported numpy dtype {code!r}')
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[2:5] != (None, None, None):
            raise UnpicklingError(f'Unsupported numpy dtype state {state!r}')
        self.value = self.value.newbyteorder(state[1])

    def read(self, data: bytes) -> Any:
        """The flat array that these bytes are."""
        import numpy as np
        return np.frombuffer(data, self.value).copy()


class _Array(_StandIn):
    """``numpy.ndarray``."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, data = state
        self.value = dtype.read(data).reshape(shape, order='F' if columns_first else 'C')


class _History(_StandIn):
    """mmengine's ``HistoryBuffer``."""

    def __setstate__(self, state: dict) -> None:
        from mmengine.logging import HistoryBuffer
        self.value = HistoryBuffer(state['_log_history'].value, state['_count_history'].value,
                                   state['max_length'])


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    if kind is not _Array:
        raise UnpicklingError(f'Unsupported kind of array {kind!r}')
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return dtype.read(data)[0]


def _getattr(owner: Any, name: str) -> None:
    # HistoryBuffer carries its methods in its state by name. They are those of its class, which
    # the rebuilt one has anyway, so nothing need be looked up.
    if owner is not _History:
        raise UnpicklingError(f'Unsupported global: GLOBAL getattr of {owner!r}')


def _no_bytes() -> bytes:
    # How pickle's protocol 2, which torch.save writes, says b'': the data of an empty array.
    return b''


READABLE: dict[str, Callable] = {
    'builtins.bytes': _no_bytes,
    'builtins.getattr': _getattr,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.core.multiarray._reconstruct': _reconstruct,  # as numpy 1 wrote them
    'numpy.core.multiarray.scalar': _scalar,
}
"""What may stand in a checkpoint beside torch's own list, and what each name is bound to."""


def _settle(value: Any) -> Any:
    """Puts the values in place of the stand-ins, in whatever a checkpoint nests them."""
    if isinstance(value, _StandIn):
        return value.value
    if isinstance(value, dict):  # in place: an OrderedDict of weights carries _metadata
        for key, item in value.items():
            value[key] = _settle(item)
        return value
    if type(value) in (list, tuple):
        return type(value)(map(_settle, value))
    return value


_lock = threading.RLock()  # the list of safe globals and the environment belong to the process
_trusting = threading.local()


@contextmanager
def trust_checkpoints() -> Iterator[None]:
    """Within it, checkpoints may hold any object, and so may run code: only for your own files."""
    before = getattr(_trusting, 'now', False)
    _trusting.now = True
    try:
        yield
    finally:
        _trusting.now = before


def trusts_checkpoints() -> bool:
    """Whether the user has opted in, by :func:`trust_checkpoints` or by the environment."""
    return getattr(_trusting, 'now', False) or any(
        os.environ.get(name, '').lower() in YES
        for name in (TRUST, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'))


@contextmanager
def _environment(name: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _weights_only(filename: str) -> Iterator[None]:
    """Refuses code in whatever ``torch.load`` reads within, and says so in a user's words."""
    from torch.serialization import safe_globals
    allowed: list = [(stand_in, name) for name, stand_in in READABLE.items()]
    try:
        # torch.hub asks for weights_only=False by name; only this variable overrules it.
        with _lock, safe_globals(allowed), _environment('TORCH_FORCE_WEIGHTS_ONLY_LOAD'):
            yield
    except (UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError,
            RuntimeError) as error:  # all of them met with files cut short or of another kind
        raise UserError(explain(filename, error)) from error


def explain(filename: str, error: Exception) -> str:
    """Tells a checkpoint that wants more than data from a file that is no checkpoint."""
    # torch's text is a paragraph of advice, and the reason on a line of its own, marked or not.
    reasons = str(error).partition('WeightsUnpickler error: ')[::2]
    reason = (reasons[1] or reasons[0]).strip().split('\n')[0] or type(error).__name__
    wanted = re.search(r'GLOBAL (\S+)', str(error))
    if wanted or 'Unsupported numpy' in reason or reason.startswith(('Can only', 'Trying to')):
        return (f'{filename} holds more than weights: {wanted.group(1) if wanted else reason}. '
                f'Loading that could run any code, so it was not loaded. Take the weights from '
                f'a source that stores nothing else; or, if you trust whoever made the file as '
                f'you trust a program of theirs, set {TRUST}=1')
    return (f'{filename} cannot be read as a PyTorch checkpoint ({reason.split(". ")[0]}); it may '
            f'be cut short or of another kind. Give a file that torch.save wrote')


def guard_checkpoints(module: ModuleType) -> None:
    """Makes every loader of mmengine read data only, and read mmengine's own checkpoints."""
    import torch
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        return  # no list of names to bind; `mmresnest doctor` warns of such a torch
    loader = module.CheckpointLoader
    unguarded = loader.load_checkpoint.__func__

    def load_checkpoint(cls: type, filename: str, *args: Any, **kwargs: Any) -> Any:
        if not trusts_checkpoints() or '://' in str(filename):     # trust is for files of one's own
            with _weights_only(filename):
                checkpoint = unguarded(cls, filename, *args, **kwargs)
            return _settle(checkpoint)
        with _lock, _environment('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'), warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # torch warns of what was just asked for
            return unguarded(cls, filename, *args, **kwargs)

    loader.load_checkpoint = classmethod(load_checkpoint)
    if hasattr(module, '_safe_torch_load'):
        replace(module, '_safe_torch_load', _load)


def _load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """In place of the fork's loader, which retries without restriction what was just refused."""
    import torch
    return torch.load(file, map_location=map_location, weights_only=weights_only)


# Resuming under FlexibleRunner --------------------------------------------------------------------


def keep_progress_of_checkpoints(module: ModuleType) -> None:
    """Has FlexibleRunner note in a checkpoint the epoch and iteration that it is told.

    It notes its own epoch plus one instead. CheckpointHook rewrites the newest checkpoint after an
    evaluation that was the best so far, when the epoch has been counted up already: a training
    resumed from that skips an epoch.
    """
    theirs = module.FlexibleRunner.save_checkpoint

    def save_checkpoint(self: Any, *args: Any, meta: dict | None = None, **kwargs: Any) -> None:
        told = {key: meta[key] for key in ('epoch', 'iter') if meta and key in meta}
        save = self.strategy.save_checkpoint

        def save_as_told(*args: Any, extra_ckpt: dict, **kwargs: Any) -> None:
            extra_ckpt['meta'].update(told)
            save(*args, extra_ckpt=extra_ckpt, **kwargs)

        self.strategy.save_checkpoint = save_as_told
        try:
            theirs(self, *args, meta=meta, **kwargs)
        finally:
            del self.strategy.save_checkpoint

    module.FlexibleRunner.save_checkpoint = save_checkpoint


# Noise -------------------------------------------------------------------------------------------


def quieten(module: ModuleType) -> None:
    """Drops the line that the fork prints twice for an optional service hardly anybody has.

    It is meant for the debug level, but is printed because no logger is named.
    """
    def print_unless_known(message: object) -> None:
        if not str(message).startswith('Could not import OneDL'):
            print(message)

    vars(module)['print'] = print_unless_known


REPAIRS: dict[str, Callable[[ModuleType], None]] = {
    'mmengine.config.config': find_our_configs,
    'mmengine.config.utils': name_packages,
    'mmengine.logging.logger': quieten,
    'mmengine.runner._flexible_runner': keep_progress_of_checkpoints,
    'mmengine.runner.checkpoint': guard_checkpoints,
    'mmengine.utils.package_utils': find_packages_without_setuptools,
}
"""Module of another project -> what mends it."""
