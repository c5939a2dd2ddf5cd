"""Refuse settings that nothing reads: ``--cfg-options model.backbone.depht=101``.

What a new key is set in decides. A dictionary with a ``type`` is read by the constructor of that
type, so that its arguments are legal. At the top, and in data loaders, mmengine reads certain keys.
Other dictionaries, such as ``model.test_cfg.rcnn``, are read somewhere in mmdet or mmseg: a new key
is taken, with a warning where it looks like one that is there.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError, close_to, nearest
from .inspect import import_packages, type_of
from .load import merge_options

TOP = {
    'auto_scale_lr',
    'compile',
    'custom_hooks',
    'custom_imports',
    'data_preprocessor',
    'default_hooks',
    'default_scope',
    'env_cfg',
    'experiment_name',
    'find_unused_parameters',
    'launcher',
    'load_from',
    'log_level',
    'log_processor',
    'model',
    'model_wrapper_cfg',
    'optim_wrapper',
    'param_scheduler',
    'randomness',
    'resume',
    'runner_type',
    'strategy',
    'sync_bn',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
    'train_cfg',
    'train_dataloader',
    'tta_model',
    'tta_pipeline',
    'val_cfg',
    'val_dataloader',
    'val_evaluator',
    'visualizer',
    'work_dir',
}
"""What mmengine's runner and this package read at the top of a config."""
LOADER = {
    'batch_sampler',
    'batch_size',
    'collate_fn',
    'dataset',
    'drop_last',
    'generator',
    'multiprocessing_context',
    'num_batch_per_epoch',
    'num_workers',
    'persistent_workers',
    'pin_memory',
    'pin_memory_device',
    'prefetch_factor',
    'sampler',
    'shuffle',
    'timeout',
    'worker_init_fn',
}
OTHERS = {
    'auto_scale_lr': {'base_batch_size', 'enable'},
    'compile': {'backend', 'disable', 'dynamic', 'fullgraph', 'mode', 'options', 'target'},
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'randomness': {'deterministic', 'diff_rank_seed', 'seed'},
    'train_cfg': {'by_epoch'},
}
"""Dictionaries without a type, or with one that mmengine fills in -> what is read from them."""
DEFAULT_TYPES = {
    'log_processor': 'LogProcessor',
    'optim_wrapper': 'OptimWrapper',
    'test_cfg': 'TestLoop',
    'val_cfg': 'ValLoop',
}
FREE = {'_scope_', 'type', '_delete_', 'init_cfg', 'by_epoch', 'priority', 'constructor'}
"""Keys that builders of mm libraries take themselves."""
OPTIMIZERS = {'paramwise_cfg', 'optimizer', 'accumulative_counts', 'clip_grad'}
SIMILAR = 0.85


def override_settings(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Override settings of a config that something reads, dotted names to values.

    Raises:
        UserError: nothing reads one, or it cannot be merged.
    """
    if options:
        check_keys(cfg, options)
        merge_options(cfg, options)


def check_keys(cfg: Config, options: Mapping[str, Any]) -> None:
    """Make sure that something reads each setting.

    Args:
        cfg: before the settings are merged.
        options: dotted names to values.

    Raises:
        UserError: nothing reads one, with the nearest that is read.
    """
    for name in options:
        keys = name.split('.')
        node: Any = cfg._cfg_dict
        for at, key in enumerate(keys):
            if isinstance(node, (list, tuple)):
                node = node[int(key)] if key.isdigit() and int(key) < len(node) else None
            elif isinstance(node, Mapping) and key in node:
                if at == 0 and key not in TOP and len(keys) == 1:
                    _warn_of_variable(cfg, key)
                node = node[key]
            else:
                if isinstance(node, Mapping):
                    _check_new_key(cfg, node, keys[:at], key, options)
                break


def _warn_of_variable(cfg: Config, key: str) -> None:
    """Say that a variable of the file has been used before the setting comes."""
    print_log(
        f'--cfg-options {key}: {key} is a variable of the config file, which mmengine does not '
        'read; where its value stands is to be set, such as train_dataloader.dataset.data_root',
        'current',
        logging.WARNING,
    )


def _check_new_key(
    cfg: Config, node: Mapping, path: Sequence[str], key: str, options: Mapping[str, Any]
) -> None:
    legal = _list_legal(cfg, node, path, options)
    where = '.'.join(path)
    if legal is None:
        close = [one for one in close_to(key, node, 1) if _are_similar(one, key)]
        if close and not key.isdigit():
            print_log(
                f'--cfg-options: {where}.{key} is new in the config, which has {where}.{close[0]}; '
                'whether anything reads it is not known',
                'current',
                logging.WARNING,
            )
        return
    if key in legal or key in FREE:
        return
    prefix = f'{where}.' if where else ''
    raise UserError(
        f'--cfg-options {prefix}{key}: nothing reads it; '
        f'{nearest(key, [one for one in sorted(legal) if one not in FREE])}',
        code='option.unread',
    )


def _are_similar(one: str, other: str) -> bool:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, one, other).ratio() >= SIMILAR


def _list_legal(
    cfg: Config, node: Mapping, path: Sequence[str], options: Mapping[str, Any]
) -> set[str] | None:
    """Return the keys that are read from a dictionary, None where that is not known."""
    where = '.'.join(path)
    if not path:
        return TOP | set(node)
    kind = options.get(f'{where}.type', node.get('type', DEFAULT_TYPES.get(where)))
    if len(path) == 1 and where.endswith('_dataloader'):
        return LOADER | set(node)
    if kind is None:
        known = OTHERS.get(where)
        if where == 'train_cfg':
            kind = 'IterBasedTrainLoop' if 'max_iters' in node else 'EpochBasedTrainLoop'
        else:
            return None if known is None else known | set(node)
    import_packages(cfg)
    arguments: set[str] = set()
    found = [list_arguments(one) for one in find_types(cfg, kind)]
    for one in found:
        if one is None:
            return None
        arguments |= one
    if not found:
        return None
    if where == 'optim_wrapper' or type_of(dict(type=kind)).endswith('OptimWrapper'):
        arguments |= OPTIMIZERS
    return arguments | set(node)


def find_types(cfg: Config, kind: Any) -> list[Any]:
    """Return the classes and functions that a type's name stands for in the registries."""
    if not isinstance(kind, str):
        return [kind]
    from mmengine import registry as registries
    from mmengine.registry import DefaultScope

    from .. import registry as _  # noqa: F401, whose import adds ours to mmengine's

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        found = []
        for name, one in vars(registries).items():
            if name.isupper() and isinstance(one, registries.Registry):
                with one.switch_scope_and_registry(None) as registry:
                    found.append(registry.get(kind))
    return [one for one in found if one is not None]


def list_arguments(kind: Any) -> set[str] | None:
    """Return the arguments of a class, its parents' where they are passed on; None if any is taken.

    They are followed through ``**kwargs`` as far as ``object``. A class whose last parent takes any
    keyword, as mmengine's registries of functions may, accepts all.
    """
    if not inspect.isclass(kind):
        return _list_of_function(kind)[0]
    if kind.__module__.startswith('mmresnest.models'):
        return None  # they name the nearest themselves, and know the words of each network
    names: set[str] = set()
    for parent in kind.__mro__:
        if '__init__' not in vars(parent) or parent is object:
            continue
        own, passes = _list_of_function(vars(parent)['__init__'])
        names |= own or set()
        if not passes:
            return names
    return None


_TAKEN = re.compile(r'kwargs\.(?:get|pop|setdefault)\(\s*[\'"](\w+)')


def _read_source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ''


def _list_of_function(function: Any) -> tuple[set[str] | None, bool]:
    """Return the arguments of a function, and whether it takes any others."""
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None, True
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    names = {one.name for one in parameters if one.kind in named}
    names |= set(_TAKEN.findall(_read_source(function)))
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return names - {'self'}, open_ended
