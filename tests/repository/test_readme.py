"""docs/comparison.md and the table of configs in README.md; test_docs.py has what all pages share.

The first compares with the backbones of mmdet and mmseg. What it says of those is shown here, so
that a row goes when they are mended.
"""

import importlib
import re
from fnmatch import fnmatch

import pytest
import torch
from helpers import published
from helpers.documents import PAGES, ROOT
from torch import nn

from mmresnest.models import weights
from mmresnest.models.variants import TABLE

TEXT = PAGES['README.md']

# torch and mmengine warn of their own future where networks of mmdet are built and run
pytestmark = pytest.mark.filterwarnings('ignore')


def test_every_row_about_others_shows_both_sides():
    table = PAGES['docs/comparison.md']
    rows = [line for line in table.splitlines() if line.startswith('| ')][1:]
    assert len(rows) > 10
    for row in rows:
        tests = re.findall(r'`(tests/[^`]+)`', row)
        assert (
            tests[0].startswith('tests/repository/test_readme.py::test_their_') and len(tests) == 2
        ), row


def test_the_first_lines_count_networks_and_configs():
    [said] = re.findall(
        r'(\d+) networks, (\d+) of them with published weights, and (\d+) configs', TEXT
    )
    published_rows = [row for row in TABLE if row.weights]
    configs = list((ROOT / 'configs').glob('*.py'))
    assert [int(number) for number in said] == [len(TABLE), len(published_rows), len(configs)]


def test_every_config_is_in_one_row_of_the_table():
    names = sorted(f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py'))
    rows = [
        re.findall(r'`(configs/\S+)`', line)
        for line in TEXT.splitlines()
        if line.startswith('| `configs/')
    ]
    found = {
        name: [row for row in rows if any(fnmatch(name, pattern) for pattern in row)]
        for name in names
    }
    assert not [name for name, matches in found.items() if len(matches) != 1]
    assert not [
        pattern
        for row in rows
        for pattern in row
        if not any(fnmatch(name, pattern) for name in names)
    ]


# ---- what it says of the backbones of mmdet and mmseg --------------------------------------------

DILATED = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


def theirs(package: str, name: str, **arguments) -> nn.Module:
    """One of their backbones."""
    module = importlib.import_module(f'{package}.models.backbones')
    return getattr(module, name)(**arguments)


def distances(network: nn.Module, case: str) -> list[float]:
    """How far the features of their network are from the published ones, stage by stage.

    The published checkpoint loads strictly, apart from the classifier.
    """
    state = {
        key: value
        for key, value in weights.convert(published.checkpoint(case)).items()
        if not key.startswith(weights.CLASSIFIER)
    }
    network.load_state_dict(state, strict=True)
    network.eval()
    with torch.no_grad():
        maps = network(published.image())
    references = published.CASES[case]['features']
    return [published.distance(*pair) for pair in zip(maps, references, strict=True)]


@pytest.mark.slow
def test_their_resnest_is_right_elsewhere():
    """Else the tests below would prove nothing."""
    assert max(distances(theirs('mmdet', 'ResNeSt', depth=50), 'resnest50')) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('package, more', [('mmdet', {}), ('mmseg', dict(contract_dilation=True))])
def test_their_dilated_resnest(package, more):
    far = distances(theirs(package, 'ResNeSt', depth=50, **DILATED, **more), 'resnest50.stride8')
    assert max(far[:2]) < 1e-4 and min(far[2:]) > 1e-2


@pytest.mark.slow
def test_their_fast_resnest():
    far = distances(theirs('mmdet', 'ResNeSt', depth=50), 'resnest50_fast_2s1x64d')
    assert far[0] < 1e-4 and min(far[1:]) > 1e-2
    with pytest.raises(TypeError, match='avd_first'):
        theirs('mmdet', 'ResNeSt', depth=50, avd_first=True)


@pytest.mark.slow
def test_their_res2net():
    assert distances(theirs('mmdet', 'Res2Net', depth=50), 'res2net50_v1b_26w_4s')[0] > 1e-2
    with torch.device('meta'):
        plain = theirs('mmdet', 'Res2Net', depth=50, deep_stem=False, avg_down=False)
    assert isinstance(plain.stem, nn.Sequential) and not hasattr(plain, 'conv1')
    assert isinstance(plain.layer2[0].downsample[0], nn.AvgPool2d)


@pytest.mark.slow
def test_their_networks():
    for package in ('mmdet', 'mmseg'):
        names = importlib.import_module(f'{package}.models.backbones').__all__
        assert not {'SEResNeXt', 'SENet', 'SEResNet'} & set(names)
        assert ('Res2Net' in names) is (package == 'mmdet')
        for depth in (14, 26, 269):
            with pytest.raises(KeyError, match='invalid depth'):
                theirs(package, 'ResNeSt', depth=depth)


@pytest.mark.slow
def test_their_stem_of_resnest101():
    with torch.device('meta'):
        for package in ('mmdet', 'mmseg'):
            assert theirs(package, 'ResNeSt', depth=101).stem[6].out_channels == 64


@pytest.mark.slow
def test_their_loading(tmp_path):
    """Of a checkpoint in its authors' layout, they load all but the stem, and say so in the log."""
    path = tmp_path / 'official.pth'
    official = published.checkpoint('resnest50')
    torch.save(official, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    network = theirs('mmdet', 'ResNeSt', depth=50, init_cfg=init_cfg)
    before = network.stem[0].weight.clone()
    network.init_weights()
    assert torch.equal(network.stem[0].weight, before)
    assert torch.equal(network.layer1[0].conv1.weight, official['layer1.0.conv1.weight'])

    torch.save(weights.convert(official), path)  # under their own names, but four channels
    network = theirs('mmdet', 'ResNeSt', depth=50, in_channels=4, init_cfg=init_cfg)
    before = network.stem[0].weight.clone()
    network.init_weights()
    assert torch.equal(network.stem[0].weight, before)
    assert torch.equal(network.stem[3].weight, official['conv1.3.weight'])


@pytest.mark.slow
def test_their_checkpointing():
    network = theirs('mmdet', 'ResNeSt', depth=50, with_cp=True, norm_eval=False)
    network.train()
    network(torch.randn(2, 3, 64, 64))[0].mean().backward()
    assert network.stem[1].num_batches_tracked == 1
    assert network.layer1[0].bn1.num_batches_tracked == 2


@pytest.mark.slow
def test_their_zero_init():
    for name, used in (('ResNet', True), ('ResNeSt', False), ('Res2Net', False)):
        network = theirs('mmdet', name, depth=50, zero_init_residual=True)
        network.init_weights()
        assert (not network.layer1[1].bn3.weight.any()) is used, name


@pytest.mark.slow
def test_their_fallback_on_stride():
    for name, more in (('ResNeSt', dict(avg_down_stride=False)), ('Res2Net', {})):
        dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=True)
        network = theirs(
            'mmdet', name, depth=50, dcn=dcn, stage_with_dcn=(False, False, False, True), **more
        )
        assert 'fallback_on_stride' not in dcn
        strided = [
            part
            for part in network.layer4[0].modules()
            if getattr(part, 'stride', None) == (2, 2) and hasattr(part, 'conv_offset')
        ]
        assert strided, name


@pytest.mark.slow
def test_their_batch_of_one():
    network = theirs('mmdet', 'ResNeSt', depth=50, norm_eval=False)
    network.train()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        network(torch.randn(1, 3, 64, 64))


@pytest.mark.slow
def test_their_sync_bn():
    with torch.device('meta'):
        for package in ('mmdet', 'mmseg'):
            network = theirs(package, 'ResNeSt', depth=50, norm_cfg=dict(type='SyncBN'))
            assert isinstance(network.layer1[0].bn1, nn.SyncBatchNorm)


@pytest.mark.slow
def test_their_modes():
    with torch.device('meta'):
        for package in ('mmdet', 'mmseg'):
            assert theirs(package, 'ResNeSt', depth=50).eval() is None
