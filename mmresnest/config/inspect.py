"""Answer questions about a config: its task, its model, its data sets and pipelines."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from ..errors import UserError
from .load import INSTALL, name_of

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def task_of(cfg: Config) -> str:
    """Return the task: ``detection``, ``instance``, ``panoptic`` or ``semantic``.

    It is read off the heads, since class names differ between packages.
    """
    model = model_of(cfg)
    if 'decode_head' in model or model.get('type', '').endswith('EncoderDecoder'):
        return 'semantic'
    if 'panoptic_fusion_head' in model:  # Mask2Former has one for masks of objects alone, too
        wanted = (model.get('test_cfg') or {}).get('panoptic_on', True)
        return 'panoptic' if wanted else 'instance'
    if 'semantic_head' in model and 'roi_head' in model:
        return 'panoptic'
    heads = [model, model.get('roi_head') or {}]
    if any('mask_head' in head for head in heads):
        return 'instance'
    return 'detection'


def model_of(cfg: Config) -> dict:
    """Return the model itself, without what wraps it for augmented testing.

    Raises:
        UserError: the config has none.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError(
            f'{name_of(cfg)} has no model; give a whole config, not '
            'one of the pieces under configs/_base_',
            code='config.incomplete',
        )
    while isinstance(model.get('module'), dict):
        model = model['module']
    return model


def scope_of(cfg: Config) -> str:
    """Return the package whose names the config uses without prefix."""
    return cfg.get('default_scope') or ('mmseg' if task_of(cfg) == 'semantic' else 'mmdet')


def import_packages(cfg: Config) -> None:
    """Import the package that a config needs, and set its ``default_scope`` if it has none.

    Raises:
        UserError: if the package is missing or refuses to load.
    """
    cfg.default_scope = scope_of(cfg)
    for name in ('mmcv', cfg.default_scope):
        try:
            with warnings.catch_warnings():
                # mmdet tells everyone of an optional package that none of our configs uses.
                warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
                importlib.import_module(name)
                if name != 'mmcv' and importlib.util.find_spec(f'{name}.utils') is not None:
                    utils = importlib.import_module(f'{name}.utils')
                    if hasattr(utils, 'register_all_modules'):
                        utils.register_all_modules(init_default_scope=False)
        except ModuleNotFoundError as error:
            raise UserError(
                f'{name_of(cfg)} needs the package {name!r}, and '
                f'{error.name!r} is not installed: {INSTALL}',
                code='package.missing',
            ) from error
        except (ImportError, AssertionError) as error:  # mmdet asserts the version of mmcv
            raise UserError(
                f'the package {name!r} is installed and cannot be imported: {error}; '
                '`mmresnest doctor` says what does not fit',
                code='package.broken',
            ) from error


def dataset_configs(dataset: Any) -> list[Any]:
    """Return the data sets inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    inner = dataset.get('dataset')
    if isinstance(inner, dict):
        return dataset_configs(inner)
    several = dataset.get('datasets')
    if isinstance(several, (list, tuple)):
        return [leaf for one in several for leaf in dataset_configs(one)]
    return [dataset]


def replace_evaluator(
    cfg: Config, package: str, type_: str, make: Callable[[str], dict], default: dict
) -> None:
    """Keep the evaluator of the given type, or put one in place, for val and test."""
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader') is None:
            continue
        given = cfg.get(f'{split}_evaluator') or {}
        several = given if isinstance(given, (list, tuple)) else [given]
        fitting = [dict(one) for one in several if type_of(one) in (type_, f'Fast{type_}')]
        one = fitting[0] if fitting else dict(default)
        for key in ('outfile_prefix', 'format_only'):
            one.pop(key, None)  # what was written for a test server is of the former data
        ours = str(one.get('type')).startswith('mmresnest.')
        one.update(type=one['type'] if ours else f'{package}.{type_}', **make(split))
        cfg[f'{split}_evaluator'] = one


def is_scored(cfg: Config, split: str) -> bool:
    """Return whether a split is scored: its evaluators do more than write predictions."""
    given = cfg.get(f'{split}_evaluator') or []
    several = given if isinstance(given, (list, tuple)) else [given]
    return not several or not all(one.get('format_only') for one in several)


def iterate_pipelines(cfg: Config) -> Iterator[tuple[dict, str]]:
    """Iterate over all pipelines, as the dictionary that owns one and its key there."""

    def walk(owner: Any) -> Iterator[tuple[dict, str]]:
        for name, value in list(owner.items()):
            if name.endswith('pipeline') and isinstance(value, list):
                yield owner, name
            elif isinstance(value, dict):
                yield from walk(value)
            elif name == 'datasets':
                for one in value:
                    yield from walk(one)

    yield from walk({name: cfg[name] for name in LOADERS if cfg.get(name) is not None})
    for name in list(cfg.keys()):
        if name.endswith('pipeline') and isinstance(cfg[name], list):
            yield cfg, name


def iterate_dicts(node: Any) -> Iterator[Any]:
    """Iterate over all dicts in a part of a config, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from iterate_dicts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from iterate_dicts(value)


def iterate_transforms(cfg: Config) -> Iterator[dict]:
    """Iterate over the transforms of all pipelines, also those nested in others."""
    for owner, name in iterate_pipelines(cfg):
        yield from (node for node in iterate_dicts(owner[name]) if 'type' in node)


def type_of(node: Mapping) -> str:
    """Return the name of a type without its package; types may stand in a config as classes."""
    type_ = node.get('type', '')
    return type_.rpartition('.')[2] if isinstance(type_, str) else getattr(type_, '__name__', '')


def list_evaluators(given: Any) -> list[dict]:
    """Return the evaluators of a config's ``test_evaluator``, which may be one or a list."""
    return list(given) if isinstance(given, (list, tuple)) else [given]
