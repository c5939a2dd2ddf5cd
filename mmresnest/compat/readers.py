"""Patches of the mm libraries by which all that they read goes through :mod:`mmresnest.security`.

Each is a function of the module that it patches, see :data:`.patches.PATCHES`.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from types import ModuleType, SimpleNamespace
from typing import IO, Any

from ..security import data_files, torch_load
from ..security.config_names import SCOPES, configs_are_data
from ..security.resume import check_progress, drop_paths_outside_work_dir, explain_resume_errors


def patch_checkpoint_loader(module: ModuleType) -> None:
    """Have every loader of mmengine read data only, and read mmengine's own checkpoints."""
    import torch

    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        return  # no list of names to bind; `mmresnest doctor` warns of such a torch
    loader = module.CheckpointLoader
    unguarded = loader.load_checkpoint.__func__

    def load_checkpoint(cls: type, filename: str, *args: Any, **kwargs: Any) -> Any:
        # Trust is for files of one's own.
        if not torch_load.trusts_checkpoints() or '://' in str(filename):
            with torch_load.read_weights_only(filename), _check_before_load(str(filename)):
                checkpoint = unguarded(cls, filename, *args, **kwargs)
                return torch_load.finish_checkpoint(checkpoint, str(filename))
        with torch_load.read_any_object():
            return unguarded(cls, filename, *args, **kwargs)

    loader.load_checkpoint = classmethod(load_checkpoint)
    if hasattr(module, '_safe_torch_load'):
        vars(module)['_safe_torch_load'] = _load_once


def _load_once(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Stand in for the fork's loader, which retries without restriction what was just refused."""
    import torch

    return torch.load(file, map_location=map_location, weights_only=weights_only)


@contextmanager
def _check_before_load(name: str) -> Iterator[None]:
    """Have ``torch.load`` read only what claims no more than it has."""
    import torch

    load = torch.load

    def load_checked(file: Any, *args: Any, **kwargs: Any) -> Any:
        torch_load.check_checkpoint(file, name)
        return load(file, *args, **kwargs)

    # torch.hub would unpack an archive of one file, whatever its size, onto the disk.
    with (
        _swap(torch, 'load', load_checked),
        _swap(torch.hub, '_is_legacy_zip_format', lambda _: False),
    ):
        yield


@contextmanager
def _swap(module: ModuleType, name: str, new: Any) -> Iterator[None]:
    old = vars(module)[name]
    vars(module)[name] = new
    try:
        yield
    finally:
        vars(module)[name] = old


def patch_resume(module: ModuleType) -> None:
    """Have the runners refuse damaged checkpoints, and forget files that are not theirs."""
    for name in ('Runner', 'FlexibleRunner'):
        kind = vars(module).get(name)
        if kind is not None and kind.__module__ == module.__name__:
            _patch_resume_of(kind)


def _patch_resume_of(kind: Any) -> None:
    theirs = kind.resume

    def resume(self: Any, *args: Any, **kwargs: Any) -> None:
        with explain_resume_errors(str(args[0] if args else kwargs.get('filename'))):
            theirs(self, *args, **kwargs)
            check_progress(self)
        drop_paths_outside_work_dir(self)

    kind.resume = resume


def patch_pickle_handler(module: ModuleType) -> None:
    """Have mmengine read containers, numbers, texts, arrays and tensors, and nothing else."""
    theirs = module.PickleHandler.load_from_fileobj

    def load_from_fileobj(self: Any, file: IO[bytes], **kwargs: Any) -> Any:
        if torch_load.trusts_checkpoints():
            return theirs(self, file, **kwargs)
        return data_files.read_pickle(file)

    module.PickleHandler.load_from_fileobj = load_from_fileobj


def patch_yaml_handler(module: ModuleType) -> None:
    """Have mmengine read plain yaml."""
    vars(module)['Loader'] = data_files.safe_yaml_loader(vars(module)['yaml'])


def patch_mmseg_pickles(module: ModuleType) -> None:
    """Have mmseg read pickled images as data."""
    theirs = pickle.loads

    def loads(content: bytes) -> Any:
        if torch_load.trusts_checkpoints():
            return theirs(content)
        return data_files.read_pickle(BytesIO(content))

    vars(module)['pickle'] = SimpleNamespace(loads=loads)


def patch_openimages(module: ModuleType) -> None:
    """Have mmdet read the hierarchy of OpenImages, which a config names, as data."""
    numpy = ModuleType('numpy')
    vars(numpy).update(vars(module)['np'].__dict__)
    theirs = vars(numpy)['load']

    def load(path: Any, **kwargs: Any) -> Any:
        trusted = torch_load.trusts_checkpoints()
        return theirs(path, **kwargs) if trusted else data_files.read_array(path)

    vars(numpy)['load'] = load
    vars(module)['np'] = numpy


def patch_registries(module: ModuleType) -> None:
    """Have registries neither import what a stranger's config names, nor find what is not theirs.

    A registry that has no ``'a.b'`` imports ``a.registry`` and, failing that, takes ``a.b`` for a
    module and what is in it: ``dict(type='os.system', command=...)`` is a program.
    """
    import_module, get_object = module.import_module, module.get_object_from_string

    def import_known(name: str, *args: Any) -> ModuleType:
        if configs_are_data() and name.partition('.')[0] not in SCOPES:
            raise ImportError(f'{name} is not imported for a config that is read as data')
        return import_module(name, *args)

    def get_object_from_string(name: str) -> Any:
        return None if configs_are_data() else get_object(name)

    vars(module).update(import_module=import_known, get_object_from_string=get_object_from_string)
