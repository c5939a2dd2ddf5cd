"""The plain options of a training, over any config: how long, how fast, in which batches.

    mmresnest train CONFIG --data DIR --epochs 50 --batch-size 8 --lr 0.01 --patience 5

A schedule counts epochs or iterations, and much is told in its unit: milestones, warm-up, the
interval of validations. An option scales all of it. With `images` in a data set, a `batch` of each
of `processes` and E epochs,

    iterations = E * ceil(images / (batch * processes)).

A warm-up is at most a tenth of the iterations. The learning rate follows the batch: in proportion
(Goyal et al., arXiv:1706.02677), with Adam and its relatives by the square root (Malladi et al.,
arXiv:2205.10287).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from mmengine.config import Config
from mmengine.logging import print_log

from ..data.checks.rows import get_rows
from ..data.json_files import read_coco_file
from ..errors import UserError
from .checks.part import Part
from .hardware import has_accelerator
from .inspect import LOADERS, dataset_configs, iterate_dicts, model_of, scope_of, task_of, type_of
from .load import name_of
from .options import ScheduleOptions
from .paths import check_paths
from .shipped import shipped_folder
from .widths import NARROWER, ROIS, narrow_backbone, narrow_detector, narrow_segmentor

WARM_UPS = ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')
WARM_UP_SHARE = 0.1
POINTS = ('begin', 'end', 'T_max', 'T_0', 'step_size', 'total_iters', 'total_steps')
"""Arguments of schedulers that are a number of epochs or iterations."""
LISTS = ('milestones', 'periods', 'restarts')
RATES = ('eta_min', 'eta_max')
HOOK_POINTS = ('switch_epoch', 'switch_iter', 'num_last_epochs', 'begin_epoch', 'begin_iter')
"""The same of custom hooks."""

SETTINGS = {
    'epochs': ('train_cfg.max_epochs', 'train_cfg.max_iters', 'train_cfg.by_epoch'),
    'batch_size': ('train_dataloader.batch_size',),
    'lr': ('optim_wrapper.optimizer.lr',),
    'workers': tuple(f'{name}.num_workers' for name in LOADERS),
    'classes': ('train_dataloader.dataset.metainfo.classes',),
}
"""Option -> the settings that say the same; both at once are a contradiction."""


class SmallSchedule(NamedTuple):
    """A schedule for hundreds of pictures: AdamW, a warm-up, and a cosine down to a hundredth."""

    images: int = 1000  # a set with fewer is small
    batch: int = 4
    iterations: int = 2000  # with `batch`; fewer where that would be more epochs than `epochs`
    precise: int = 25  # iterations to measure the statistics of norms by: of 100 images
    epochs: int = 200
    rate: float = 2e-4  # of weights that were trained before
    rate_from_scratch: float = 6e-4
    validations: int = 10


SMALL = SmallSchedule()


class Laptop(NamedTuple):
    """How far a task shrinks under the schedule for laptops; ``thinner`` divides a width."""

    size: int  # px, as of --img-size
    batch: int
    iterations: int  # with `batch`
    thinner: int  # the backbone, where it starts from random weights


LAPTOP = {
    'detection': Laptop(size=416, batch=4, iterations=1200, thinner=2),
    'semantic': Laptop(size=256, batch=8, iterations=1000, thinner=4),
}


class Schedule:
    """What a config says of the length of its training, in the unit that it counts in.

    Raises:
        UserError: it has no training, or a loop without an end.
    """

    def __init__(self, cfg: Config) -> None:
        loop = cfg.get('train_cfg') or {}
        if cfg.get('train_dataloader') is None or not loop:
            raise UserError(
                f'{name_of(cfg)} has no train_dataloader or no train_cfg; give a whole training '
                'config',
                code='config.incomplete',
            )
        self.cfg, self.loop = cfg, loop
        self.key = 'max_epochs' if loop.get('max_epochs') else 'max_iters'
        self.by_epoch = self.key == 'max_epochs'
        total = loop.get(self.key)
        if not total:
            raise UserError(
                f'{name_of(cfg)}: train_cfg has neither max_epochs nor max_iters; add one',
                code='config.incomplete',
            )
        self.total: int = total

    @property
    def batch(self) -> int:
        """Images of one process in one iteration."""
        return self.cfg.train_dataloader.get('batch_size') or 1

    def set_total(self, total: int) -> None:
        """Set the length, and scale what is told in its unit."""
        factor, self.total = total / self.total, total
        self.loop[self.key] = total
        self._scale_iterations(factor, epochs=self.by_epoch)

    def set_batch(self, batch: int) -> None:
        """Set the batch; a schedule of iterations then sees as many images as before."""
        before, self.cfg.train_dataloader.batch_size = self.batch, batch
        if self.by_epoch:
            self._scale_iterations(before / batch, epochs=False)
        else:
            self.set_total(max(1, round(self.total * before / batch)))

    def _scale_iterations(self, factor: float, epochs: bool) -> None:
        """Scale everything told in iterations, and in epochs, too, if asked for."""
        for one in list_schedulers(self.cfg):
            if epochs or not one.get('by_epoch', True) or not self.by_epoch:
                scale_points(one, factor)
        if not self.by_epoch or epochs:
            for hook in self.cfg.get('custom_hooks') or ():
                scale_points(hook, factor, HOOK_POINTS)
            self._scale_intervals(factor)

    def _scale_intervals(self, factor: float) -> None:
        """Scale when it validates and saves: in epochs as before, as far as there are so many."""

        def scale(interval: int) -> int:
            return min(interval if self.by_epoch else max(1, round(interval * factor)), self.total)

        for owner, keys in (
            (self.loop, ('val_interval', 'val_begin')),
            ((self.cfg.get('default_hooks') or {}).get('checkpoint') or {}, ('interval',)),
        ):
            for key in keys:
                if isinstance(owner.get(key), int) and owner[key] > 0:
                    owner[key] = scale(owner[key])
        if self.loop.get('dynamic_intervals'):
            self.loop['dynamic_intervals'] = [
                (scale_point(begin, factor, 0), scale(every))
                for begin, every in self.loop['dynamic_intervals']
            ]

    def limit_validations(self, iterations: int) -> None:
        """Validate and save after an epoch, of so many iterations, at the earliest."""
        checkpoint = (self.cfg.get('default_hooks') or {}).get('checkpoint') or {}
        for owner, key in ((self.loop, 'val_interval'), (checkpoint, 'interval')):
            if isinstance(owner.get(key), int) and owner[key] > 0:
                owner[key] = min(max(owner[key], iterations), self.total)

    def limit_warm_up(self, iterations: int) -> None:
        """Limit warm-ups to a tenth of the iterations; what begins behind one begins earlier."""
        most = max(1, math.floor(iterations * WARM_UP_SHARE))
        schedulers = [one for one in list_schedulers(self.cfg) if not one.get('by_epoch', True)]
        for one in schedulers:
            end = one.get('end', 0)
            if type_of(one) not in WARM_UPS or one.get('begin', 0) or end <= most:
                continue
            one['end'] = most
            for other in schedulers:
                if other.get('begin', 0) == end:
                    other['begin'] = most
                    if 'T_max' in other:
                        other['T_max'] += end - most

    def limit_log_interval(self, iterations: int) -> None:
        """Have at least one line of losses an epoch; ``iterations`` are those of an epoch."""
        logger = (self.cfg.get('default_hooks') or {}).get('logger')
        if logger is not None and logger.get('interval', 10) > iterations:
            logger['interval'] = max(1, iterations)


def apply_options(cfg: Config, options: ScheduleOptions, processes: int = 1) -> None:
    """Obey the plain options of a training.

    Args:
        cfg: a config with its data; changed in place.
        options: what is asked for.
        processes: how many train together.

    Raises:
        UserError: an option is out of range, contradicts another, or does not fit the config.
    """
    from .classes import select_classes
    from .pipelines import set_augmentation, set_image_size

    check_options(options)
    if options.classes:
        select_classes(cfg, options.classes)
    schedule = choose_schedule(cfg, options)
    asked = (getattr(options, 'cfg_options', None) or {}).get('train_dataloader.batch_size')
    if isinstance(asked, int) and asked > 0:  # merged last, and iterations are counted with it
        cfg.train_dataloader.batch_size = asked
        if schedule != 'config':
            options = replace(options, batch_size=asked)
    seen = None
    if schedule == 'laptop':
        laptop = LAPTOP['semantic' if task_of(cfg) == 'semantic' else 'detection']
        options = fit_laptop(cfg, options, laptop)
        seen = laptop.iterations * laptop.batch
    if options.img_size is not None:
        set_image_size(cfg, options.img_size)
    if options.augment is not None:
        set_augmentation(cfg, options.augment)
    if options.workers is not None:
        set_workers(cfg, options.workers)
    if schedule == 'config':
        set_length(cfg, options, processes)
    else:
        use_small_schedule(cfg, options, processes, seen)
    if options.lr is not None:
        set_learning_rate(cfg, options.lr)
    if options.patience is not None:
        stop_early(cfg, options.patience)


def check_options(options: ScheduleOptions) -> None:
    """Refuse options that are out of range or contradict each other."""
    for name, least in (('epochs', 1), ('batch_size', 1), ('patience', 1), ('workers', 0)):
        value = getattr(options, name)
        if isinstance(value, int) and value < least:
            raise UserError(
                f'--{name.replace("_", "-")} {value}: at least {least} is needed',
                code='option.value',
            )
    if options.lr is not None and not 0 < options.lr < math.inf:
        raise UserError(f'--lr {options.lr}: it must be above 0', code='option.value')
    if options.lr is not None and getattr(options, 'auto_scale_lr', False):
        raise UserError(
            '--lr says what the learning rate is, and --auto-scale-lr computes it; leave one out',
            code='option.conflict',
        )
    for name, other in (('demo', '--demo'), ('load_from', '--load-from')):
        if options.schedule == 'laptop' and getattr(options, name, None):
            raise UserError(
                f'--schedule laptop narrows the model of the config, and {other} says what its '
                'widths are; leave one out',
                code='option.conflict',
            )
    given = getattr(options, 'cfg_options', None) or {}
    for name, keys in SETTINGS.items():
        twice = [key for key in keys if key in given]
        if getattr(options, name) not in (None, ()) and twice:
            raise UserError(
                f'--{name.replace("_", "-")} and --cfg-options {twice[0]} say the same thing; '
                'leave one out',
                code='option.conflict',
            )


def choose_schedule(cfg: Config, options: ScheduleOptions) -> str:
    """Return which schedule is meant: ``config``, ``small`` or ``laptop``.

    Those for small sets are chosen where nobody has said anything: a config of a package, on the
    user's own data, of which there are few, without a word on the schedule. That for laptops is
    chosen for our own configs where there is no GPU, as what they shrink to is known to work, and
    where no model is loaded whose widths must be kept. --resume is no such word: the same command
    has to mean the same training.
    """
    if options.schedule != 'auto':
        return options.schedule
    given = getattr(options, 'cfg_options', None) or {}
    said = (
        options.epochs is not None
        or options.lr is not None
        or any(key.startswith(('train_cfg', 'param_scheduler', 'optim_wrapper')) for key in given)
    )
    if said or getattr(options, 'demo', False) or getattr(options, 'data', None) is None:
        return 'config'
    if not is_packaged(cfg) or cfg.get('train_cfg') is None:
        return 'config'
    images = count_images(cfg)
    if images is None or images >= SMALL.images:
        return 'config'
    whole = getattr(options, 'load_from', None) or cfg.get('load_from')
    if whole or not is_shipped(cfg) or has_accelerator():
        return 'small'
    return 'laptop'


def is_shipped(cfg: Config) -> bool:
    """Return whether a config is one of ours."""
    return str(cfg.filename or '').startswith(str(shipped_folder()))


def is_packaged(cfg: Config) -> bool:
    """Return whether a config is one of a package, and not a user's own."""
    name = str(cfg.filename or '')
    return '/.mim/configs/' in name.replace('\\', '/') or is_shipped(cfg)


def count_images(cfg: Config) -> int | None:
    """Return how many images the training set has; None where that is not known beforehand."""

    def count(dataset: Mapping) -> int | None:
        inner = dataset.get('dataset')
        if isinstance(inner, dict):
            found = count(inner)
            times = dataset.get('times', 1) if type_of(dataset) == 'RepeatDataset' else 1
            return None if found is None else found * times
        leaves = dataset_configs(dataset)
        if len(leaves) > 1:
            counts = [count(leaf) for leaf in leaves]
            return None if None in counts else sum(filter(None, counts))
        return _count_leaf(cfg, dataset)

    return count(cfg.train_dataloader.dataset)


def _count_leaf(cfg: Config, leaf: Mapping) -> int | None:
    from ..data.base import IMAGE_SUFFIXES, list_files

    part = Part(cfg, 'train', leaf)
    listed = part.path if leaf.get('ann_file') else None
    if listed is not None and listed.suffix == '.json' and listed.is_file():
        table, _ = read_coco_file(listed)
        images = get_rows(table, 'images')
        if not (leaf.get('filter_cfg') or {}).get('filter_empty_gt'):
            return len(images)
        rows = [row for row in get_rows(table, 'annotations') if isinstance(row, dict)]
        return len({row.get('image_id') for row in rows}) or len(images)
    if listed is not None and listed.is_file():
        return sum(1 for line in listed.read_text(encoding='utf-8').splitlines() if line.strip())
    folder = part.folder('img_path')
    if 'img_path' in (leaf.get('data_prefix') or {}) and folder.is_dir():
        suffix = leaf.get('img_suffix') or IMAGE_SUFFIXES
        return sum(1 for _ in list_files(folder, (suffix,) if isinstance(suffix, str) else suffix))
    return None


def count_iterations(cfg: Config, batch: int, processes: int, needed: str = '') -> int | None:
    """Return the iterations of an epoch.

    Args:
        cfg: the config.
        batch: images of a process.
        processes: how many there are.
        needed: the option that cannot do without; empty if None may be returned.

    Raises:
        UserError: it is needed, and the data are missing or of a kind that is not counted.
    """
    images = count_images(cfg)
    if images is not None:
        return max(1, math.ceil(images / (batch * processes)))
    if needed:
        check_paths(cfg, ('train',))
        raise UserError(
            f'{needed}: how many images {name_of(cfg)} trains on is not known beforehand, and its '
            'schedule counts iterations; give --cfg-options train_cfg.max_iters=N',
            code='option.conflict',
        )
    return None


def set_length(cfg: Config, options: ScheduleOptions, processes: int) -> None:
    """Set the number of epochs and the batch, and scale what depends on them."""
    batch, epochs = options.batch_size, options.epochs
    if batch is None and epochs is None:
        return
    assert not isinstance(batch, str)  # 'auto' has been measured before
    schedule = Schedule(cfg)
    if batch is not None:
        before = schedule.batch
        schedule.set_batch(batch)
        if options.lr is None and not getattr(options, 'auto_scale_lr', False):
            follow_batch(cfg, batch / before)
    if epochs is not None and schedule.by_epoch:
        schedule.set_total(epochs)
    needed = '--epochs' if epochs is not None and not schedule.by_epoch else ''
    each = count_iterations(cfg, schedule.batch, processes, needed)
    if each is None:
        return
    if needed and epochs is not None:
        schedule.set_total(epochs * each)
        schedule.limit_validations(each)
    total = schedule.total * each if schedule.by_epoch else schedule.total
    schedule.limit_warm_up(total)
    schedule.limit_log_interval(each if schedule.by_epoch else max(1, total // 10))


def follow_batch(cfg: Config, factor: float) -> None:
    """Have the learning rate follow a batch that is ``factor`` times as large."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if optimizer.get('lr') and factor != 1:
        adaptive = 'Adam' in type_of(optimizer)
        set_learning_rate(cfg, optimizer['lr'] * (math.sqrt(factor) if adaptive else factor))


def set_learning_rate(cfg: Config, rate: float) -> None:
    """Set the learning rate, and scale the rates that schedulers name.

    Raises:
        UserError: there are several optimizers, or none.
    """
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if not isinstance(optimizer, dict) or not optimizer.get('lr'):
        raise UserError(
            f'--lr: {name_of(cfg)} has not one optimizer with a learning rate; set it by '
            '--cfg-options optim_wrapper....lr=',
            code='option.conflict',
        )
    factor, optimizer['lr'] = rate / optimizer['lr'], rate
    for one in list_schedulers(cfg):
        for key in RATES:
            if one.get(key):
                one[key] *= factor


def fit_laptop(cfg: Config, options: ScheduleOptions, laptop: Laptop) -> ScheduleOptions:
    """Narrow the model and say so; return the options with the size and batch that nobody said."""
    options = replace(
        options,
        img_size=options.img_size or laptop.size,
        batch_size=options.batch_size or laptop.batch,
    )
    model = model_of(cfg)
    shares = [f'1/{NARROWER} (neck and heads)']
    if getattr(options, 'from_scratch', False) and narrow_backbone(model, laptop.thinner):
        shares.insert(0, f'1/{laptop.thinner} (backbone)')
    narrowed = f'{" and ".join(shares)} of the channels'
    if task_of(cfg) == 'semantic':
        narrow_segmentor(model)
    else:
        narrow_detector(model)
        narrowed += f', {ROIS} regions an image'
    print_log(
        f'schedule for laptops: images of {options.img_size} px, {narrowed}; '
        '--schedule small keeps network and size of the config',
        'current',
    )
    return options


def use_small_schedule(
    cfg: Config, options: ScheduleOptions, processes: int, seen: int | None = None
) -> None:
    """Replace the schedule of a config by the one for small sets, and say so.

    Args:
        cfg: the config, changed in place.
        options: what is asked for.
        processes: how many train together.
        seen: images that the training sees, each as often as it does.
    """
    schedule = Schedule(cfg)
    batch = options.batch_size or SMALL.batch
    assert not isinstance(batch, str)  # 'auto' has been measured before
    cfg.train_dataloader.batch_size = batch
    each = count_iterations(cfg, batch, processes, '--schedule small') or 1
    seen = seen or SMALL.iterations * SMALL.batch
    most = math.ceil(seen / (batch * processes * each))
    epochs = options.epochs or min(SMALL.epochs, most)
    total = epochs * each
    scratch = getattr(options, 'from_scratch', False)
    rate = SMALL.rate_from_scratch if scratch else SMALL.rate
    rate *= math.sqrt(batch * processes / SMALL.batch)
    length = epochs if schedule.by_epoch else total
    schedule.set_total(length)  # what hooks of the config count, too
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        clip_grad=dict(max_norm=10.0),
        optimizer=dict(type='AdamW', lr=rate, weight_decay=0.02),
    )
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=batch * processes)
    warm_up = max(1, math.floor(total * WARM_UP_SHARE / 2))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=warm_up),
        dict(
            type='CosineAnnealingLR',
            by_epoch=False,
            begin=warm_up,
            end=max(total, warm_up + 1),
            eta_min_ratio=0.01,
        ),
    ]
    interval = max(1, round(length / SMALL.validations))
    schedule.loop['val_interval'] = interval
    schedule.loop.pop('dynamic_intervals', None)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None:
        checkpoint['interval'] = interval
    for hook in cfg.get('custom_hooks') or ():
        if type_of(hook) == 'PreciseBN':
            hook['num_iters'] = min(hook.get('num_iters', 200), max(10, each), SMALL.precise)
    schedule.limit_log_interval(min(each, 50))
    print_log(
        f'schedule for small sets: {epochs} epochs of {each} iterations, batch {batch}, AdamW at '
        f'{rate:.3g}; --schedule config, --epochs or --lr keep the schedule of the config',
        'current',
    )


def set_workers(cfg: Config, workers: int) -> None:
    """Set how many processes read the images of a split."""
    for name in LOADERS:
        if cfg.get(name) is not None:
            cfg[name].num_workers = workers
            cfg[name].persistent_workers = workers > 0
            if not workers:
                cfg[name].pop('prefetch_factor', None)


def stop_early(cfg: Config, patience: int) -> None:
    """End the training after validations without a better score.

    Raises:
        UserError: nothing is validated, or what is scored is not known.
    """
    score = main_score_of(cfg)
    if cfg.get('val_dataloader') is None or cfg.get('val_cfg') is None or score is None:
        raise UserError(
            f'--patience waits for a better score, and {name_of(cfg)} '
            + ('validates nothing' if score is not None else 'has an evaluator of another kind')
            + '; leave it out',
            code='option.conflict',
        )
    hooks = [one for one in cfg.get('custom_hooks') or () if type_of(one) != 'EarlyStoppingHook']
    cfg.custom_hooks = [
        *hooks,
        dict(type='EarlyStoppingHook', monitor=score, rule='greater', patience=patience),
    ]
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None and not checkpoint.get('save_best'):
        checkpoint.update(save_best=score, rule='greater')


def main_score_of(cfg: Config) -> str | None:
    """Return the name of the score that a config's validation is judged by, None if unknown."""
    given = cfg.get('val_evaluator') or {}
    kinds = {type_of(one): one for one in (given if isinstance(given, (list, tuple)) else [given])}
    if 'CocoPanopticMetric' in kinds:
        return 'coco_panoptic/PQ'
    for kind in ('CocoMetric', 'FastCocoMetric'):
        if kind in kinds:
            metric = kinds[kind].get('metric', 'bbox')
            return f'coco/{"segm" if "segm" in metric else "bbox"}_mAP'
    return 'mIoU' if 'IoUMetric' in kinds or scope_of(cfg) == 'mmseg' else None


def list_schedulers(cfg: Config) -> Iterator[dict]:
    """Yield the schedulers of a config: one, several, or those of several optimizers."""
    yield from (one for one in iterate_dicts(cfg.get('param_scheduler')) if 'type' in one)


def scale_points(part: dict, factor: float, points: tuple[str, ...] = POINTS) -> None:
    """Scale the arguments of a scheduler or hook that are numbers of epochs or iterations."""
    for key in points:
        if isinstance(part.get(key), int) and part[key] > 0:
            part[key] = scale_point(part[key], factor)
    for key in LISTS:
        if part.get(key) and points is POINTS:
            part[key] = list(dict.fromkeys(scale_point(one, factor) for one in part[key]))
    if points is POINTS and type_of(part) == 'ExponentialLR' and part.get('gamma'):
        part['gamma'] **= 1 / factor


def scale_point(point: int, factor: float, least: int = 1) -> int:
    """Return a number of epochs or iterations, scaled."""
    return max(least, round(point * factor))
