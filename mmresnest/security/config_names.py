"""What a config may name, and so import or call, where it is a stranger's.

mmengine imports the package before the dot of a ``type``, and what no registry has it takes for a
module and what is in it: ``dict(type='os.system', command=...)``. So a ``type`` may name what the
registries of six packages have, and nothing that evaluates its arguments. ``custom_imports`` may
name modules of those packages.
"""

import re
from typing import Any

from ..errors import UserError
from ..utils.env import SAFE, is_on

SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmresnest')
"""The packages that a config read as data may name, and so import."""

EVALUATING = ('CameraMotionCompensation', 'RFSearchHook')
"""Registered names whose classes hand arguments to eval()."""


def configs_are_data() -> bool:
    """Whether the user asked for it, by ``--safe-config`` or by the environment."""
    return is_on(SAFE)


def import_packages(wanted: Any, where: str) -> None:
    """Import what the config asks for, of the packages whose registries it may name."""
    names = wanted.get('imports') if isinstance(wanted, dict) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and name.partition('.')[0] in SCOPES for name in names
    ):
        raise UserError(
            f'{where}: custom_imports would import {names!r:.80}, and the config is '
            f'read as data; accepted are modules of {", ".join(SCOPES)}: look at that '
            'code, and leave --safe-config out if you trust it',
            code='config.unsafe',
        )
    from mmengine.utils import import_modules_from_strings

    try:
        import_modules_from_strings(list(names), bool(wanted.get('allow_failed_imports')))
    except ImportError as error:
        raise UserError(
            f'{where}: custom_imports cannot be imported: {error}', code='package.broken'
        ) from error


def check_names(value: Any, where: str) -> None:
    """Refuse what would import or evaluate code when something is built of it."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            check_names(item, f'{where}: {number}')
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in ('_scope_', 'default_scope') and item is not None and item not in SCOPES:
            raise UserError(
                f'{where}: {key}={item!r:.80} would import that package, and the '
                f'config is read as data; accepted: {", ".join(SCOPES)}',
                code='config.unsafe',
            )
        if key == 'type' and isinstance(item, str):
            _check_type(item, where)
        check_names(item, f'{where}: {key}')


def _check_type(name: str, where: str) -> None:
    scope, dot, rest = name.rpartition('.')
    if not re.fullmatch(r'\w+', rest) or (dot and scope not in SCOPES) or rest in EVALUATING:
        raise UserError(
            f'{where}: type={name!r:.80} is no name of a registry of '
            f'{", ".join(SCOPES)} that takes data only, and the config is read as '
            'data; if you trust the config, leave --safe-config out',
            code='config.unsafe',
        )
