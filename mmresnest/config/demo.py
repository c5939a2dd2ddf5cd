"""The --demo recipe: any of our configs at a size that a laptop's CPU trains in minutes.

The structure is kept: every layer, head and loss is the config's own. What shrinks is images,
batch, widths of neck and heads, regions per image and schedule; a detector's backbone keeps its
depth and width. A segmentor's keeps its depth only. It is asked about every pixel at output
stride 8, where the last two stages of full width cost so much that a few hundred images are seen
in a quarter of an hour, too few to tell shapes apart: a quarter of the width sees eight times as
many. Training is from random weights, so nothing is frozen and nothing is fetched.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict

from ..errors import UserError
from .inspect import iterate_dicts, task_of
from .load import name_of
from .retarget import start_from_scratch
from .widths import narrow_backbone, narrow_detector, narrow_segmentor


@dataclass(frozen=True)
class Recipe:
    """How far a task is shrunk."""

    size: int  # px: both sides of an image, at most
    batch: int
    iterations: int
    warm_up: int  # iterations
    optimizer: dict[str, Any] = field(default_factory=dict)


DETECTION = Recipe(
    size=192,
    batch=4,
    iterations=330,
    warm_up=40,
    optimizer=dict(type='AdamW', lr=6e-4, weight_decay=0.02),
)
SEMANTIC = Recipe(
    size=192,
    batch=8,
    iterations=600,
    warm_up=30,
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.02),
)

VALIDATIONS = 3  # in the course of the training
PRECISE = 10  # iterations to measure the statistics of norms by
THINNER = 4  # a segmentor's backbone: its channels are divided by this
RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize')


def shrink_config(cfg: Config) -> None:
    """Shrink a config in place.

    Args:
        cfg: of a detector or segmentor, its data already set.

    Raises:
        UserError: it has no training to shrink.
    """
    if cfg.get('train_dataloader') is None or cfg.get('optim_wrapper') is None:
        raise UserError(
            f'--demo: {name_of(cfg)} has no train_dataloader or no '
            f'optim_wrapper; give a whole training config',
            code='config.incomplete',
        )
    semantic = task_of(cfg) == 'semantic'
    recipe = SEMANTIC if semantic else DETECTION
    start_from_scratch(cfg)
    if semantic:
        narrow_backbone(cfg.model, THINNER)
        narrow_segmentor(cfg.model)
        shrink_crops(cfg.model, recipe.size)
    else:
        narrow_detector(cfg.model)
    shrink_loader(cfg.train_dataloader, recipe.size, recipe.batch)
    for name in ('val_dataloader', 'test_dataloader'):
        if cfg.get(name):  # mmseg cannot stack images of different sizes
            shrink_loader(cfg[name], recipe.size, batch=1 if semantic else 8)
    cfg.pop('tta_pipeline', None)  # at full size; --tta makes one of the test pipeline's size
    shrink_schedule(cfg, recipe)


def shrink_crops(model: ConfigDict, size: int) -> None:
    """Let a segmentor learn from small crops, and look at windows as small."""
    if model.data_preprocessor.get('size'):
        model.data_preprocessor.size = (size, size)
    if model.test_cfg.get('mode') == 'slide':
        model.test_cfg.update(crop_size=(size, size), stride=(size * 2 // 3, size * 2 // 3))


def shrink_loader(loader: ConfigDict, size: int, batch: int) -> None:
    """Set small images in small batches, read by the main process."""
    loader.batch_size = batch
    loader.num_workers = 0
    loader.persistent_workers = False
    for node in iterate_dicts(loader.dataset):
        if node.get('type') in RESIZES:
            for key in ('scales', 'ratio_range', 'scale_factor'):
                node.pop(key, None)
            node.update(type='Resize', scale=(size, size), keep_ratio=True)
        if node.get('type') == 'Pad' and node.get('size'):
            node.size = (size, size)
        if 'crop_size' in node and node.get('crop_type', 'absolute') == 'absolute':
            node.crop_size = (size, size)


def shrink_schedule(cfg: Config, recipe: Recipe) -> None:
    """Set the recipe's optimizer, with a warm-up and a cosine."""
    iterations = recipe.iterations
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        clip_grad=dict(max_norm=10.0),
        optimizer=copy.deepcopy(recipe.optimizer),
    )
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=recipe.batch)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=recipe.warm_up),
        dict(
            type='CosineAnnealingLR',
            by_epoch=False,
            begin=recipe.warm_up,
            end=iterations,
            eta_min_ratio=0.01,
        ),
    ]
    cfg.train_cfg = dict(
        type='mmresnest.IterBasedTrainLoop',
        max_iters=iterations,
        val_interval=iterations // VALIDATIONS,
    )
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_dataloader.pop('batch_sampler', None)
    for hook in cfg.get('custom_hooks') or ():
        if hook.get('type') == 'mmresnest.PreciseBN':
            hook.num_iters = PRECISE
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=0)  # the same demo for everyone
    cfg.log_processor = dict(cfg.get('log_processor') or {}, by_epoch=False)
    # Scores are noted at their iteration, not at the epoch, which is always the first.
    cfg.default_hooks.logger.update(interval=20, log_metric_by_epoch=False)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=iterations, max_keep_ckpts=1)
