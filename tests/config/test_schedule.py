"""Plain options over every config: what depends on one is scaled with it."""

import copy
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import refuses
from helpers.tiers import mark_slow
from mmengine.config import Config

from mmresnest.config.inspect import dataset_configs, iterate_dicts, task_of, type_of
from mmresnest.config.load import load_config
from mmresnest.config.options import PrintOptions, TrainOptions, build_options
from mmresnest.config.retarget import use_data
from mmresnest.config.schedule import SETTINGS, SMALL, apply_options, choose_schedule, count_images
from mmresnest.config.shipped import shipped_configs
from mmresnest.engine.batch_size import MOST, choose_batch_size
from mmresnest.engine.prepare import configure

pytestmark = pytest.mark.filterwarnings('ignore')

IMAGES = 4  # of the session's drawn set
DETECTOR = 'faster_rcnn_resnest50_fpn'
SEGMENTOR = 'deeplabv3_resnest50_ade20k'
PANOPTIC = 'panoptic_fpn_resnest50_fpn'
KINDS = (DETECTOR, SEGMENTOR)
THEIRS = (
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'mmdet::tood/tood_r50_fpn_ms-2x_coco.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
)


def pointed(name: str, shapes: Path) -> Config:
    cfg = load_config(name)
    use_data(cfg, shapes)
    return cfg


def obeyed(cfg: Config, processes: int = 1, **given) -> Config:
    apply_options(cfg, build_options(TrainOptions, None, given), processes)
    return cfg


def values(cfg: Config) -> dict:
    """What is told in epochs or iterations."""
    return dict(
        loop={key: cfg.train_cfg.get(key) for key in ('max_epochs', 'max_iters', 'val_interval')},
        schedulers=[
            {key: one[key] for key in ('begin', 'end', 'milestones', 'T_max') if key in one}
            for one in cfg.param_scheduler
        ],
        batch=cfg.train_dataloader.batch_size,
        lr=cfg.optim_wrapper.optimizer.lr,
    )


@pytest.mark.parametrize('name', mark_slow(shipped_configs(), lambda name: name in KINDS))
def test_epochs_and_batch_of_every_config(name, shapes):
    """The same epochs, whatever the schedule counts; ends meet, and warm-ups are short."""
    cfg = pointed(name, shapes)
    before = values(cfg)
    cfg = obeyed(cfg, epochs=50, batch_size=2, lr=0.5)
    after = values(cfg)
    each = math.ceil(IMAGES / 2)
    loop = cfg.train_cfg
    assert loop.get('max_epochs', 0) * each + (loop.get('max_iters') or 0) == 50 * each
    total = loop.get('max_epochs') or loop.max_iters
    assert 1 <= loop.val_interval <= total and after['batch'] == 2 and after['lr'] == 0.5
    iterations = 50 * each
    for one, old in zip(cfg.param_scheduler, before['schedulers']):
        unit = 50 if one.get('by_epoch', True) else iterations
        assert one.get('begin', 0) < one['end'] <= unit, one
        if type_of(one) == 'LinearLR':
            assert one['end'] <= iterations / 10
        if 'milestones' in one:
            old_end = before['loop']['max_epochs']
            scaled = [round(at * 50 / old_end) for at in old['milestones']]
            assert one['milestones'] == scaled and all(at < unit for at in scaled)
    assert max(one['end'] for one in cfg.param_scheduler) in (50, iterations)
    assert cfg.default_hooks.logger.interval <= each * max(1, total // 10)


@pytest.mark.parametrize('name', mark_slow(THEIRS, lambda name: 'rtmdet' in name))
def test_configs_of_mmdet_and_mmseg(name, shapes):
    """Their schedulers and hooks count in several units."""
    cfg = pointed(name, shapes)
    total, hooks = cfg.train_cfg.get('max_epochs'), list(cfg.get('custom_hooks') or ())
    old = [dict(hook) for hook in hooks]
    cfg = obeyed(cfg, epochs=20, batch_size=2)
    if total is None:
        assert cfg.train_cfg.max_iters == 20 * IMAGES / 2
        return
    assert cfg.train_cfg.max_epochs == 20
    for before, after in zip(old, cfg.get('custom_hooks') or ()):
        for key in ('switch_epoch', 'num_last_epochs'):
            if key in before:
                assert after[key] == max(1, round(before[key] * 20 / total))
    for one in cfg.param_scheduler:
        assert one.get('end', 1) <= (20 if one.get('by_epoch', True) else 20 * IMAGES / 2)


@pytest.mark.parametrize('epochs, interval', [(1, 2), (3, 2), (40, 8)])
def test_a_validation_follows_an_epoch_at_the_earliest(epochs, interval, shapes):
    """160,000 iterations with 10 validations say nothing of how often a small set is looked at."""
    cfg = obeyed(pointed(SEGMENTOR, shapes), epochs=epochs, batch_size=2)
    assert cfg.train_cfg.max_iters == epochs * IMAGES / 2
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == interval


def test_iterations_see_as_many_images_in_another_batch(shapes):
    cfg = pointed(SEGMENTOR, shapes)
    batch, total, rate = 4, cfg.train_cfg.max_iters, cfg.optim_wrapper.optimizer.lr
    assert cfg.train_dataloader.batch_size == batch
    cfg = obeyed(cfg, batch_size=16)
    assert cfg.train_cfg.max_iters == total // 4 == cfg.param_scheduler[-1].end
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(4 * rate)
    cfg = pointed(SEGMENTOR, shapes)
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=1e-4)
    assert obeyed(cfg, batch_size=16).optim_wrapper.optimizer.lr == pytest.approx(2e-4)
    cfg = obeyed(pointed(SEGMENTOR, shapes), batch_size=16, auto_scale_lr=True)
    assert cfg.optim_wrapper.optimizer.lr == rate, 'mmengine scales it'


def test_processes_share_an_epoch(shapes):
    cfg = obeyed(pointed(SEGMENTOR, shapes), 4, epochs=10, batch_size=1)
    assert cfg.train_cfg.max_iters == 10


def test_demo_and_epochs(tmp_path, monkeypatch, shapes):
    monkeypatch.chdir(tmp_path)
    own = configure(DETECTOR, demo=True, data=shapes)
    options = PrintOptions(demo=True, data=shapes)
    assert configure(DETECTOR, options).to_dict() == own.to_dict()
    assert own.auto_scale_lr.base_batch_size == own.train_dataloader.batch_size
    cfg = configure(DETECTOR, PrintOptions(demo=True, data=shapes, epochs=7))
    assert cfg.train_cfg.max_iters == 7 * math.ceil(IMAGES / own.train_dataloader.batch_size)
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin <= 1
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_iters


@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
@pytest.mark.parametrize('scratch', [False, True])
def test_small_sets_have_a_schedule(name, scratch, shapes, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    options = build_options(TrainOptions, None, dict(data=shapes, from_scratch=scratch))
    cfg = pointed(name, shapes)
    assert choose_schedule(cfg, options) == 'small'
    apply_options(cfg, options)
    loop, total = cfg.train_cfg, SMALL.epochs * math.ceil(IMAGES / SMALL.batch)
    length = loop.get('max_epochs') or loop.max_iters
    assert length in (SMALL.epochs, total) and loop.val_interval == length // SMALL.validations
    assert cfg.default_hooks.checkpoint.interval == loop.val_interval
    first, second = cfg.param_scheduler
    assert first.end == second.begin == total // 20 and second.end == total
    rate = SMALL.rate_from_scratch if scratch else SMALL.rate
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=rate, weight_decay=0.02)
    assert cfg.train_dataloader.batch_size == SMALL.batch
    assert cfg.auto_scale_lr.base_batch_size == SMALL.batch, (
        '--auto-scale-lr leaves the rate as it is'
    )
    assert obeyed(pointed(name, shapes), 8, schedule='small').auto_scale_lr.base_batch_size == 32


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('given', [dict(schedule='small'), dict(schedule='laptop'), dict(epochs=6)])
def test_iterations_are_counted_with_the_batch_that_is_set(name, given, shapes):
    """By --cfg-options, which is merged last, as by --batch-size."""
    setting = dict(cfg_options={'train_dataloader.batch_size': 2})
    other = obeyed(pointed(name, shapes), **given, **setting)
    option = obeyed(pointed(name, shapes), **given, batch_size=2)
    assert other.train_dataloader.batch_size == 2
    for key in ('loop', 'schedulers'):
        assert values(other)[key] == values(option)[key]
    if 'schedule' in given:
        assert other.to_dict() == option.to_dict(), 'the rate follows the batch'


def test_small_is_chosen_where_nothing_is_said(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = pointed(DETECTOR, shapes)

    def chosen(cfg=cfg, **given):
        given.setdefault('data', shapes)
        return choose_schedule(cfg, build_options(TrainOptions, None, given))

    assert chosen() == chosen(img_size=64) == chosen(batch_size=2) == 'small'
    for said in (
        dict(epochs=3),
        dict(lr=0.1),
        dict(schedule='config'),
        dict(demo=True),
        dict(data=None),
        dict(cfg_options={'train_cfg.max_epochs': 2}),
        dict(cfg_options={'optim_wrapper.optimizer.lr': 2}),
    ):
        assert chosen(**said) == 'config', said
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = 'mmresnest::{DETECTOR}.py'\n")
    assert chosen(pointed(own, shapes)) == 'config', 'a config of the user says its schedule'
    assert chosen(data=None, schedule='small') == 'small'
    cfg = obeyed(pointed(DETECTOR, shapes), data=shapes, schedule='small', epochs=3, batch_size=2)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (3, 2)


def test_images_are_counted_as_they_are_read(shapes):
    for name in (DETECTOR, SEGMENTOR):
        cfg = pointed(name, shapes)
        assert count_images(cfg) == IMAGES
        cfg.train_dataloader.dataset = dict(
            type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset
        )
        assert count_images(cfg) == 3 * IMAGES
        leaf = dataset_configs(cfg.train_dataloader.dataset)[0]
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[leaf, leaf])
        assert count_images(cfg) == 2 * IMAGES
    assert count_images(load_config(DETECTOR)) is None


@pytest.mark.parametrize(
    'name', [DETECTOR, 'mask_rcnn_resnest50_fpn', 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py']
)
def test_size_of_a_detector(name, shapes):
    cfg = obeyed(pointed(name, shapes), img_size=416)
    pipeline = dataset_configs(cfg.test_dataloader.dataset)[0].pipeline
    assert [tuple(step.scale) for step in pipeline if step.get('scale')] == [(416, 416)]
    for step in iterate_dicts(cfg.train_dataloader.dataset):
        for key in ('scale', 'scales', 'img_scale'):
            sizes = step.get(key) or []
            for one in sizes if sizes and isinstance(sizes[0], (list, tuple)) else [sizes]:
                assert not one or max(one) == 416 >= min(one) >= 416 * 0.6


def test_size_of_a_segmentor(shapes):
    cfg = obeyed(pointed(SEGMENTOR, shapes), img_size=128)
    steps = {type_of(step): step for step in iterate_dicts(cfg.train_dataloader.dataset)}
    assert tuple(steps['RandomCrop'].crop_size) == (128, 128)
    assert tuple(cfg.model.data_preprocessor.size) == (128, 128)
    assert tuple(steps['RandomResize'].scale) == (512, 128)
    cfg = obeyed(pointed(SEGMENTOR.replace('ade20k', 'cityscapes'), shapes), img_size=512)
    steps = {type_of(step): step for step in iterate_dicts(cfg.train_dataloader.dataset)}
    assert tuple(steps['RandomCrop'].crop_size) == (256, 512)


def steps_of(cfg: Config) -> list[str]:
    dataset = cfg.train_dataloader.dataset
    leaf = dataset_configs(dataset)[0]
    mixed = dataset.pipeline if dataset is not leaf else []
    return [type_of(step) for step in [*leaf.pipeline, *mixed]]


@pytest.mark.parametrize(
    'name',
    [DETECTOR, 'mask_rcnn_resnest50_fpn', SEGMENTOR, 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'],
)
@pytest.mark.parametrize(
    'level', mark_slow(['none', 'light', 'strong'], lambda level: level == 'strong')
)
def test_augmentation(name, level, shapes):
    """The pipeline has what the level says, and delivers images with what was annotated."""
    from mmengine.registry import DATASETS, DefaultScope

    from mmresnest.config.inspect import import_packages

    cfg = obeyed(pointed(name, shapes), img_size=64, augment=level)
    steps = steps_of(cfg)
    assert ('RandomFlip' in steps) == (level != 'none')
    assert ('PhotoMetricDistortion' in steps) == (level == 'strong')
    assert ('Mosaic' in steps) == (level == 'strong' and task_of(cfg) == 'detection')
    assert not {'MixUp', 'YOLOXHSVRandomAug'} & set(steps)
    assert level != 'none' or not {'RandomResize', 'RandomChoiceResize'} & set(steps)
    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        sample = dataset[0]
    side = max(sample['inputs'].shape[1:])
    assert side == 64 if level == 'none' else 32 <= side <= 64
    with refuses('option.unknown', 'heavy', 'light'):
        obeyed(pointed(DETECTOR, shapes), augment='heavy')


def test_classes_of_the_data(shapes):
    """In whatever order they are named, labels are those of the file: mmdet numbers them by it."""
    cfg = obeyed(pointed(DETECTOR, shapes), classes='ring, disk')
    for name in ('train', 'val', 'test'):
        leaf = dataset_configs(cfg[f'{name}_dataloader'].dataset)[0]
        assert leaf.metainfo.classes == ('disk', 'ring')
    table = json.loads((shapes / 'val.json').read_text())
    names = {row['id']: row['name'] for row in table['categories']}
    from mmengine.registry import DATASETS, DefaultScope

    from mmresnest.config.inspect import import_packages

    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
    found = Counter(
        (row['img_id'], dataset.metainfo['classes'][one['bbox_label']])
        for row in map(dataset.get_data_info, range(len(dataset)))
        for one in row['instances']
    )
    assert found == Counter(
        (row['image_id'], names[row['category_id']])
        for row in table['annotations']
        if names[row['category_id']] in ('disk', 'ring')
    )
    assert {name for _, name in found} == {'disk', 'ring'}
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    with refuses('option.unknown', 'rink', 'ring'):
        obeyed(pointed(DETECTOR, shapes), classes='rink')
    with refuses('option.value', 'ring'):
        obeyed(pointed(DETECTOR, shapes), classes='ring,ring')


def test_classes_of_masks(shapes, tmp_path, monkeypatch):
    """Pixels of other classes are background where there is one, and left out otherwise."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    plain = dataset_configs(pointed(SEGMENTOR, shapes).val_dataloader.dataset)[0]
    former = list(plain.metainfo.classes)
    assert former[0] == 'background'
    cfg = obeyed(pointed(SEGMENTOR, shapes), classes='ring,disk')
    leaf = dataset_configs(cfg.val_dataloader.dataset)[0]
    assert leaf.metainfo.classes == ('background', 'ring', 'disk')
    assert (cfg.model.decode_head.num_classes, cfg.model.auxiliary_head.num_classes) == (3, 3)
    ours, theirs = (read_masks(one) for one in (leaf, plain))
    expected = [{'ring': 1, 'disk': 2}.get(name, 0) for name in former]
    assert (ours == np.array([*expected, *[255] * (256 - len(former))])[theirs]).all()
    assert {0, 1, 2} <= set(np.unique(ours).tolist())

    def rename(one):
        return dict(one, metainfo=dict(classes=['sky', *former[1:]]))

    cfg = pointed(SEGMENTOR, shapes)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset = rename(cfg[f'{name}_dataloader'].dataset)
    with refuses('option.value', '--classes ring', '--mask-values'):
        obeyed(copy.deepcopy(cfg), classes='ring')
    cfg = obeyed(cfg, classes='ring,disk')
    expected = [{'ring': 0, 'disk': 1}.get(name, 255) for name in former]
    ours = read_masks(dataset_configs(cfg.val_dataloader.dataset)[0])
    assert (ours == np.array([*expected, *[255] * (256 - len(former))])[theirs]).all()
    with refuses('option.conflict', 'ADE20KDataset', '--data'):
        obeyed(load_config(SEGMENTOR), classes='wall,sky')


def read_masks(leaf):
    """Return the masks of a data set, one on the other, as training reads them."""
    from mmengine.registry import DATASETS, DefaultScope

    leaf = dict(leaf, type='mmseg.BaseSegDataset', pipeline=[dict(type='LoadAnnotations')])
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(leaf)
        return np.concatenate([dataset[at]['gt_seg_map'] for at in range(len(dataset))])


def test_workers_and_patience(shapes):
    cfg = obeyed(pointed(DETECTOR, shapes), workers=0, patience=4)
    assert {cfg[f'{name}_dataloader'].num_workers for name in ('train', 'val', 'test')} == {0}
    assert not cfg.train_dataloader.persistent_workers
    [hook] = [one for one in cfg.custom_hooks if one.type == 'EarlyStoppingHook']
    assert hook == dict(
        type='EarlyStoppingHook', monitor='coco/bbox_mAP', rule='greater', patience=4
    )
    for name, score in (
        (SEGMENTOR, 'mIoU'),
        ('mask_rcnn_resnest50_fpn', 'coco/segm_mAP'),
        (PANOPTIC, 'coco_panoptic/PQ'),
    ):
        cfg = obeyed(pointed(name, shapes), patience=1)
        assert cfg.custom_hooks[-1].monitor == score


def test_contradictions(shapes):
    cfg = pointed(DETECTOR, shapes)
    for name, value in (
        ('epochs', 0),
        ('batch_size', 0),
        ('lr', 0.0),
        ('lr', math.inf),
        ('patience', 0),
        ('workers', -1),
        ('img_size', 8),
    ):
        with refuses('option.value', f'--{name.replace("_", "-")} {value}'):
            obeyed(cfg, **{name: value})
    for name, keys in SETTINGS.items():
        for key in keys:
            value = 'ring' if name == 'classes' else 1
            with refuses('option.conflict', key, f'--{name.replace("_", "-")}'):
                obeyed(cfg, cfg_options={key: 1}, **{name: value})
    with refuses('option.conflict', '--lr', '--auto-scale-lr'):
        obeyed(cfg, lr=1.0, auto_scale_lr=True)
    cfg.val_cfg = cfg.val_dataloader = None
    with refuses('option.conflict', '--patience'):
        obeyed(cfg, patience=3)
    with refuses('data.missing'):
        obeyed(load_config(SEGMENTOR), epochs=3)
    cfg = pointed(DETECTOR, shapes)
    cfg.optim_wrapper = dict(constructor='mine')
    with refuses('option.conflict', '--lr'):
        obeyed(cfg, lr=1.0)
    cfg.train_cfg = dict(type='MyLoop')
    with refuses('config.incomplete', 'max_epochs'):
        obeyed(cfg, epochs=3)


def test_batch_that_fits():
    """A line through what was measured, never above what was asked of the GPU."""

    def fits(limit, images=100, fails=1000):
        asked = []

        def measure(batch):
            asked.append(batch)
            return None if batch >= fails else 10 + 3 * batch

        return choose_batch_size(measure, limit, images=images), asked

    assert fits(30) == (6, [1, 2, 4, 8])  # 10 + 3 * 6 = 28
    assert fits(10_000)[0] == MOST and fits(10_000, images=5)[0] <= 5
    assert fits(10_000, fails=8)[0] == 7
    with refuses('device.memory', '--img-size'):
        fits(5)


def test_batch_auto_needs_a_gpu(shapes, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with refuses('device.missing', '--batch-size auto'):
        configure(DETECTOR, PrintOptions(data=shapes, batch_size='auto'))
