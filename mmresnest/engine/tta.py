"""Test-time augmentation: a model sees several views of an image, and their results are merged.

By the config's own ``tta_model`` and ``tta_pipeline`` where it has them, and otherwise by mmdet's
and mmseg's classes on views of ours: each image mirrored and not; for segmentors also at six
scales.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..config.inspect import dataset_configs, list_evaluators, task_of, type_of
from ..errors import UserError

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales of a segmentor's views where the config names none."""
MASK_PARTS = ('mask_head', 'mask_roi_extractor', 'mask_iou_head', 'mask_info_flow')
"""The parts of a detector's second stage that make masks."""


def use_tta(cfg: Config) -> None:
    """Wrap the model of a test for augmentation, and have its data make the views.

    Raises:
        UserError: the views of this model cannot be merged.
    """
    check_mergeable(cfg)
    if task_of(cfg) == 'instance':
        _drop_masks(cfg)
    leaves = dataset_configs(cfg.test_dataloader.dataset)
    cfg.tta_model, cfg.tta_pipeline = find_recipe(cfg, list(leaves[0].pipeline))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for leaf in leaves:
        leaf.pipeline = cfg.tta_pipeline


def check_mergeable(cfg: Config) -> None:
    """Refuse a model whose results for several views cannot be merged.

    Raises:
        UserError: it is panoptic, or has masks that do not come from boxes.
    """
    task = task_of(cfg)
    if task == 'panoptic':
        raise UserError(
            '--tta merges boxes or semantic maps, and this config is for panoptic '
            'segmentation; leave --tta out',
            code='option.conflict',
        )
    if task == 'instance' and 'mask_head' not in (cfg.model.get('roi_head') or {}):
        raise UserError(
            '--tta merges boxes, and the masks of this config do not come from boxes; '
            'leave --tta out',
            code='option.conflict',
        )


def find_recipe(cfg: Config, pipeline: Sequence[dict]) -> tuple[dict, list[dict]]:
    """Return the class that merges views, and the pipeline that makes them.

    Args:
        cfg: whose recipe it is, if it has one.
        pipeline: of its test.
    """
    semantic = task_of(cfg) == 'semantic'
    model, views = cfg.get('tta_model'), cfg.get('tta_pipeline')
    if views is None:
        make = _scale_and_mirror_views if semantic else _mirror_views
        views = make(copy.deepcopy(list(pipeline)))
    if model is None:
        nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        # mmdet registers its class with mmengine, where it takes no prefix.
        model = (
            dict(type='mmseg.SegTTAModel') if semantic else dict(type='DetTTAModel', tta_cfg=nms)
        )
    return model, views


def drop_loads(pipeline: Sequence[Any]) -> list[Any]:
    """Return the steps of a pipeline without those that load, also within the views."""
    kept = []
    for step in pipeline:
        if type_of(step).startswith('Load'):
            continue
        if 'transforms' in step and type_of(step) == 'TestTimeAug':
            groups = [drop_loads(group) for group in step['transforms']]
            step = {**step, 'transforms': [group for group in groups if group]}
        kept.append(step)
    return kept


def _drop_masks(cfg: Config) -> None:
    """Leave masks out of model and score, since mmdet merges only the boxes of several views."""
    for key in MASK_PARTS:
        cfg.model.roi_head.pop(key, None)
    for evaluator in list_evaluators(cfg.test_evaluator):
        if 'metric' in evaluator:
            evaluator['metric'] = 'bbox'
    note_masks()


def note_masks() -> None:
    """Log that there will be no masks."""
    print_log(
        'augmented testing merges boxes only: masks are neither predicted nor scored', 'current'
    )


def _mirror_views(pipeline: list[dict]) -> list[dict]:
    """Return a detector's test pipeline, with each image as it is and mirrored."""
    pack = pipeline.pop()
    pack['meta_keys'] = (
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    )
    flips = [dict(type='RandomFlip', prob=probability) for probability in (1.0, 0.0)]
    return [*pipeline, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def _scale_and_mirror_views(pipeline: list[dict]) -> list[dict]:
    """Return a segmentor's test pipeline at several scales, each as it is and mirrored."""
    load = [step for step in pipeline if step['type'].startswith('LoadImage')]
    resize: dict[str, Any] = next(
        (step for step in pipeline if step['type'] == 'Resize'), dict(type='Resize')
    )
    scales = []
    for ratio in RATIOS:
        one = copy.deepcopy(resize)
        if one.get('scale'):
            one['scale'] = tuple(round(side * ratio) for side in one['scale'])
        else:
            one['scale_factor'] = one.get('scale_factor', 1.0) * ratio
        one['keep_ratio'] = True
        scales.append(one)
    flips = [
        dict(type='RandomFlip', prob=probability, direction='horizontal')
        for probability in (0.0, 1.0)
    ]
    annotations = [step for step in pipeline if step['type'] == 'LoadAnnotations']
    return [
        *load,
        dict(type='TestTimeAug', transforms=[scales, flips, annotations, [pipeline[-1]]]),
    ]
