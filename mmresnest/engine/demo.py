"""The --demo recipe: any of our configs at a size that a laptop CPU trains in minutes.

The structure is kept: every layer, head and loss is the config's own. What shrinks is images, batch,
widths of neck and heads, regions per image and schedule; the backbone keeps its depth and width.
Training is from random weights, so nothing is frozen and nothing is fetched.
"""
from typing import Any, Iterator

from mmengine.config import Config, ConfigDict

from ..errors import UserError

SIZE = 192              # px, images as the network sees them
BATCH = 4
ITERATIONS = 600
WARM_UP = 50
LEARNING_RATE = 6e-4
VALIDATIONS = 3

#: where these keys hold a number of channels, in neck and heads, it is divided by the value
WIDTHS = {
    'out_channels': 4, 'feat_channels': 4, 'in_channels': 4, 'conv_out_channels': 4,
    'fc_out_channels': 4, 'channels': 4, 'c1_channels': 1, 'c1_in_channels': 1,
}
#: regions per image: at most so many
REGIONS = {'nms_pre': 400, 'max_per_img': 200, 'nms_post': 200, 'max_num': 200}


def shrink(cfg: Config) -> None:
    """Shrinks a config in place.

    Args:
        cfg: of a detector or segmentor, its data already set.

    Raises:
        UserError: it has no model or no training pipeline to shrink.
    """
    if 'model' not in cfg or 'train_dataloader' not in cfg:
        raise UserError('--demo needs a config with model and train_dataloader')
    shrink_model(cfg.model)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            shrink_loader(loader, training=name.startswith('train'))
    shrink_schedule(cfg)


def walk(node: Any) -> Iterator[ConfigDict]:
    """Every dict in a config, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from walk(value)


def shrink_model(model: ConfigDict) -> None:
    """Narrows neck and heads and lets the backbone learn from scratch."""
    backbone = model.backbone
    backbone.init_cfg = None
    backbone.frozen_stages = -1
    neck = model.get('neck')
    if neck:
        neck.out_channels //= WIDTHS['out_channels']
    for part in ('rpn_head', 'roi_head', 'bbox_head', 'mask_head'):
        for node in walk(model.get(part)):
            for key, divisor in WIDTHS.items():
                if isinstance(node.get(key), int):
                    node[key] //= divisor
    for part in ('train_cfg', 'test_cfg'):
        for node in walk(model.get(part)):
            for key, most in REGIONS.items():
                if isinstance(node.get(key), int):
                    node[key] = min(node[key], most)
    rcnn = (model.get('train_cfg') or {}).get('rcnn')
    for node in walk(rcnn):
        if 'num' in node:
            node.num = min(node.num, 64)


def shrink_loader(loader: ConfigDict, training: bool) -> None:
    """Small images in small batches, read by the main process."""
    loader.batch_size = BATCH if training else 8
    loader.num_workers = 0
    loader.persistent_workers = False
    for node in walk(loader.dataset):
        if node.get('type') in ('Resize', 'RandomResize', 'RandomChoiceResize'):
            node.pop('scales', None)
            node.type, node.scale, node.keep_ratio = 'Resize', (SIZE, SIZE), True
            node.pop('ratio_range', None)


def shrink_schedule(cfg: Config) -> None:
    """AdamW with a warm-up and a cosine: learns from scratch where SGD would still be warming up."""
    cfg.optim_wrapper = dict(
        type=cfg.optim_wrapper.get('type', 'OptimWrapper'),
        optimizer=dict(type='AdamW', lr=LEARNING_RATE, weight_decay=0.02),
        clip_grad=dict(max_norm=10.0))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=WARM_UP),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=WARM_UP, end=ITERATIONS,
             eta_min_ratio=0.01),
    ]
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=ITERATIONS,
                         val_interval=ITERATIONS // VALIDATIONS)
    sampler = cfg.train_dataloader.get('sampler')
    if sampler:
        sampler.type = 'InfiniteSampler'
        sampler.shuffle = True
    cfg.train_dataloader.pop('batch_sampler', None)
    cfg.log_processor = dict(cfg.get('log_processor') or {}, by_epoch=False)
    hooks = cfg.default_hooks
    hooks.logger.interval = 20
    hooks.checkpoint.update(by_epoch=False, interval=ITERATIONS, max_keep_ckpts=1)
