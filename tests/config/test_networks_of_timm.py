"""Detectors and segmentors with a network by ``--arch``, timm's among them."""

import subprocess
import sys
from math import isfinite
from pathlib import Path

import pytest
import torch
from helpers.optional import import_or_skip
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mmresnest.analysis.benchmark_models import benchmark_models
from mmresnest.analysis.memory import make_sample
from mmresnest.config.inspect import import_packages, task_of
from mmresnest.config.retarget import start_from_scratch
from mmresnest.engine.prepare import configure
from mmresnest.models.norms import replace_sync_norms
from mmresnest.models.variants import pixel_statistics, variant

pytestmark = pytest.mark.filterwarnings('ignore')

CONFIGS = {
    'faster_rcnn': 'faster_rcnn_resnest50_fpn',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'deeplabv3': 'deeplabv3_resnest50_ade20k',
}
ARCHS = (
    'skresnext50_32x4d',
    'dla60_res2net',
    'timm/convnext_tiny',
    'timm/xception65',
    'timm/inception_v4',
)
UNDILATED = ('timm/inception_v4',)
"""Networks that keep their stride of 32 in a config whose stages are dilated."""
UNPADDED = {'timm/inception_v4': 4}
"""Networks whose convolutions do not pad -> how much smaller their maps are at most."""
EVERY = [(name, arch) for name in CONFIGS for arch in ARCHS]
SIZE = (107, 139)  # no multiple of 32 in either direction; inception_v4 needs 75 at least
SMALL = {
    'faster_rcnn': {
        'model.roi_head.bbox_head.conv_out_channels': 32,
        'model.roi_head.bbox_head.fc_out_channels': 64,
        'model.train_cfg.rcnn.sampler.num': 32,
        'model.test_cfg.rpn.max_per_img': 50,
        'model.data_preprocessor.pad_size_divisor': 1,
    },
    'retinanet': {'model.data_preprocessor.pad_size_divisor': 1},
    'deeplabv3': {'model.data_preprocessor.size': list(SIZE)},
}
"""Few regions through narrow heads, and images that reach the network at the size they have."""


TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'measure_archs.py'


@pytest.fixture(scope='module')
def timm():
    return import_or_skip('timm')


def configure_model(name, arch):
    """The config of a model as commands make it, on one processor."""
    cfg = configure(CONFIGS[name], arch=arch, cfg_options=SMALL[name])
    replace_sync_norms(cfg.model)
    import_packages(cfg)
    return cfg


def build_model(settings, scope):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(settings).train()


def draw_batch(cfg):
    samples = [make_sample(task_of(cfg), *SIZE, 3) for _ in range(2)]
    images = [torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def assert_strides(maps, arch, strides):
    assert len(maps) == len(strides)
    for x, stride in zip(maps, strides):
        for side, found in zip(SIZE, x.shape[2:]):
            most = -(-side // stride)
            assert side // stride - UNPADDED.get(arch, 0) <= found <= most, (stride, found)


@pytest.mark.parametrize('name, arch', EVERY)
def test_a_training_step_and_a_prediction(timm, name, arch):
    cfg = configure_model(name, arch)
    start_from_scratch(cfg)  # which thaws the stages that are frozen
    if cfg.model.backbone.type == 'mmresnest.SKNet':  # blocks that begin as none learn a step later
        cfg.model.backbone.zero_init_residual = False
    model = build_model(cfg.model, cfg.default_scope)
    batch = draw_batch(cfg)
    backbone = model.backbone
    learned = {key: one for key, one in backbone.named_parameters() if one.requires_grad}
    reached = {}
    for key, one in learned.items():
        one.register_hook(lambda gradient, key=key: reached.update({key: gradient.norm().item()}))
    before = {key: one.detach().clone() for key, one in learned.items()}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        logs = model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
        with torch.no_grad():
            found = model.eval().test_step(batch)
    assert torch.isfinite(logs['loss']) and logs['loss'] > 0
    assert reached.keys() == learned.keys() and all(map(isfinite, reached.values()))
    names = [key for key, _ in backbone.named_parameters()]
    for key in (names[0], names[-1]):
        assert reached[key] > 0 and not torch.equal(before[key], learned[key]), key
    assert len(found) == 2
    for sample in found:
        if name == 'deeplabv3':
            assert sample.seg_logits.data.shape == (150, *SIZE)
            assert sample.pred_sem_seg.data.shape == (1, *SIZE)
            continue
        boxes, objects = sample.pred_instances.bboxes, len(sample.pred_instances)
        assert boxes.shape == (objects, 4) and sample.pred_instances.scores.shape == (objects,)
        assert boxes.isfinite().all() and (boxes >= 0).all()
        assert (boxes[:, 0::2] <= SIZE[1]).all() and (boxes[:, 1::2] <= SIZE[0]).all()


@pytest.mark.parametrize('name, arch', EVERY)
def test_maps_pixels_and_frozen_stages(timm, name, arch):
    """Of the network that a config has: what is kept of the former one, and what changes."""
    cfg = configure_model(name, arch)
    given = cfg.model.data_preprocessor
    if arch.startswith('timm/'):
        settings = timm.get_pretrained_cfg(arch.removeprefix('timm/'))
        wanted = {key: [255 * one for one in getattr(settings, key)] for key in ('mean', 'std')}
    else:
        wanted = pixel_statistics(variant(arch).type, detects=name != 'deeplabv3')
    assert given.bgr_to_rgb and [given.mean, given.std] == [wanted['mean'], wanted['std']]

    assert name == 'deeplabv3' or cfg.model.backbone.frozen_stages == 1
    backbone = build_model({**cfg.model.backbone, 'frozen_stages': 1}, cfg.default_scope)
    images = torch.randn(2, 3, *SIZE)
    maps = backbone(images)
    dilated = name == 'deeplabv3' and arch not in UNDILATED
    assert_strides(maps, arch, (4, 8, 8, 8) if dilated else (4, 8, 16, 32))
    channels = [x.shape[1] for x in maps]
    assert channels == list(backbone.out_channels)
    if name == 'deeplabv3':
        read = [cfg.model.auxiliary_head.in_channels, cfg.model.decode_head.in_channels]
        assert read == channels[2:]
    else:
        assert list(cfg.model.neck.in_channels) == channels

    # In training mode, so that statistics would move; by their output, whatever modules are called.
    optimizer = torch.optim.SGD([one for one in backbone.parameters() if one.requires_grad], lr=0.1)
    sum((x * torch.randn_like(x)).mean() for x in maps).backward()
    optimizer.step()
    after = backbone(images)
    assert torch.equal(maps[0], after[0])
    assert not any(torch.equal(x, y) for x, y in zip(maps[1:], after[1:]))
    if cfg.model.backbone.get('norm_eval'):
        norms = [one for one in backbone.modules() if isinstance(one, torch.nn.BatchNorm2d)]
        assert not any(one.training for one in norms)


def test_the_tool_measures_and_names_what_it_cannot(timm):
    options = ('--models', 'retinanet', '--times', '1', '--size', '96', '128')
    run = subprocess.run(
        [sys.executable, TOOL, *options, '--archs', 'timm/inception_v4', 'timm/resnest50d'],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stderr  # of the second
    name, arch, *figures = run.stdout.splitlines()[2].split()
    assert (name, arch) == ('retinanet', 'timm/inception_v4')
    params, training, prediction, most, less = map(float, figures)
    assert 40 < params < 60 and training > 0 and prediction > 0 and most > less > params * 4
    assert 'write arch resnest50 ' in run.stdout.splitlines()[3]


def test_whole_models_are_timed_and_fused(timm):
    rows = benchmark_models(['deeplabv3'], arch='timm/convnext_atto', size=(1, 64, 96), repeats=1)
    assert [row.form for row in rows] == ['plain', 'fused']  # mmseg has no such network
    assert rows[1].objects == rows[0].objects > 0 and rows[1].difference < 1e-5
