"""The size of images and their augmentation, over any config: ``--img-size``, ``--augment``.

For detectors the size is that of the longer side in a test; a training draws shorter sides in the
range of the config. For segmentors it is that of the longer side of a crop, and what is cropped
from keeps its ratio to that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError, nearest
from .inspect import (
    dataset_configs,
    iterate_dicts,
    iterate_pipelines,
    model_of,
    scope_of,
    task_of,
    type_of,
)
from .load import name_of
from .options import AUGMENTATIONS

LEAST = 32  # px: the stride of the last stage
COLORS = 'PhotoMetricDistortion'
MOSAIC_SCALES = (0.5, 1.5)  # of images in a mosaic
JITTER = (0.5, 2.0)  # of a segmentor's images before the crop
RANDOM = (
    'RandomFlip',
    'RandomAffine',
    'RandomErasing',
    'RandomRotate',
    'RandomShift',
    'MinIoURandomCrop',
    'Expand',
    'CutOut',
    'Mosaic',
    'CachedMosaic',
    'MixUp',
    'CachedMixUp',
    'CopyPaste',
    'YOLOXHSVRandomAug',
    'AutoAugment',
    'RandAugment',
    'Albu',
    COLORS,
)
"""Transforms that ``--augment`` replaces; changes of scale and crops of segmentors stay."""


def set_image_size(cfg: Config, size: int) -> None:
    """Set the size of images in all pipelines.

    Raises:
        UserError: it is too small, or no pipeline says what the size is.
    """
    if size < LEAST:
        raise UserError(
            f'--img-size {size}: at least {LEAST} pixels are needed, the stride of the last maps',
            code='option.value',
        )
    before = len(list(_iterate_scales(cfg)))
    if not before:
        raise UserError(
            f'--img-size: no pipeline of {name_of(cfg)} has a Resize with a scale; give it one',
            code='option.conflict',
        )
    if task_of(cfg) == 'semantic':
        _scale_segmentor(cfg, size)
    else:
        _scale_detector(cfg, size)


def _iterate_steps(cfg: Config) -> Iterator[dict]:
    for owner, name in iterate_pipelines(cfg):
        yield from (step for step in iterate_dicts(owner[name]) if 'type' in step)


def _iterate_scales(cfg: Config) -> Iterator[tuple[dict, str]]:
    """Yield the steps that hold a size of images, and the key it stands under."""
    for step in _iterate_steps(cfg):
        for key in ('scale', 'scales', 'img_scale'):
            if step.get(key):
                yield step, key


def _is_list_of_sizes(value: Any) -> bool:
    return isinstance(value[0], (list, tuple))


def _scale_detector(cfg: Config, size: int) -> None:
    # The short side of a test is the largest; smaller ones of a training keep their ratio to it.
    tested = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    sizes = [
        min(step['scale'])
        for step in iterate_dicts(tested.get('dataset'))
        if step.get('scale') and not _is_list_of_sizes(step['scale'])
    ] or [
        min(one)
        for step, key in _iterate_scales(cfg)
        for one in (step[key] if _is_list_of_sizes(step[key]) else [step[key]])
    ]
    reference = max(sizes)

    def scale(one: Sequence[int]) -> tuple[int, int]:
        short = min(size, round(size * min(one) / reference))
        return (size, short) if one[0] >= one[1] else (short, size)

    # Shared steps, as of test and validation, are scaled once.
    seen: set[int] = set()
    for step, key in list(_iterate_scales(cfg)):
        if id(step) not in seen:
            value = step[key]
            step[key] = [scale(one) for one in value] if _is_list_of_sizes(value) else scale(value)
            seen.add(id(step))
    for step in _iterate_steps(cfg):
        for key in ('size', 'crop_size'):
            value = step.get(key)
            if isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value):
                step[key] = (size, size)
        if type_of(step) == 'RandomAffine' and step.get('border'):  # cut off a mosaic
            step['border'] = (-size // 2, -size // 2)
    for node in iterate_dicts(model_of(cfg).get('data_preprocessor')):
        if node.get('random_size_range'):
            low, high = node['random_size_range']
            node['random_size_range'] = (max(LEAST, round(size * low / high)), size)


def _scale_segmentor(cfg: Config, size: int) -> None:
    crops = [tuple(step['crop_size']) for step in _iterate_steps(cfg) if step.get('crop_size')]
    given = model_of(cfg).get('data_preprocessor', {}).get('size')
    crop = crops[0] if crops else tuple(given or (512, 512))
    factor = size / max(crop)

    def scale(one: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(LEAST, round(side * factor)) for side in one)

    seen: set[int] = set()
    for step in list(_iterate_steps(cfg)):
        if id(step) in seen:
            continue
        seen.add(id(step))
        for key in ('scale', 'scales', 'img_scale', 'crop_size', 'size'):
            value = step.get(key)
            if isinstance(value, (list, tuple)) and value:
                step[key] = (
                    [scale(one) for one in value] if _is_list_of_sizes(value) else scale(value)
                )
    model = model_of(cfg)
    if given:
        model['data_preprocessor']['size'] = scale(given)
    test = model.get('test_cfg') or {}
    for key in ('crop_size', 'stride'):
        if test.get(key):
            test[key] = scale(test[key])


def set_augmentation(cfg: Config, level: str) -> None:
    """Replace the random changes of training images.

    ``none``: no random change but a segmentor's crop. ``light``: mirrored half of the time, at the
    scales of the config. ``strong``: colors as well; for boxes mosaics of four images; for
    segmentors scales of 0.5 to 2.

    Raises:
        UserError: there is no such level, or no training pipeline.
    """
    if level not in AUGMENTATIONS:
        raise UserError(
            f'--augment: there is no {level!r}; {nearest(level, AUGMENTATIONS)}',
            code='option.unknown',
        )
    loader = cfg.get('train_dataloader')
    leaves = dataset_configs(loader['dataset']) if loader else []
    if not leaves or not all(leaf.get('pipeline') for leaf in leaves):
        raise UserError(
            f'--augment changes the training pipeline, and {name_of(cfg)} has none',
            code='option.conflict',
        )
    if type_of(loader['dataset']) == 'MultiImageMixDataset':
        loader['dataset'] = _without_mixing(loader['dataset'])
    for leaf in dataset_configs(loader['dataset']):
        leaf['pipeline'] = _augment_pipeline(cfg, list(leaf['pipeline']), level)
    if level == 'strong' and task_of(cfg) == 'detection':
        _add_mosaic(cfg)
    print_log(f'augmentation: {level}', 'current')


def _without_mixing(mixed: dict) -> dict:
    """Return the data set inside a wrapper that mixes images, with all of its pipeline."""
    inner = mixed['dataset']
    for leaf in dataset_configs(inner):
        leaf['pipeline'] = [*leaf.get('pipeline', ()), *mixed['pipeline']]
    return inner


def _augment_pipeline(cfg: Config, steps: list[dict], level: str) -> list[dict]:
    """Return a training pipeline with the random changes of a level."""
    semantic = task_of(cfg) == 'semantic'
    kept = [copy.deepcopy(step) for step in steps if type_of(step) not in RANDOM]
    kept = [step for step in kept if not (type_of(step) == 'RandomCrop' and not semantic)]
    for step in kept:
        if level == 'none':
            _fix_scale(step)
        elif level == 'strong' and semantic and type_of(step) == 'RandomResize':
            step['ratio_range'] = JITTER
    added = [] if level == 'none' else [dict(type='RandomFlip', prob=0.5)]
    if level == 'strong':
        added.append(dict(type=f'{scope_of(cfg)}.{COLORS}'))
    place = next(
        (at for at, step in enumerate(kept) if type_of(step) in ('Pad', *_PACKS)), len(kept)
    )
    if semantic:  # behind the crop, so that less is changed
        place = max(
            (at + 1 for at, step in enumerate(kept) if type_of(step) == 'RandomCrop'), default=place
        )
    return [*kept[:place], *added, *kept[place:]]


_PACKS = ('PackDetInputs', 'PackSegInputs', 'DefaultFormatBundle')


def _fix_scale(step: dict) -> None:
    """Give a step that draws a scale the largest of several, or the middle of a range."""
    if type_of(step) not in ('RandomResize', 'RandomChoiceResize'):
        return
    sizes = step.pop('scales', None) or step.pop('scale', None)
    step.pop('ratio_range', None)
    step.pop('resize_type', None)
    several = bool(sizes) and _is_list_of_sizes(sizes)
    step.update(
        type='Resize',
        scale=tuple(max(sizes, key=min) if several else sizes),
        keep_ratio=step.get('keep_ratio', True),
    )


def _add_mosaic(cfg: Config) -> None:
    """Put four images into one, scaled at random, before the rest of the pipeline."""
    loader = cfg.train_dataloader
    leaves = dataset_configs(loader['dataset'])
    steps = list(leaves[0]['pipeline'])
    loads = [step for step in steps if type_of(step).startswith('Load')]
    rest = [step for step in steps if not type_of(step).startswith('Load')]
    scale = next((step['scale'] for step in rest if step.get('scale')), (640, 640))
    largest = max(scale, key=min) if _is_list_of_sizes(scale) else scale
    side = min(largest)
    for leaf in leaves:
        leaf['pipeline'] = copy.deepcopy(loads)
    mosaic = [
        dict(type='mmdet.Mosaic', img_scale=(side, side), pad_val=114.0),
        dict(
            type='mmdet.RandomAffine',
            scaling_ratio_range=MOSAIC_SCALES,
            border=(-side // 2, -side // 2),
        ),
    ]
    loader['dataset'] = dict(
        type='mmdet.MultiImageMixDataset', dataset=loader['dataset'], pipeline=[*mosaic, *rest]
    )
