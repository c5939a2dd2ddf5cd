"""mmdet's and mmseg's published ResNeSt and Res2Net configs, the type of the backbone prefixed.

Nothing else is changed for the builds. The training steps keep the backbone's published depth,
width and output stride, and shrink images, necks and heads; the weights are random, for the
published ones would have to be fetched.
"""

import re
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.tiers import mark_slow
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmresnest.config.demo import shrink_crops
from mmresnest.config.hardware import configure_norms
from mmresnest.config.inspect import import_packages, iterate_dicts, task_of
from mmresnest.config.load import load_config, shipped_folder
from mmresnest.config.widths import narrow_detector, narrow_segmentor
from mmresnest.models import backbones

SIZE = 64  # px: layer4 still has more than one place
ROIS = 16  # sampled per image


def published() -> list[str]:
    """The names of the configs, as ``load_config`` takes them."""
    names = []
    for package in ('mmdet', 'mmseg'):
        folder = Path(find_spec(package).origin).parent / '.mim' / 'configs'
        inner = sorted(path.relative_to(folder).as_posix() for path in folder.glob('*/*.py'))
        names += [f'{package}::{name}' for name in inner if 'resnest' in name or 'res2net' in name]
    return names


PUBLISHED = published()
every = pytest.mark.parametrize('name', PUBLISHED)
STEPPED = list({re.sub(r'_s(50|101)|_4xb[24]-.*', '', name): name for name in PUBLISHED}.values())
"""One config of each head and family: depth, data set and schedule do not decide about a step."""
few = pytest.mark.parametrize('name', mark_slow(PUBLISHED, lambda name: name in PUBLISHED[::12]))


def load(name: str) -> Config:
    cfg = load_config(name)
    import_packages(cfg)
    configure_norms(cfg, distributed=False)  # as every tool does
    return cfg


def switch_over(backbone: dict) -> dict:
    """All that a user changes."""
    return dict(deepcopy(backbone), type='mmresnest.' + backbone['type'])


def build(cfg: Config, part: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(part)


def narrow(cfg: Config) -> None:
    if task_of(cfg) == 'semantic':
        narrow_segmentor(cfg.model)
        shrink_crops(cfg.model, SIZE)
        return
    narrow_detector(cfg.model)
    for node in iterate_dicts(cfg.model.train_cfg.get('rcnn')):
        if 'num' in node:
            node.num = ROIS


def object_sample() -> DetDataSample:
    """Two objects, with all that any of the detectors learns from."""
    boxes = [[4, 6, 40, 44], [30, 20, 62, 60]]
    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    shape = (SIZE, SIZE)
    return DetDataSample(
        metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)),
        gt_instances=InstanceData(
            bboxes=HorizontalBoxes(boxes, dtype=torch.float32),
            labels=torch.tensor([1, 7]),
            masks=BitmapMasks(masks, SIZE, SIZE),
        ),
        ignored_instances=InstanceData(
            bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
        ),
        gt_sem_seg=PixelData(sem_seg=torch.randint(0, 19, (1, SIZE, SIZE))),
    )


def semantic_sample() -> SegDataSample:
    return SegDataSample(
        metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE)),
        gt_sem_seg=PixelData(data=torch.randint(0, 19, (1, SIZE, SIZE))),
    )


def batch(cfg: Config) -> dict:
    sample = semantic_sample if task_of(cfg) == 'semantic' else object_sample
    return dict(
        inputs=[torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample() for _ in range(2)],
    )


def part_of(parameter: str) -> str:
    """A stage of the backbone, one head of a cascade, or another part of the model."""
    names = parameter.split('.')
    depth = dict(backbone=2, roi_head=3 if names[2].isdigit() else 2).get(names[0], 1)
    return '.'.join(names[:depth])


def test_none_is_missed():
    stems = [name.partition('/')[2] for name in PUBLISHED]
    known = [
        f'{detector}_{backbone}'
        for detector in ('faster-rcnn', 'mask-rcnn', 'cascade-rcnn', 'cascade-mask-rcnn')
        for backbone in ('s50', 's101', 'res2net-101')
    ]
    known += ['htc_res2net-101', 'vfnet_res2net-101', 'vfnet_res2net101-mdconv']
    known += [f'resnest_s101-d8_{head}' for head in ('fcn', 'pspnet', 'deeplabv3', 'deeplabv3plus')]
    for start in known:
        assert any(stem.startswith(start + end) for stem in stems for end in ('_', '-')), start


@few
def test_builds_as_published(name, uninitialized):
    cfg = load(name)
    class_ = getattr(backbones, cfg.model.backbone.type)
    cfg.model.backbone = switch_over(cfg.model.backbone)
    with torch.device('meta'):
        model = build(cfg, cfg.model)
    assert type(model.backbone) is class_
    assert model.backbone.init_cfg['checkpoint'].startswith('open-mmlab://')


@pytest.mark.parametrize('name', mark_slow(STEPPED, lambda name: name in STEPPED[::8]))
@pytest.mark.filterwarnings('ignore:torch.meshgrid:UserWarning')  # VFNet's generator of points
def test_takes_a_training_step(name):
    torch.manual_seed(0)
    cfg = load(name)
    backbone = switch_over(cfg.model.backbone)
    cfg.model.backbone = deepcopy(backbone)
    narrow(cfg)
    assert cfg.model.backbone == backbone
    model = build(cfg, cfg.model)
    model.backbone.init_cfg = None  # the one thing that is left out: nothing is fetched
    model.init_weights()
    model.train()

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrapper.zero_grad = lambda: None  # train_step would clear what is looked at below
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    losses = model.train_step(batch(cfg), wrapper)

    assert sum('loss' in key for key in losses) > 1
    assert all(torch.isfinite(value).all() for value in losses.values()), losses
    learned: dict[str, float] = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            size = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
            learned[part_of(key)] = max(learned.get(part_of(key), 0.0), size)
    assert all(0 < size < float('inf') for size in learned.values()), learned
    # Several processes would wait forever for a parameter that takes no part in the loss.
    assert all(
        (parameter.grad is not None) is parameter.requires_grad
        for parameter in model.backbone.parameters()
    )

    frozen = cfg.model.backbone.get('frozen_stages', -1) >= 0
    for stage in ('stem', 'layer1', 'layer2', 'layer3', 'layer4'):
        moved = any(
            not torch.equal(value, before[key])
            for key, value in model.backbone.state_dict().items()
            if key.startswith(stage + '.')
        )
        assert moved is not (frozen and stage in ('stem', 'layer1')), stage
        assert (f'backbone.{stage}' in learned) is moved, stage


def shapes(backbone: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in backbone.state_dict().items()}


def trainable(backbone: nn.Module) -> set[str]:
    return {key for key, parameter in backbone.named_parameters() if parameter.requires_grad}


def evaluating(backbone: nn.Module) -> set[str]:
    """The norms that use their running statistics in training."""
    return {
        key
        for key, module in backbone.named_modules()
        if isinstance(module, _BatchNorm) and not module.training
    }


@pytest.mark.slow
def test_state_is_that_of_the_built_in_class(uninitialized):
    """Names and shapes of the tensors, and what of them a training changes."""
    compared = []
    for name in PUBLISHED:
        cfg = load(name)
        backbone = dict(cfg.model.backbone, init_cfg=None, of=cfg.default_scope)
        if backbone in compared:  # many configs differ in their heads alone
            continue
        compared.append(backbone)
        with torch.device('meta'):
            theirs = build(cfg, deepcopy(cfg.model.backbone))
            ours = build(cfg, switch_over(cfg.model.backbone))
        theirs.train()
        ours.train()
        assert type(theirs).__module__.startswith(cfg.default_scope), name
        assert type(ours).__module__ == 'mmresnest.models.backbones', name
        for view in (shapes, trainable, evaluating):
            assert view(ours) == view(theirs), name
    # two depths of ResNeSt, one dilated; Res2Net plain and deformable
    assert len(compared) >= 5


# Our configs that take the zoos' checkpoints ------------------------------------------------------


def zoo() -> dict[str, str]:
    """File name of a zoo's checkpoint -> the config it was trained by."""
    found = {}
    for package in ('mmdet', 'mmseg'):
        folder = Path(find_spec(package).origin).parent / '.mim'
        for family in ('resnest', 'res2net'):
            for path in (folder / 'configs' / family).glob('metafile.y*ml'):
                table = yaml.safe_load(path.read_text(encoding='utf-8'))
                for model in table['Models'] if isinstance(table, dict) else table:
                    inner = model['Config'].removeprefix('configs/')
                    found[model['Weights'].rpartition('/')[2]] = f'{package}::{inner}'
    return found


def with_weights() -> dict[Path, str]:
    """Config of ours -> file name of the weights that its header names."""
    headers = {
        path: path.read_text(encoding='utf-8') for path in sorted(shipped_folder().glob('*.py'))
    }
    return {
        path: match[1]
        for path, text in headers.items()
        if (match := re.search(r'^Weights: \S+/(\S+)$', text, re.MULTILINE))
    }


OF_ZOO = with_weights()


def test_all_checkpoints_of_the_zoos_have_a_config():
    assert set(OF_ZOO.values()) == set(zoo())


@pytest.mark.slow
@pytest.mark.parametrize('path', OF_ZOO, ids=lambda path: path.stem)
def test_our_config_of_a_checkpoint_is_the_zoo_s(path, uninitialized):
    """All but the backbone to the letter, and every tensor of the model by name and shape."""
    ours, theirs = load(str(path)), load(zoo()[OF_ZOO[path]])
    for part in ours.model.keys() | theirs.model.keys():
        if part not in ('backbone', 'pretrained', '_scope_'):
            one, other = (settled(cfg.model.get(part)) for cfg in (ours, theirs))
            assert one == other, part
    assert settled(ours.param_scheduler) == settled(theirs.param_scheduler)
    assert settled(ours.optim_wrapper.optimizer) == settled(theirs.optim_wrapper.optimizer)
    theirs.model.pop('pretrained', None)  # an older way to name weights, warned of
    with torch.device('meta'):
        models = [build(cfg, cfg.model) for cfg in (ours, theirs)]
    assert shapes(models[0]) == shapes(models[1])
    assert trainable(models[0]) == trainable(models[1])


def settled(part: Any) -> Any:
    """A part of a config without the scope that mmengine notes in what is inherited, or nothing."""
    if isinstance(part, dict):
        return {
            key: settled(value)
            for key, value in part.items()
            if key != '_scope_' and value is not None
        }
    return [settled(one) for one in part] if isinstance(part, (list, tuple)) else part
