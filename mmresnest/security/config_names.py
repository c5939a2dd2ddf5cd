"""What a config may name, and so import or call, where it is a stranger's.

mmengine imports the package before the dot of a ``type``, and what no registry has it takes for a
module and what is in it: ``dict(type='os.system', command=...)``. So a ``type`` may name what the
registries of six packages have, and nothing that evaluates its arguments. ``custom_imports`` may
name modules of those packages.

Other settings name a program, a module or a folder to delete by other keys. They were found by
going through what ``Runner.from_cfg`` and the registered classes of the mm libraries read:
:data:`CHECKS` has them, each with its reason.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError
from ..utils.env import SAFE, is_on

SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmresnest')
"""The packages that a config read as data may name, and so import."""

EVALUATING = ('CameraMotionCompensation', 'RFSearchHook')
"""Registered names whose classes hand arguments to eval()."""


def configs_are_data() -> bool:
    """Return whether the user asked for it, by ``--safe-config`` or by the environment."""
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
    """Refuse what would import, evaluate, start or delete something when it is built."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            check_names(item, f'{where}: {number}')
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        # mmengine writes the config out without escaping keys: one with a quote would be a program
        # in the copy that the work folder keeps.
        if isinstance(key, str) and re.search(r'[\'\\\x00-\x1f\x7f]', key):
            raise _refusal(
                where, f'the key {key!r:.80} has a quote, backslash or control character'
            )
        if key == 'type' and isinstance(item, str):
            _check_type(item, where)
        wrong = CHECKS[key](item, value) if key in CHECKS else None
        if wrong:
            raise _refusal(where, f'{key}={item!r:.80} {wrong}')
        check_names(item, f'{where}: {key}')


def _refusal(where: str, what: str) -> UserError:
    return UserError(
        f'{where}: {what}, and the config is read as data; if you trust the config, leave '
        '--safe-config out',
        code='config.unsafe',
    )


def _check_scope(item: Any, owner: Mapping) -> str | None:
    known = item is None or item in SCOPES
    return None if known else f'would import that package; accepted: {", ".join(SCOPES)}'


# fmt: off
COMPILE = {
    'backend': ('inductor', 'eager', 'aot_eager', 'cudagraphs'),
    'mode': (None, 'default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs'),
    'fullgraph': (True, False),
    'dynamic': (True, False, None),
    'disable': (True, False),
}
"""Arguments of ``torch.compile`` that name no program, and their values."""

TRACKER_ARGUMENTS = (
    'project', 'name', 'group', 'job_type', 'tags', 'notes', 'entity', 'id', 'mode', 'resume',
    'project_name', 'task_name', 'description', 'dir', 'allow_val_change',
)
"""Arguments of experiment trackers that name no program and no key of an account."""
# fmt: on


def _check_compile(item: Any, owner: Mapping) -> str | None:
    # The options of inductor name the C++ compiler, which is started.
    wanted = item if isinstance(item, dict) else {}
    if not isinstance(item, (dict, bool, type(None))) or any(
        not any(value is legal or value == legal for legal in COMPILE.get(name, ()))
        for name, value in wanted.items()
    ):
        legal = '; '.join(f'{name}: {", ".join(map(str, COMPILE[name]))}' for name in COMPILE)
        return f'may start programs; accepted are True, False, and a dict of {legal}'
    return None


def _check_tracker(item: Any, owner: Mapping) -> str | None:
    # wandb's settings name an executable, neptune's and others' the server.
    unknown = [name for name in item if name not in TRACKER_ARGUMENTS] if item else []
    accepted = ', '.join(TRACKER_ARGUMENTS)
    return f'has {unknown[0]!r:.40}; accepted: {accepted}' if unknown else None


def _check_import_path(item: Any, owner: Mapping) -> str | None:
    return None if item is None else 'would import modules of that folder'


def _check_remote_code(item: Any, owner: Mapping) -> str | None:
    return 'would run a program from the net' if item else None


def _check_meeting_point(item: Any, owner: Mapping) -> str | None:
    legal = item is None or item == 'env://'
    return None if legal else 'would connect to another machine; accepted: env://'


def _check_destination(item: Any, owner: Mapping) -> str | None:
    # mlflow's and aim's servers, and where hooks copy logs and weights to.
    return 'would send results to another machine' if '://' in str(item) else None


def _check_gathering_folder(item: Any, owner: Mapping) -> str | None:
    return None if item is None else 'is a folder that is deleted once results were gathered'


def _check_deleted_folder(item: Any, owner: Mapping) -> str | None:
    # mmdet's two delete the folder before they write it, mmseg's afterwards.
    kind = str(owner.get('type')).rpartition('.')[2]
    if item is None or kind not in ('CityScapesMetric', 'CityscapesMetric', 'MOTChallengeMetric'):
        return None
    parts = os.path.normpath(os.path.expanduser(str(item))).split(os.sep)
    if parts[0] in ('', '.', '..') or (parts[0] != 'work_dirs' and os.path.lexists(str(item))):
        return 'is a folder that would be deleted; accepted are new ones below the current folder'
    return None


def _check_strategy_file(item: Any, owner: Mapping) -> str | None:
    named = isinstance(item, str) and str(owner.get('type')).endswith('Strategy')
    return 'is a file of settings that is not looked at; write them out' if named else None


CHECKS: Mapping[str, Callable[[Any, Mapping], str | None]] = {
    '_scope_': _check_scope,
    'default_scope': _check_scope,
    'compile': _check_compile,
    'init_kwargs': _check_tracker,
    'sys_path': _check_import_path,
    'trust_remote_code': _check_remote_code,
    'init_method': _check_meeting_point,
    'tracking_uri': _check_destination,
    'repo': _check_destination,
    'out_dir': _check_destination,
    'collect_dir': _check_gathering_folder,
    'outfile_prefix': _check_deleted_folder,
    'output_dir': _check_deleted_folder,
    'config': _check_strategy_file,
}
"""Key of a setting -> what is wrong with its value, beside the other settings of its dictionary."""


def _check_type(name: str, where: str) -> None:
    scope, dot, rest = name.rpartition('.')
    if not re.fullmatch(r'\w+', rest) or (dot and scope not in SCOPES) or rest in EVALUATING:
        known = ', '.join(SCOPES)
        what = f'type={name!r:.80} is no name of a registry of {known} that takes data only'
        raise _refusal(where, what)
