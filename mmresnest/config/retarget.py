"""Point a config at the data of a user: classes, folders, heads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..data.base import DataFolder
from ..data.folder import read_folder
from ..data.request import DataRequest
from ..errors import UserError
from .inspect import (
    LOADERS,
    dataset_configs,
    iterate_pipelines,
    iterate_transforms,
    model_of,
    replace_evaluator,
    task_of,
    type_of,
)
from .load import name_of

KINDS = {'semantic': 'ade20k', 'panoptic': 'panoptic', 'instance': 'coco', 'detection': 'coco'}
"""Task -> the layout of data that serves it."""


def use_data(cfg: Config, folder: DataFolder | DataRequest | str | os.PathLike) -> DataFolder:
    """Point a config at a data folder: paths, classes, heads and evaluators.

    Args:
        cfg: config of a detector or segmentor, changed in place.
        folder: the data, read or yet to be read, as the request says.  Where a folder holds both
            boxes and semantic masks, the config's task decides.

    Returns:
        what the folder holds.

    Raises:
        UserError: if the folder cannot serve the config's task.
    """
    task = task_of(cfg)
    kind = KINDS[task]
    if not isinstance(folder, DataFolder):
        folder = read_folder(folder, kind)
    if folder.kind != kind:
        raise UserError(
            f'{name_of(cfg)} is for {task} and needs data of the kind '
            f'{kind}, and {folder.root} was read as {folder.kind}; take a config for '
            'such data, or name another folder',
            code='data.other-kind',
        )
    if task == 'semantic':
        _use_semantic(cfg, folder)
    else:
        if task == 'instance' and not folder.has_masks:
            raise UserError(
                f'{name_of(cfg)} is trained on instance masks, and '
                f'{folder.maskless}; add the masks, or choose a config that needs '
                'boxes only, such as faster_rcnn_resnest50_fpn',
                code='data.no-masks',
            )
        _use_detection(cfg, folder, task)
    print_log(
        f'data: {folder}: {", ".join(folder.classes[:20])}'
        + (' ...' if folder.classes[20:] else ''),
        'current',
    )
    for note in folder.notes:
        print_log(f'{folder.root}: {note}', 'current', logging.WARNING)
    return folder


def make_palette(count: int) -> list[tuple[int, ...]]:
    """Return that many easily distinguished colors, those of our own images."""
    from ..visualization.canvas import class_color

    return [tuple(round(255 * part) for part in class_color(label)) for label in range(count)]


def _drop_further_parts(dataset: dict) -> None:
    """Keep the first of concatenated sets: each would become the user's data once more."""
    if isinstance(dataset.get('dataset'), dict):
        _drop_further_parts(dataset['dataset'])
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        dataset['datasets'] = list(dataset['datasets'][:1])
        _drop_further_parts(dataset['datasets'][0])


_KEPT_DATASET_KEYS = (
    'pipeline',
    'filter_cfg',
    'test_mode',
    'backend_args',
    'lazy_init',
    'serialize_data',
    'max_refetch',
)


def _replace_datasets(cfg: Config, make: Callable[[str], dict]) -> None:
    """Give every data set of the config new contents, and keep pipelines, filters and wrappers.

    Args:
        cfg: the config.
        make: returns the settings of a split's data set.
    """
    if cfg.get('test_dataloader') is None and cfg.get('val_dataloader') is not None:
        cfg.test_dataloader = cfg.val_dataloader.to_dict()
        cfg.test_evaluator = cfg.get('val_evaluator')
        cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        _drop_further_parts(loader['dataset'])
        for leaf in dataset_configs(loader['dataset']):
            kept = {key: leaf[key] for key in _KEPT_DATASET_KEYS if key in leaf}
            leaf.clear()
            leaf.update(make(name.split('_')[0]))
            leaf.update(kept)


def _use_detection(cfg: Config, folder: DataFolder, task: str) -> None:
    panoptic = task == 'panoptic'
    if not panoptic:
        drop_semantic_branch(cfg)
    metainfo: dict[str, Any] = dict(
        classes=folder.classes, palette=make_palette(len(folder.classes))
    )
    if panoptic:
        metainfo = dict(
            thing_classes=folder.classes[: folder.things],
            stuff_classes=folder.classes[folder.things :],
            **metainfo,
        )

    def dataset(name: str) -> dict:
        split = folder.split(name)
        prefix = dict(img=split.images)
        if panoptic:
            prefix['seg'] = split.masks
        return dict(
            type='mmdet.CocoPanopticDataset' if panoptic else 'mmdet.CocoDataset',
            data_root=str(folder.root),
            ann_file=split.annotations,
            data_prefix=prefix,
            metainfo=dict(metainfo),
            test_mode=name != 'train',
        )

    def evaluator(name: str) -> dict:
        split = folder.split(name)
        if not split.scored:  # the ids of the categories are those of the training
            train = folder.root / folder.split('train').annotations
            return dict(ann_file=str(train), format_only=True)
        path = dict(ann_file=str(folder.root / split.annotations))
        return dict(path, seg_prefix=str(folder.root / split.masks)) if panoptic else path

    _replace_datasets(cfg, dataset)
    if panoptic:
        replace_evaluator(cfg, 'mmdet', 'CocoPanopticMetric', evaluator, {})
    else:
        metric = ['bbox', 'segm'] if task == 'instance' else 'bbox'
        replace_evaluator(cfg, 'mmdet', 'CocoMetric', evaluator, dict(metric=metric))
        wanted = [node for node in iterate_transforms(cfg) if node.get('with_mask')]
        if not folder.has_masks and wanted:
            for node in wanted:  # a detector has no use for what its pipeline happens to load
                node['with_mask'] = False
    if folder.coded_masks:  # which mmdet passes over where it is to keep polygons
        for node in iterate_transforms(cfg):
            if node.get('poly2mask') is False:
                node['poly2mask'] = True
    things = folder.things if panoptic else len(folder.classes)
    set_classes(model_of(cfg), things, stuff=len(folder.classes) - things)


def drop_semantic_branch(cfg: Config) -> None:
    """Remove the branch of HTC that needs semantic masks, which a COCO file does not have."""
    head = model_of(cfg).get('roi_head') or {}
    if head.get('semantic_head'):
        for key in ('semantic_head', 'semantic_roi_extractor', 'semantic_fusion'):
            head.pop(key, None)
        print_log(
            'the data have no semantic masks: the semantic branch of the head is left out',
            'current',
            logging.WARNING,
        )
    for node in iterate_transforms(cfg):
        if node.get('with_seg') and type_of(node).startswith('Load'):
            node['with_seg'] = False
    for owner, name in iterate_pipelines(cfg):
        owner[name] = [step for step in owner[name] if type_of(step) != 'SegRescale']


def _use_semantic(cfg: Config, folder: DataFolder) -> None:
    metainfo = dict(classes=folder.classes, palette=make_palette(len(folder.classes)))

    def dataset(name: str) -> dict:
        split = folder.split(name)
        masks = dict(seg_map_path=split.annotations) if split.scored else {}
        return dict(
            type='mmseg.BaseSegDataset',
            data_root=str(folder.root),
            ann_file=split.listing,
            metainfo=dict(metainfo),
            data_prefix=dict(img_path=split.images, **masks),
            img_suffix=folder.img_suffix,
            seg_map_suffix=folder.seg_map_suffix,
            reduce_zero_label=False,
            test_mode=name != 'train',
        )

    _replace_datasets(cfg, dataset)
    replace_evaluator(
        cfg,
        'mmseg',
        'IoUMetric',
        lambda name: {} if folder.split(name).scored else dict(format_only=True),
        dict(iou_metrics=['mIoU']),
    )
    if not folder.split('test').scored:
        for leaf in dataset_configs(cfg.test_dataloader.dataset):
            leaf.pipeline = drop_annotations(leaf.pipeline)
    for node in iterate_transforms(cfg):
        node.pop('reduce_zero_label', None)  # the data set's word counts, and it says no
    set_classes(model_of(cfg), len(folder.classes))


def drop_annotations(steps: Sequence[Any]) -> list[Any]:
    """Return the steps of a pipeline, those of several views included, that read no annotations."""
    kept: list[Any] = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            kept += [inner] if (inner := drop_annotations(step)) else []
        elif type_of(step) != 'LoadAnnotations':
            views = step.get('transforms')
            kept.append({**step, 'transforms': drop_annotations(views)} if views else step)
    return kept


_HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')
"""Heads that know the number of classes even where the config leaves it to a default."""
_NUMBERLESS = ('CondInstMaskHead', 'BoxInstMaskHead', 'IterativeDecodeHead')
"""Types of heads that take no number of classes."""
_CLASSLESS = (
    'backbone',
    'neck',
    'rpn_head',
    'train_cfg',
    'test_cfg',
    'data_preprocessor',
    'init_cfg',
)


def set_classes(node: Any, things: int, stuff: int = 0, inside: str = '') -> None:
    """Set the number of classes in every head below a part of the model.

    Args:
        node: the part.
        things: classes that boxes and instance masks may have, or all classes of a segmentor.
        stuff: further classes of a panoptic model.
        inside: the key the part stands under.
    """
    if isinstance(node, (list, tuple)):
        for item in node:
            set_classes(item, things, stuff, inside)
        return
    if not isinstance(node, dict):
        return
    is_loss = inside.startswith('loss')
    _resize_class_weights(node, things + stuff)
    if 'num_classes' in node or (
        inside in _HEADS and 'type' in node and type_of(node) not in _NUMBERLESS
    ):
        former = node.get('num_classes')
        node['num_classes'] = things + stuff if inside == 'semantic_head' else things
        if inside in ('decode_head', 'auxiliary_head') and node.get('out_channels') in (1, former):
            _use_class_channels(node)
    for key, count in (('num_things_classes', things), ('num_stuff_classes', stuff)):
        if key in node:
            node[key] = count
    weights = node.get('class_weight')
    fitting = {things, things + 1, things + stuff + 1}
    if is_loss and isinstance(weights, (list, tuple)) and len(weights) not in fitting:
        node.pop('class_weight')  # weights of the former data's classes
        print_log(
            f'{inside}.class_weight had one weight for each former class and is left out',
            'current',
            logging.WARNING,
        )
    for key, value in list(node.items()):
        if key not in _CLASSLESS:
            set_classes(value, things, stuff, key)


def _resize_class_weights(head: dict, classes: int) -> None:
    """Have a loss weigh new classes as all former ones were, and no object as it was.

    MaskFormer's heads cannot be built without these weights.
    """
    former = head.get('num_classes') or sum(
        head.get(f'num_{group}_classes') or 0 for group in ('things', 'stuff')
    )
    loss = head.get('loss_cls')
    if not isinstance(loss, dict):
        return
    weights = loss.get('class_weight')
    if not isinstance(weights, (list, tuple)) or len(weights) != former + 1:
        return
    if len(set(weights[:-1])) == 1:
        loss['class_weight'] = [*weights[:1] * classes, weights[-1]]


def _use_class_channels(head: dict) -> None:
    """Undo a binary segmentor's single output channel: the new classes get one channel each."""
    if head.pop('out_channels', None) is None:
        return
    head.pop('threshold', None)
    losses = head.get('loss_decode') or {}
    for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
        if loss.get('use_sigmoid'):
            loss['use_sigmoid'] = False


def drop_weights(cfg: Config) -> dict:
    """Have the model fetch no weights, and return its backbone."""
    model = model_of(cfg)
    backbone = model.get('backbone')
    if not isinstance(backbone, dict):
        raise UserError(
            f'{name_of(cfg)} has no backbone to train from scratch; leave --from-scratch out',
            code='option.conflict',
        )
    for node in (model, backbone):
        if node.get('pretrained'):
            node['pretrained'] = None
    backbone['init_cfg'] = None
    cfg.load_from = None
    return backbone


def start_from_scratch(cfg: Config) -> None:
    """Make the model start from random weights: nothing is fetched, and nothing stays frozen."""
    backbone = drop_weights(cfg)
    if backbone.get('frozen_stages', -1) >= 0:  # frozen random weights could not be trained
        backbone['frozen_stages'] = -1
    if backbone.get('norm_eval'):
        backbone['norm_eval'] = False
    norm = backbone.get('norm_cfg')
    if norm and norm.get('requires_grad') is False:
        norm['requires_grad'] = True
