"""What a training takes: the counters against plain ones, the page against its formula."""

import re
from pathlib import Path

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from mmengine.config import Config
from torch import nn

from mmresnest import build_backbone
from mmresnest.analysis.memory import (
    MemoryEstimate,
    count_saved_bytes,
    count_training_images,
    estimate_step,
)
from mmresnest.config.load import load_config, shipped_configs, shipped_folder

pytestmark = pytest.mark.filterwarnings('ignore')

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'scale.md'
SCHEDULES = sorted((shipped_folder() / '_base_' / 'schedules').glob('*.py'))


def counted(model, *inputs):
    found = {}
    with count_saved_bytes(model, found):
        model(*inputs)
    return sum(found.values())


def kept(model, *inputs):
    """The obvious way: keep whatever is saved, and look at what is kept."""
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: tensors.append(x) or x, lambda x: x):
        result = model(*inputs)
    own = {
        tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]
    }
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
    }
    del result
    return sum(size for address, size in storages.items() if address not in own)


@pytest.mark.parametrize('arguments', [{}, dict(frozen_stages=1), dict(with_cp=True)])
@pytest.mark.parametrize('arch', ['resnest14', 'res2net50_26w_4s', 'seresnext26d_32x4d'])
def test_saved_bytes(arch, arguments):
    torch.manual_seed(0)
    model = build_backbone(arch, pretrained=False, **arguments)
    images = torch.randn(2, 3, 64, 64)
    if 'with_cp' not in arguments:  # there what is kept is not what autograd is given
        assert counted(model, images) == kept(model, images) > 2**20
    else:
        assert 0 < counted(model, images) < kept(build_backbone(arch, pretrained=False), images) / 2
    assert counted(nn.Conv2d(3, 4, 3, bias=False), images) == images.numel() * 4


def test_a_detector_and_a_segmentor(tmp_path):
    detector = tiny.write(tmp_path, 'detection')
    small, large = (estimate_step(detector, shape=shape) for shape in ((64, 64), (64, 128)))
    assert small.shape == (64, 64) and small.params > small.trainable, 'the stem is frozen'
    # Twice the pixels; the box head looks at no more regions than there are.
    assert 1.2 < large.flops / small.flops < 2.1 and 1.2 < large.saved / small.saved < 2.1
    assert estimate_step(tiny.write(tmp_path, 'instance'), shape=(64, 64)).saved > small.saved / 4
    segmentor = tiny.write(tmp_path, 'semantic')
    cost = estimate_step(segmentor, shape=(64, 64))
    assert cost.params == cost.trainable and cost.flops > 0
    assert count_training_images(load_config(segmentor)) == 2 * 16
    assert count_training_images(load_config('faster_rcnn_resnest50_fpn')) == 90_000 * 16
    cfg = load_config(segmentor)
    cfg.pop('crop_size')
    with refuses('option.needed', 'tiny_semantic.py', 'crop_size', '--shape'):
        estimate_step(cfg)


def test_arithmetic():
    cost = MemoryEstimate((1, 1), flops=10**12, saved=2**30, params=1000, trainable=100)
    assert cost.hours(3600, gpus=3, rate=1e12) == 1
    assert cost.memory(2) == 2 * 2**30 + 4 * 1000 + 8 * 100


@pytest.mark.parametrize('path', SCHEDULES, ids=lambda path: path.stem)
def test_every_schedule_says_for_how_many_images_its_rate_is(path):
    scale = Config.fromfile(str(path)).auto_scale_lr
    assert scale.base_batch_size in (8, 16) and scale.enable is False


def test_the_page():
    rows = re.findall(
        r'^\| `(\w+)(?: --arch \w+)?` \| (.+) \|$', PAGE.read_text(encoding='utf-8'), re.M
    )
    assert len(rows) >= 10
    for name, rest in rows:
        assert name in shipped_configs()
        images, shape, flops, saved, params, memory, *hours = rest.split(' | ')
        cost = MemoryEstimate((0, 0), round(float(flops) * 1e9), 0, 0, 0)
        for shown, (rate, gpus) in zip(
            hours, [(r, g) for r in (20e12, 50e12) for g in (1, 8, 64)], strict=True
        ):
            wanted = cost.hours(round(float(images) * 1e6), gpus, rate)
            assert float(shown) == pytest.approx(wanted, rel=0.02), name
        gigabytes, batch = re.fullmatch(r'([\d.]+) \((\d+)\)', memory).groups()
        # Between all frozen and all learned.
        least = float(saved) * int(batch) + 4 * float(params) * 1e6 / 2**30
        assert least - 0.2 < float(gigabytes) < least + 8 * float(params) * 1e6 / 2**30 + 0.2


@pytest.mark.slow
def test_a_row_of_the_page_is_what_is_counted():
    text = PAGE.read_text(encoding='utf-8')
    row = re.search(r'^\| `deeplabv3_resnest50_ade20k` \| (.+) \|$', text, re.M).group(1)
    _, shape, flops, saved, params, memory, *_ = row.split(' | ')
    cost = estimate_step('deeplabv3_resnest50_ade20k')
    assert ' x '.join(map(str, cost.shape)) == shape
    assert f'{cost.flops / 1e9:.0f}' == flops and f'{cost.params / 1e6:.1f}' == params
    assert cost.saved / 2**30 == pytest.approx(float(saved), abs=0.02)
    assert memory == f'{cost.memory(4) / 2**30:.1f} (4)'
