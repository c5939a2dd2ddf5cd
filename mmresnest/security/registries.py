"""What a ``type`` in a config may stand for, where the config is a stranger's."""

from types import ModuleType
from typing import Any

from ..utils.env import SAFE, is_on

SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmresnest')
"""The packages that a config read as data may name, and so import."""


def configs_are_data() -> bool:
    """Whether the user asked for it, by ``--safe-config`` or by the environment."""
    return is_on(SAFE)


def find_registered_names_only(module: ModuleType) -> None:
    """Has registries neither import what a stranger's config names, nor find what is not theirs.

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
