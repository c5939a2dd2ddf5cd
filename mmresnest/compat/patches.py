"""Patches of the mm libraries, each beside its reason.

A patch is a function of the module that it changes. :mod:`mmresnest.compat` calls it right after
that module was first imported. Nothing here imports torch, numpy or an mm library at module level.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UserError, nearest
from .coco_files import patch_coco_api
from .hub import patch_hub
from .imgaug import defer_imgaug
from .readers import (
    patch_checkpoint_loader,
    patch_mmseg_pickles,
    patch_openimages,
    patch_pickle_handler,
    patch_registries,
    patch_resume,
    patch_yaml_handler,
)
from .warnings import filter_log_lines


def replace_everywhere(module: ModuleType, name: str, new: Any) -> None:
    """Set ``module.name``, and the copies that already imported mm modules hold of it."""
    old = getattr(module, name)
    for other in list(sys.modules.values()):
        if getattr(other, '__name__', '').startswith('mm') and vars(other).get(name) is old:
            setattr(other, name, new)


def patch_module2package(module: ModuleType) -> None:
    """Make mmresnest known by name and, on the onedl stack, let ``'mmseg::...'`` be found.

    mmengine knows the packages whose configs may be inherited from a closed table, and asks for the
    *distribution* of that table: 'mmsegmentation', which the fork names 'onedl-mmsegmentation'.
    """
    table = module.MODULE2PACKAGE
    table.setdefault('mmresnest', 'mmresnest')
    for name, distribution in table.items():
        if name != distribution and not is_distribution(distribution) and util.find_spec(name):
            table[name] = name


def patch_configs(module: ModuleType) -> None:
    """Patch the module of ``Config``."""
    patch_config_lookup(module)
    cache_pretty_text(module)


def patch_config_lookup(module: ModuleType) -> None:
    """Let ``_base_ = 'mmresnest::faster_rcnn_resnest50_fpn.py'`` be found and built.

    mmengine wants a folder in such a path, and our configs lie flat. It also marks every part of
    what is inherited with the package's scope, but ours name mmdet's and mmseg's parts, in the
    scope that the config itself declares.

    For a path such as ``'mmdet::faster_rcnn/...'``, which says where the file is, it reads hundreds
    of metafiles in YAML before it looks there.
    """
    theirs = module.Config._get_cfg_path

    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition('::')
        if not separator:
            return theirs(cfg_path, filename)
        if package != 'mmresnest':
            file = find_file(cfg_path)
            return theirs(cfg_path, filename) if file is None else (file, package)
        folder = Path(__file__).parents[1] / '.mim' / 'configs'
        if not (folder / name).is_file():
            legal = [path.name for path in folder.glob('*.py')]
            raise UserError(
                f'{filename} inherits from {cfg_path}, but mmresnest has no such '
                f'config; {nearest(name, legal)}',
                code='config.base-missing',
            )
        return str(folder / name), None

    def find_file(cfg_path: str) -> str | None:
        try:
            package, name = module._get_package_and_cfg_path(cfg_path)
            file = os.path.join(module.get_installed_path(package), '.mim', 'configs', name)
        except (ImportError, ValueError, RuntimeError):  # mmengine says what is wrong
            return None
        return file if os.path.isfile(file) else None

    module.Config._get_cfg_path = staticmethod(_get_cfg_path)


MOST_TEXTS = 8  # formatted texts that are kept


def cache_pretty_text(module: ModuleType) -> None:
    """Have the text of a config formatted once: yapf takes 0.3 s, for each checkpoint anew."""
    formatted = module.Config.pretty_text.fget
    known: dict[tuple[str, bool], str] = {}

    def pretty_text(self: Any) -> str:
        """Get formatted python config text."""
        key = repr(self.to_dict()), self._format_python_code
        text = known.get(key)
        if text is None:
            text = formatted(self)
            while len(known) >= MOST_TEXTS:
                known.pop(next(iter(known)), None)
            known[key] = text
        return text

    module.Config.pretty_text = property(pretty_text)


def is_distribution(name: str) -> bool:
    """Return whether pip knows a distribution of this name."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def patch_package_utils(module: ModuleType) -> None:
    """Replace what mmengine 0.10.7 asks of pkg_resources, which setuptools 82 no longer has.

    pkg_resources would also place an editable install in site-packages, where its configs are not.
    """
    if 'pkg_resources' in module.is_installed.__code__.co_names:
        for function in (is_installed, get_installed_path, package2module):
            replace_everywhere(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Return whether a distribution or an importable package of this name is there."""
    return is_distribution(package) or _package_folder(package) is not None


def get_installed_path(package: str) -> str:
    """Return the folder of a package, named by its distribution or as it is imported.

    Raises:
        PackageNotFoundError: neither is installed (an ImportError).
        RuntimeError: it is a namespace package, which has no one folder.
    """
    folder = _package_folder(package) or _package_folder(package2module(package))
    if folder is None:
        raise RuntimeError(f'{package} is a namespace package: it has no folder of its own')
    return folder


def package2module(package: str) -> str:
    """Return the name under which a distribution is imported.

    Raises:
        PackageNotFoundError: no such distribution is installed (an ImportError).
    """
    names = (metadata.distribution(package).read_text('top_level.txt') or '').split()
    if not names:
        raise ValueError(f'{package} does not say under which name it is imported')
    return names[0]


def _package_folder(module: str) -> str | None:
    try:
        spec = util.find_spec(module)
    except ValueError:  # in sys.modules without a spec, as a test double may be
        return None
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else None


def patch_save_checkpoint(module: ModuleType) -> None:
    """Have whatever saves a checkpoint do so through :mod:`mmresnest.utils.files`.

    mmengine pickles it into memory, which doubles it there, and writes that over the old file: a
    process that is killed or a disk that is full leaves neither of the two.
    """
    theirs = module.save_checkpoint

    def save_checkpoint(
        checkpoint: Any,
        filename: Any,
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        backend = (backend_args or file_client_args or {}).get('backend', 'local')
        if backend not in ('local', 'disk') or '://' in str(filename):
            theirs(checkpoint, filename, file_client_args, backend_args)
            return
        import torch

        from ..utils.files import write_hashed

        write_hashed(filename, lambda file: torch.save(checkpoint, file))

    replace_everywhere(module, 'save_checkpoint', save_checkpoint)


def patch_checkpoints(module: ModuleType) -> None:
    """Patch the reading and writing of checkpoints."""
    patch_checkpoint_loader(module)
    patch_save_checkpoint(module)


def patch_checkpoint_progress(module: ModuleType) -> None:
    """Have FlexibleRunner note in a checkpoint the epoch and iteration that it is told.

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


def patch_flexible_runner(module: ModuleType) -> None:
    """Patch saving and resuming under FlexibleRunner."""
    patch_checkpoint_progress(module)
    patch_resume(module)


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    'mmdet.datasets.openimages': patch_openimages,
    'mmdet.datasets.api_wrappers.coco_api': patch_coco_api,
    'mmengine.config.config': patch_configs,
    'mmengine.config.utils': patch_module2package,
    'mmengine.fileio.handlers.pickle_handler': patch_pickle_handler,
    'mmengine.fileio.handlers.yaml_handler': patch_yaml_handler,
    'mmengine.hub.hub': patch_hub,
    'mmengine.logging.logger': filter_log_lines,
    'mmengine.registry.registry': patch_registries,
    'mmengine.runner._flexible_runner': patch_flexible_runner,
    'mmengine.runner.checkpoint': patch_checkpoints,
    'mmengine.runner.runner': patch_resume,
    'mmengine.utils.package_utils': patch_package_utils,
    'mmseg.utils.io': patch_mmseg_pickles,
}
"""Module of another project -> the patch of it."""

CONTEXTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    'mmdet.datasets.transforms.generate_line': defer_imgaug
}
"""Module of another project -> what it is run in."""
