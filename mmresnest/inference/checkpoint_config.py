"""Bring a config into the form that a checkpoint was trained in: classes, data and demo size."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..config.checks.classes import list_class_counts, reads_texts
from ..config.checks.part import Names
from ..config.inspect import dataset_configs, import_packages, model_of, task_of
from ..config.load import load_config, name_of
from ..config.option_keys import override_settings
from ..config.retarget import drop_semantic_branch, set_classes, use_data
from ..data.base import DataFolder
from ..data.request import DataRequest
from ..engine.class_order import recorded_classes
from ..errors import UserError
from ..models.norms import replace_sync_norms
from ..utils.text import format_some


def configure_for_checkpoint(
    config: str | os.PathLike | Config,
    content: Mapping[str, Any],
    data: DataFolder | DataRequest | str | os.PathLike | None,
    demo: bool,
    options: Mapping[str, Any] | None,
) -> Config:
    """Return a config in the form that a checkpoint was trained in.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest; it is copied.
        content: of the checkpoint.
        data: the folder of the training's ``--data``.
        demo: the checkpoint is of ``train(..., demo=True)``.
        options: settings to override, dotted names to values.

    Raises:
        UserError: the config cannot be used, or its model is prompted with class names.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    if data is not None:
        use_data(cfg, data)
    _match_heads(cfg, content)
    if demo:
        from ..config.demo import shrink_config

        shrink_config(cfg)
    override_settings(cfg, options)
    model = model_of(cfg)
    if reads_texts(model):
        raise UserError(
            f'the model of {name_of(cfg)} is prompted with '
            'class names, which predict does not give; use the demo of mmdet for it',
            code='model.prompted',
        )
    cfg.model = model
    replace_sync_norms(cfg.model)  # a model in evaluation has nothing to synchronize
    import_packages(cfg)
    return cfg


def _match_heads(cfg: Config, content: Mapping[str, Any]) -> None:
    """Give the heads as many classes as the checkpoint has, as ``--data`` did in training."""
    model, task = model_of(cfg), task_of(cfg)
    names = recorded_classes(content)
    things = len(recorded_classes(content, 'thing_classes') if task == 'panoptic' else names)
    heads = {number for _, key, number in list_class_counts(model, 'model') if key == 'num_classes'}
    if not things or things in heads:
        return  # also left as it is: a config with one output channel for two classes
    if task in ('detection', 'instance') and not any(
        key.startswith('roi_head.semantic_head.') for key in content['state_dict']
    ):
        drop_semantic_branch(cfg)
    set_classes(model, things, stuff=len(names) - things)


def choose_class_names(cfg: Config, content: Mapping[str, Any], with_data: bool) -> tuple[str, ...]:
    """Return the class names of the checkpoint, or else of the config.

    Args:
        cfg: the config.
        content: of the checkpoint.
        with_data: warn where the config's names, of ``--data``, are others.
    """
    names = recorded_classes(content)
    own = Names.read(cfg, dataset_configs(find_test_dataloader(cfg)['dataset'])[0]).classes
    if not names:
        print_log(
            'the checkpoint does not name its classes: '
            + (
                f"the config's are taken ({format_some(own, 5)})"
                if own
                else 'they are given by number'
            ),
            'current',
            logging.WARNING,
        )
    elif with_data and own != names:
        print_log(
            f'the checkpoint was trained on {format_some(names, 5)}, and the data have '
            f'{format_some(own, 5)}: the names of the checkpoint are used',
            'current',
            logging.WARNING,
        )
    return names or own


def count_things(cfg: Config, classes: int) -> int:
    """Return how many classes are countable: those of a panoptic model that are no regions."""
    return (cfg.model.get('panoptic_fusion_head') or {}).get('num_things_classes', classes)


def find_test_dataloader(cfg: Config) -> Mapping:
    """Return the test dataloader of a config, or else that of validation.

    Raises:
        UserError: it has neither.
    """
    for split in ('test', 'val'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            return loader
    raise UserError(
        f'{name_of(cfg)} has no test_dataloader, whose pipeline says '
        'how an image is prepared; give a whole config',
        code='config.incomplete',
    )
