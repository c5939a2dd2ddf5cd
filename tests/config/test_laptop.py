"""The schedule for laptops: when it is chosen, and what it makes of every config and network."""

import pytest
import torch
from helpers.errors import refuses
from helpers.maps import check_maps
from helpers.tiers import mark_slow
from mmengine.config import Config

from mmresnest.config.architecture import set_architecture
from mmresnest.config.inspect import dataset_configs, iterate_dicts, task_of
from mmresnest.config.load import load_config
from mmresnest.config.options import TrainOptions, build_options
from mmresnest.config.retarget import use_data
from mmresnest.config.schedule import LAPTOP, SMALL, apply_options, choose_schedule
from mmresnest.config.shipped import shipped_configs
from mmresnest.config.widths import BASE_CHANNELS, NARROWER, ROIS
from mmresnest.models.variants import VARIANTS

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('kept_bases')]

DETECTOR, SEGMENTOR = 'faster_rcnn_resnest50_fpn', 'deeplabv3_resnest50_ade20k'
ONE_OF_EACH = ('resnest26', 'res2net50_26w_4s', 'skresnext50_32x4d', 'dla60_res2net')


def fitted(cfg: Config, **given) -> Config:
    apply_options(cfg, build_options(TrainOptions, None, dict(schedule='laptop', **given)))
    return cfg


def pointed(name: str, shapes, **given) -> Config:
    cfg = load_config(name)
    use_data(cfg, shapes)
    return fitted(cfg, **given)


def count_channels(cfg: Config) -> list[int]:
    return [
        channels
        for part in (cfg.model.get('neck'), cfg.model.get('decode_head'))
        if part
        for channels in (
            part.in_channels if isinstance(part.in_channels, (list, tuple)) else [part.in_channels]
        )
    ]


@pytest.mark.parametrize('name', mark_slow(shipped_configs(), lambda name: name == DETECTOR))
def test_every_config(name, shapes, uninitialized):
    """Backbone, neck and heads are narrower and fit each other; the schedule is the small one."""
    before = load_config(name)
    cfg = pointed(name, shapes, from_scratch=True)
    laptop = LAPTOP['semantic' if task_of(cfg) == 'semantic' else 'detection']
    width = before.model.backbone.get('base_channels', BASE_CHANNELS)
    assert cfg.model.backbone.base_channels == width // laptop.thinner
    assert [laptop.thinner * one for one in count_channels(cfg)] == count_channels(before)
    assert cfg.train_dataloader.batch_size == laptop.batch
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    if cfg.model.get('neck'):
        assert cfg.model.neck.out_channels == before.model.neck.out_channels // NARROWER
        nums = [
            node.num for node in iterate_dicts(cfg.model.train_cfg.get('rcnn')) if 'num' in node
        ]
        assert set(nums) == {ROIS}
    check_maps(cfg)


@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
@pytest.mark.parametrize('arch', mark_slow(list(VARIANTS), lambda name: name in ONE_OF_EACH))
def test_every_network(name, arch, shapes, uninitialized):
    cfg = load_config(name)
    set_architecture(cfg, arch, from_scratch=True)
    use_data(cfg, shapes)
    check_maps(fitted(cfg, from_scratch=True))


def test_weights_keep_their_widths(shapes):
    """A backbone that was trained before is what it was; only what begins anew is narrower."""
    for name in (DETECTOR, SEGMENTOR):
        before, cfg = load_config(name), pointed(name, shapes)
        assert 'base_channels' not in cfg.model.backbone
        assert cfg.model.backbone.init_cfg == before.model.backbone.init_cfg
        assert count_channels(cfg) == count_channels(before)
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(
            SMALL.rate * (cfg.train_dataloader.batch_size / SMALL.batch) ** 0.5
        )


def test_size_and_batch_are_obeyed(shapes):
    cfg = pointed(DETECTOR, shapes)
    sizes = {
        tuple(step.scale)
        for step in iterate_dicts(dataset_configs(cfg.test_dataloader.dataset)[0])
        if step.get('scale')
    }
    assert sizes == {(416, 416)}
    cfg = pointed(SEGMENTOR, shapes)
    assert cfg.model.data_preprocessor.size == (256, 256)
    assert cfg.model.decode_head.dilations == (1, 2, 4, 6)
    cfg = pointed(SEGMENTOR, shapes, img_size=128, batch_size=2)
    assert cfg.model.data_preprocessor.size == (128, 128)
    assert cfg.train_dataloader.batch_size == 2


def test_it_is_chosen_without_a_gpu(shapes, monkeypatch):
    def chosen(name=DETECTOR, **given):
        cfg = load_config(name)
        use_data(cfg, shapes)
        return choose_schedule(cfg, build_options(TrainOptions, None, dict(data=shapes, **given)))

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert chosen() == chosen(SEGMENTOR) == chosen(img_size=320) == 'laptop'
    assert chosen(schedule='small') == chosen(load_from='a.pth') == 'small'
    assert chosen('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py') == 'small'
    assert chosen(epochs=3) == chosen(schedule='config') == chosen(demo=True) == 'config'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert chosen() == 'small'
    assert chosen(schedule='laptop') == 'laptop'


@pytest.mark.parametrize('gpu', [False, True])
@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
def test_a_resumed_command_is_the_same_training(name, gpu, shapes, monkeypatch):
    """What a stopped run says: give the same command with --resume."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)

    def read(**given) -> dict:
        cfg = load_config(name)
        use_data(cfg, shapes)
        options = build_options(TrainOptions, None, dict(data=shapes, from_scratch=True, **given))
        apply_options(cfg, options)
        return cfg.to_dict()

    before = read()
    assert before['optim_wrapper']['optimizer']['type'] == 'AdamW'
    assert before == read(resume='auto') == read(resume='if-any') == read(resume='iter_16.pth')


@pytest.mark.parametrize('other', [dict(demo=True), dict(load_from='a.pth')])
def test_what_says_the_widths_is_refused(other, shapes):
    with refuses('option.conflict', 'laptop'):
        pointed(DETECTOR, shapes, **other)
