"""Layouts of published checkpoints, and loading that tells the truth."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import published
from helpers.deform import Conv, deform_twin
from helpers.errors import check_refused, refuses
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint

import mmresnest
from mmresnest.cli import main
from mmresnest.models import backbones, weights
from mmresnest.models.variants import VARIANTS
from mmresnest.models.weights import download, hub, reader
from mmresnest.security import torch_load
from mmresnest.utils.env import TRUST

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def network(arch: str = 'resnest14', **arguments):
    return mmresnest.build_backbone(arch, **arguments)


def save(tmp_path, content, name='file.pth') -> str:
    path = tmp_path / name
    torch.save(content, path)
    return str(path)


@pytest.fixture(scope='module')
def official() -> dict:
    """resnest14 in its authors' layout, classifier included."""
    return published.checkpoint('resnest14')


def equal(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def names(case: str) -> dict[str, str]:
    """A published checkpoint with its keys in the tensors' places."""
    return {key: key for key in published.CASES[case]['state_dict']}


@pytest.mark.parametrize('layout', weights.LAYOUTS)
@pytest.mark.parametrize('name', published.CASES)
def test_conversion_is_total_and_reversible(name, layout):
    source = names(name)
    has_sk_or_se = name.startswith(('res2', 'se', 'legacy', 'sk'))
    is_dla = layout == 'dla', name.startswith('dla')
    if (
        layout == 'detectron2'
        and has_sk_or_se
        or is_dla == (True, False)
        or (is_dla == (False, True) and layout not in ('official', 'mmdet'))
    ):
        with refuses('weights.layout', f'{layout} layout'):  # neither SE nor Res2Net there
            weights.convert(source, layout)
        return
    converted = weights.convert(source, layout)
    assert sorted(converted.values()) == sorted(source)
    found = weights.recognize_backbone(source).layout
    assert weights.convert(converted, found) == source
    assert weights.recognize_backbone(converted).layout in (
        layout,
        found,
        'official',
    )  # shared names


@pytest.mark.parametrize('name', ['resnest14', 'resnet50', 'resnet50d'])
def test_any_layout_from_any_other(name):
    source = names(name)
    layouts = [layout for layout in weights.LAYOUTS if layout != 'dla']
    for one in layouts:
        for two in layouts:
            way = weights.convert(weights.convert(source, one), two)
            assert weights.convert(way, 'official') == source, (one, two)


def test_layouts_by_other_names():
    assert weights.convert(names('resnest14'), 'timm') == names('resnest14')
    assert 'stem.0.weight' in weights.convert(names('resnest14'), 'MMSeg')


def test_an_unknown_key_is_refused(official):
    with refuses('weights.unknown-keys', 'layer9x'):
        weights.convert({**official, 'layer9x.weight': torch.zeros(1)})
    with refuses('option.unknown', "'keras'", 'legal: cadene'):
        weights.convert(official, 'keras')


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
@pytest.mark.parametrize('wrapper', [None, *reader.WRAPPERS])
def test_wrapped_and_prefixed(tmp_path, official, prefix, wrapper):
    state = {
        prefix + key: value
        for key, value in official.items()
        if not (prefix and key.startswith('fc.'))
    }
    file = save(tmp_path, state if wrapper is None else {wrapper: state, 'epoch': 3})
    built = network()
    report = weights.load(built, file)
    assert report.filled == report.total == len(built.state_dict())
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])


def test_a_detector_s_checkpoint_fills_its_backbone(tmp_path, official):
    """Heads beside the backbone are not its business; unknown keys under its prefix are."""
    state = {
        'backbone.' + key: value for key, value in official.items() if not key.startswith('fc.')
    }
    state['neck.conv.weight'] = torch.zeros(3)
    report = weights.load(network(), save(tmp_path, state))
    assert report.filled == report.total and report.left_out == ()
    state['backbone.wheel.weight'] = torch.zeros(3)
    with refuses('weights.misfit', '1 tensors', 'wheel.weight'):
        weights.load(network(), save(tmp_path, state))


def test_through_load_state_dict_at_any_prefix(official):
    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = network()

    detector = Detector()
    state = {
        'backbone.' + key: value for key, value in official.items() if not key.startswith('fc.')
    }
    detector.load_state_dict(state, strict=True)
    assert torch.equal(detector.backbone.stem[7].weight, official['bn1.weight'])


def test_wrapped_twice(tmp_path, official):
    file = save(tmp_path, dict(model=dict(state_dict=official), state_dict_ema=None))
    assert weights.load(network(), file).left_out == ('fc',)


def test_through_init_cfg(tmp_path, official):
    built = backbones.ResNeSt(
        'resnest14', init_cfg=dict(type='Pretrained', checkpoint=save(tmp_path, official))
    )
    built.init_weights()
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])
    assert built.is_init


@pytest.mark.parametrize(
    'change, code, parts',
    [
        (
            lambda s: {k: v for k, v in s.items() if k != 'layer3.0.conv3.weight'},
            'weights.misfit',
            ['1 tensors of the network', 'layer3.0.conv3.weight'],
        ),
        (
            lambda s: {**s, 'layer3.0.conv3.weight': torch.zeros(3, 3, 1, 1)},
            'weights.misfit',
            ['layer3.0.conv3.weight: (3, 3, 1, 1)', '(1024, 256, 1, 1)'],
        ),
        (
            lambda s: {**s, 'layer1.0.conv9.weight': torch.zeros(1)},
            'weights.misfit',
            ['1 tensors of the file', 'layer1.0.conv9.weight'],
        ),
        (
            lambda s: {'wheel.' + k[:3]: v for k, v in s.items()},
            'weights.unknown-keys',
            ['wheel.con, wheel.bn1, wheel.lay'],
        ),
        (lambda s: {}, 'checkpoint.unreadable', []),
        (lambda s: [1, 2], 'checkpoint.unreadable', []),
    ],
)
def test_what_does_not_fill_the_network_is_refused(tmp_path, official, change, code, parts):
    with refuses(code, tmp_path, *parts):
        weights.load(network(), save(tmp_path, change(official)))


def test_a_foreign_network_is_named(tmp_path, official):
    with refuses('weights.misfit', "arch='resnest14'"):
        weights.load(network('resnest26'), save(tmp_path, official))


def test_nothing_is_changed_by_a_refusal(tmp_path, official):
    built = network('resnest26')
    before = {key: value.clone() for key, value in built.state_dict().items()}
    with refuses('weights.misfit', 'layer1.1.conv1.weight'):
        weights.load(built, save(tmp_path, official))
    assert equal(before, built.state_dict())


@pytest.mark.parametrize('channels', [1, 2, 4, 6])
def test_other_image_channels(tmp_path, official, channels):
    built = network(in_channels=channels).eval()
    weights.load(built, save(tmp_path, official))
    rgb = official['conv1.0.weight']
    assert built.stem[0].weight.shape[1] == channels
    grey = torch.randn(1, 1, 32, 32)
    response = torch.nn.functional.conv2d(grey.expand(1, 3, 32, 32), rgb, None, 2, 1)
    if channels in (1, 6):  # a picture that is the same in all channels answers alike
        ours = built.stem[0](grey.expand(1, channels, 32, 32))
        torch.testing.assert_close(ours, response, rtol=1e-4, atol=1e-5)


def test_the_stage_that_is_not_built_is_left_out_by_name(tmp_path, official):
    report = weights.load(network(out_indices=(0, 2)), save(tmp_path, official))
    assert report.left_out == ('fc', 'layer4')
    assert 'left out fc, layer4' in str(report)


@pytest.mark.parametrize('size', [0, 10, 1000, -100])
def test_a_truncated_file_is_refused(tmp_path, official, size):
    path = tmp_path / 'file.pth'
    torch.save(official, path)
    path.write_bytes(path.read_bytes()[:size])
    with refuses('checkpoint.unreadable'):
        weights.load(network(), str(path))


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Gadget:
        def __reduce__(self):
            return (exec, (f'open({str(tmp_path / "ran")!r}, "w")',))

    path = tmp_path / 'file.pth'
    path.write_bytes(pickle.dumps(dict(weight=Gadget())))
    with refuses('checkpoint.unreadable'):
        weights.load(network(), str(path))
    torch.save(dict(weight=Gadget()), path)
    with refuses('checkpoint.unsafe'):
        weights.load(network(), str(path))
    assert not (tmp_path / 'ran').exists()


def test_a_published_name_must_have_its_hash(tmp_path, official):
    name = VARIANTS['resnest14'].weights[0].file
    with refuses('weights.other-hash', 'sha256'):
        weights.load(network(), save(tmp_path, official, name))


def test_published_weights_come_from_the_cache(tmp_path, official, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    file = VARIANTS['resnest14'].weights[0].file
    path = tmp_path / 'checkpoints' / file
    torch.save(official, path)
    monkeypatch.setitem(hub.PUBLISHED, file, hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    built = mmresnest.build_backbone('resnest14', pretrained=True)
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])


def test_offline_says_what_to_put_where(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(download, 'urlopen', refuse)
    with refuses('weights.download-failed', 'resnest50-528c19ca.pth') as caught:
        mmresnest.build_backbone('resnest50', pretrained=True)
    assert str(tmp_path) in str(caught.value) and 'from-scratch' in str(caught.value)
    with refuses('weights.unpublished'):
        mmresnest.build_backbone('res2net152_v1b_26w_4s', pretrained=True)
    with refuses('checkpoint.missing'):
        mmresnest.build_backbone('resnest14', pretrained='nowhere.pth')


# ---- layouts ------------------------------------------------------------------------------------


def test_keys_of_mmpretrain():
    """As its classes name them: read off mmpretrain's resnet.py, resnest.py and seresnet.py."""
    keys = weights.convert(names('resnest50'), 'mmpretrain')
    assert keys['backbone.stem.0.conv.weight'] == 'conv1.0.weight'
    assert keys['backbone.stem.2.bn.running_var'] == 'bn1.running_var'
    assert keys['backbone.layer1.0.downsample.0.weight'] == 'layer1.0.downsample.1.weight'
    assert keys['backbone.layer2.0.downsample.2.bias'] == 'layer2.0.downsample.2.bias'
    assert keys['head.fc.bias'] == 'fc.bias'
    keys = weights.convert(names('seresnet50'), 'mmpretrain')
    assert keys['backbone.layer1.0.se_layer.conv1.conv.bias'] == 'layer1.0.se.fc1.bias'
    keys = weights.convert(names('res2net50_v1b_26w_4s'), 'mmpretrain')  # layers of its own
    assert keys['backbone.layer1.0.downsample.2.bias'] == 'layer1.0.downsample.2.bias'
    keys = weights.convert(names('resnet50'), 'mmpretrain')
    found = weights.recognize_backbone(keys)
    assert (found.layout, found.prefix) == ('mmpretrain', 'backbone.')


def test_keys_of_detectron2():
    """As the ResNeSt authors' resnest/d2 names them."""
    keys = weights.convert(names('resnest50'), 'detectron2')
    assert keys['stem.conv1_1.weight'] == 'conv1.0.weight'
    assert keys['stem.conv1_3.norm.weight'] == 'bn1.weight'
    assert keys['res2.0.conv1.norm.bias'] == 'layer1.0.bn1.bias'
    assert keys['res5.2.conv2.bn0.running_mean'] == 'layer4.2.conv2.bn0.running_mean'
    assert keys['res3.0.shortcut.weight'] == 'layer2.0.downsample.1.weight'
    assert keys['res3.0.shortcut.norm.weight'] == 'layer2.0.downsample.2.weight'
    assert keys['linear.weight'] == 'fc.weight'
    keys = weights.convert(names('resnet50'), 'detectron2')
    assert keys['stem.conv1.norm.weight'] == 'bn1.weight'
    assert keys['res2.0.shortcut.weight'] == 'layer1.0.downsample.0.weight'


def test_group_norm_is_spelt_gn_by_mm():
    from mmdet.models.backbones import ResNeSt

    arguments = dict(depth=50, norm_cfg=dict(type='GN', num_groups=8), out_indices=(0,))
    theirs = ResNeSt(**arguments)
    assert 'layer1.0.conv2.gn0.weight' in theirs.state_dict()
    ours = backbones.ResNeSt(**{**arguments, 'out_indices': (0, 1, 2, 3)})
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(ours.layer1[0].conv2.bn0.weight, theirs.layer1[0].conv2.gn0.weight)
    assert weights.convert(weights.convert(theirs.state_dict()), 'mmdet-gn').keys() == (
        theirs.state_dict().keys()
    )


@pytest.mark.slow
def test_group_norm_of_mmpretrain():
    """Its stem is of ConvModules, which name a norm by its kind, without a number."""

    def norm(channels):
        return torch.nn.GroupNorm(8, channels)

    for arch in ('resnest14', 'resnet50d', 'seresnext26d_32x4d', 'seresnext26_32x4d', 'resnet50'):
        ours = network(arch, norm=norm)
        ours.load_state_dict(
            {
                key: published.draw(key, list(value.shape))
                for key, value in ours.state_dict().items()
            }
        )
        state = weights.convert(ours.state_dict(), 'mmpretrain-gn')
        deep = 'backbone.conv1.weight' not in state
        assert ('backbone.stem.2.gn.weight' if deep else 'backbone.gn1.weight') in state
        assert 'backbone.layer4.0.gn3.bias' in state
        assert not [key for key in state if '.bn' in key or 'running' in key]
        # A pool takes no place in a shortcut of stride 1.
        assert ('backbone.layer1.0.downsample.0.weight' in state) and (
            'backbone.layer1.0.downsample.2.weight' not in state
        )
        assert ('backbone.layer2.0.downsample.2.weight' in state) is deep
        if deep or 'se' in arch:
            found = weights.recognize_backbone(state)
            assert (found.layout, found.prefix) == ('mmpretrain-gn', 'backbone.')
        twin = Detector(network(arch, norm=norm))
        assert not equal(ours.state_dict(), twin.backbone.state_dict())
        twin.load_state_dict(state, strict=False)
        assert equal(ours.state_dict(), twin.backbone.state_dict())
        with refuses('weights.misfit', 'backbone.*', 'running_mean'):
            Detector(network(arch)).load_state_dict(state, strict=False)  # of batch norms
    from mmcv.cnn import ConvModule

    theirs = ConvModule(3, 32, 3, 2, 1, norm_cfg=dict(type='GN', num_groups=8)).state_dict()
    state = weights.convert(network(norm=norm).state_dict(), 'mmpretrain-gn')
    assert theirs.keys() == {
        key.removeprefix('backbone.stem.0.') for key in state if key.startswith('backbone.stem.0.')
    }


# As detectron2's fork has them: two deformable groups in stages 2 to 4, each from its channels.
DEFORMABLE = dict(dcn=dict(type='DCNv2', deform_groups=2), stage_with_dcn=(False, True, True, True))


@pytest.fixture(scope='module')
def forked() -> dict:
    """resnest14 with deformable convolutions, in the layout of detectron2's fork."""
    state = dict(weights.convert(published.checkpoint('resnest14'), 'detectron2'))
    for stage, channels in ((3, 128), (4, 256), (5, 512)):
        for name, shape in (('weight', [54, channels // 2, 3, 3]), ('bias', [54])):
            key = f'res{stage}.0.conv2_offset.{name}'
            state[key] = 3 * published.draw(key, shape)
    return state


def test_offsets_of_detectron2_become_ours(tmp_path, forked):
    """The function of the fork's code, written out, is the function of ours after loading."""
    built = backbones.ResNeSt('resnest14', **DEFORMABLE).eval()
    report = weights.load(built, save(tmp_path, dict(model=forked)))
    assert report.filled == report.total == len(built.state_dict())
    again = Detector(backbones.ResNeSt('resnest14', **DEFORMABLE))
    again.load_state_dict(
        {
            'backbone.' + key: value
            for key, value in forked.items()
            if not key.startswith('linear.')
        },
        strict=False,
    )
    assert equal(built.state_dict(), again.backbone.state_dict())

    block, x = built.layer2[0], torch.randn(1, 256, 5, 4, generator=torch.manual_seed(0))
    y = torch.relu(block.bn1(block.conv1(x)))
    weight, bias = (forked[f'res3.0.conv2_offset.{name}'] for name in ('weight', 'bias'))
    made = torch.cat(
        [  # a convolution for each half of the channels
            torch.nn.functional.conv2d(half, rows, shift, 1, 1)
            for half, rows, shift in zip(y.chunk(2, 1), weight.chunk(2), bias.chunk(2))
        ],
        1,
    )
    assert made.abs().mean() > 0.5  # places are moved, and by different amounts
    first, second, mask = made[:, :18], made[:, 18:36], made[:, 36:].sigmoid()
    naive = deform_twin(
        Conv(1, 1, 1, 2, 2),
        y,
        torch.cat([first, second], 1),
        forked['res3.0.conv2.conv.weight'],
        mask,
    )
    torch.testing.assert_close(block.conv2.conv(y), naive, rtol=1e-4, atol=1e-4)


def test_offsets_of_detectron2_there_and_back(tmp_path, forked):
    ours = weights.convert(forked)
    assert ours['layer2.0.conv2.conv.conv_offset.weight'].shape == (54, 128, 3, 3)
    back = weights.convert(ours, 'detectron2')
    assert equal(back, forked)
    key = 'layer3.0.conv2.conv.conv_offset.weight'
    with refuses('weights.layout', key, '(54, 256, 3, 3)', 'detectron2'):
        weights.convert({**ours, key: torch.ones(54, 256, 3, 3)}, 'detectron2')
    with refuses('weights.layout', key, '(54, 100, 3, 3)', '256 channels'):
        weights.convert({**forked, 'res4.0.conv2_offset.weight': torch.ones(54, 100, 3, 3)})
    for single, shape in ((27, (27, 256, 3, 3)), (18, (18, 256, 3, 3)), (36, (36, 128, 3, 3))):
        one = {
            **forked,
            'res4.0.conv2_offset.weight': torch.randn(shape),
            'res4.0.conv2_offset.bias': torch.randn(single),
        }
        assert weights.convert(one)[key].shape == (single, 256, 3, 3)
        assert equal(weights.convert(weights.convert(one), 'detectron2'), one)


def test_offsets_of_a_plain_network_are_detectron2_s_own(tmp_path):
    """There the convolution that makes them sees all channels, as ours; grouped, it is refused."""
    state = dict(weights.convert(published.checkpoint('resnet50'), 'detectron2'))
    state['res5.2.conv2_offset.weight'] = torch.randn(54, 512, 3, 3)
    ours = weights.convert(state)
    assert torch.equal(
        ours['layer4.2.conv2.conv_offset.weight'], state['res5.2.conv2_offset.weight']
    )
    assert equal(weights.convert(ours, 'detectron2'), state)
    state['res5.2.conv2_offset.weight'] = torch.randn(54, 256, 3, 3)
    dcn = dict(dcn=DEFORMABLE['dcn'], stage_with_dcn=(False, False, False, True))
    for call in (
        lambda: weights.convert(state),
        lambda: weights.load(backbones.ResNet('resnet50', **dcn), save(tmp_path, state)),
    ):
        with refuses('weights.layout', 'layer4.2.conv2.conv_offset'):
            call()


@pytest.mark.slow
def test_deformable_and_plain_networks_are_told_apart(tmp_path, forked, official):
    file = save(tmp_path, forked)
    with refuses(
        'weights.misfit',
        "dcn=dict(type='DCNv2', deform_groups=2), stage_with_dcn=(False, True, True, True)",
    ):
        weights.load(network(), file)
    with refuses('weights.misfit', 'b.pth', 'dcn') as caught:
        weights.load(
            backbones.ResNeSt('resnest14', **DEFORMABLE), save(tmp_path, official, 'b.pth')
        )
    assert 'dcn=' not in str(caught.value)
    wrong = backbones.ResNeSt(
        'resnest14', **{**DEFORMABLE, 'dcn': dict(type='DCN', deform_groups=2)}
    )
    with refuses('weights.misfit', 'deform_groups=2'):
        weights.load(wrong, file)


@pytest.mark.parametrize('layout', ['mmpretrain', 'detectron2', 'mmdet'])
def test_every_layout_fills_a_network(tmp_path, official, layout):
    built = network()
    converted = weights.convert(official, layout)
    report = weights.load(built, save(tmp_path, dict(model=converted)))
    assert report.filled == report.total and report.left_out == ('fc',)
    assert report.layout == layout
    assert torch.equal(built.layer4[0].downsample[2].bias, official['layer4.0.downsample.2.bias'])
    if layout == 'detectron2':  # as in a detector there
        built = network()
        state = {
            'backbone.bottom_up.' + key: value
            for key, value in converted.items()
            if not key.startswith('linear.')
        }
        weights.load(built, save(tmp_path, dict(model=state)))
        assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])


# ---- what tensors do not show -------------------------------------------------------------------


@pytest.fixture(scope='module')
def caffe() -> dict:
    return published.checkpoint('legacy_seresnext26_32x4d')


@pytest.mark.slow
def test_weights_of_the_ceil_mode_pool_are_refused_elsewhere(tmp_path, caffe):
    padded = backbones.SEResNeXt(depth=26)
    name = "arch='legacy_seresnext26_32x4d'"
    with refuses('weights.other-features', tmp_path, name):
        weights.load(padded, save(tmp_path, caffe))
    with refuses('weights.other-features', name):
        padded.load_state_dict(dict(caffe), strict=False)
    legacy = network('legacy_seresnext26_32x4d')
    weights.load(legacy, save(tmp_path, caffe))
    legacy.load_state_dict(caffe, strict=True)
    # What was converted, or saved by us, says so itself.
    file = str(tmp_path / 'converted.pth')
    weights.convert_file(save(tmp_path, caffe), file, 'mmdet')
    weights.load(legacy, file)
    with refuses('weights.other-features', file, name):
        weights.load(padded, file)
    detector = torch.nn.ModuleDict(dict(backbone=padded))
    state = torch.nn.ModuleDict(dict(backbone=legacy)).state_dict()
    with refuses('weights.other-features', 'backbone.*', name):
        detector.load_state_dict(state)
    with refuses('weights.other-features', 'padded max pool'):
        legacy.load_state_dict(padded.state_dict())


@pytest.mark.slow
def test_a_published_file_name_tells_a_fast_network(tmp_path, monkeypatch):
    name = VARIANTS['resnest50_fast_2s1x64d'].weights[0].file
    monkeypatch.setitem(hub.PUBLISHED, name, '')
    file = save(tmp_path, published.checkpoint('resnest50_fast_2s1x64d'), name)
    with refuses('weights.other-features', "arch='resnest50_fast_2s1x64d'"):
        weights.load(network('resnest50'), file)
    report = weights.load(network('resnest50_fast_2s1x64d'), file)
    assert report.filled == report.total


def test_files_of_the_mm_zoos_get_advice(tmp_path):
    state = {
        key: value
        for key, value in published.checkpoint('res2net50_v1b_26w_4s').items()
        if not key.startswith('fc.')
    }
    file = save(tmp_path, state, 'faster_rcnn_r2_20200101_000000-0123abcd.pth')
    said = [
        str(weights.load(network('res2net50_v1b_26w_4s', compat=compat), file))
        for compat in (None, 'mm')
    ]
    assert "compat='mm'" in said[0] and 'compat' not in said[1]
    assert 'compat' not in str(weights.load(network('res2net50_v1b_26w_4s'), save(tmp_path, state)))


def test_so_do_dilated_networks_alone(tmp_path, official):
    file = save(tmp_path, official, 'resnest14_d2-0123abcd.pth')
    dilated = network(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    assert "compat='mm'" in str(weights.load(dilated, file))
    assert 'compat' not in str(weights.load(network(), file))
    file = save(tmp_path, dict(weights.convert(official, 'detectron2')))
    assert "compat='mm'" in str(weights.load(dilated, file))
    assert 'compat' not in str(weights.load(network(), file))


@pytest.mark.parametrize('way', ['init_cfg', 'load_from'])
def test_the_log_of_a_run_says_what_was_loaded(tmp_path, official, way):
    """In one line, in the file beside the checkpoints, whichever way the weights come."""
    logger = MMLogger.get_instance(f'loading_{way}', log_file=str(tmp_path / 'run.log'))
    try:
        if way == 'init_cfg':
            backbones.ResNeSt(
                'resnest14', init_cfg=dict(type='Pretrained', checkpoint=save(tmp_path, official))
            ).init_weights()
            said = f'filled from {tmp_path / "file.pth"} (official layout, left out fc)'
        else:
            mmengine_way(Detector(), detector_state(official), tmp_path)
            said = 'filled from backbone.* of the checkpoint (official layout)'
        total = len(network().state_dict())
        lines = (tmp_path / 'run.log').read_text().splitlines()
        assert (
            [
                line
                for line in lines
                if line.endswith(f'mmresnest: {total} of {total} backbone tensors {said}')
            ]
            == [line for line in lines if 'mmresnest: ' in line]
            != []
        )
    finally:
        for handler in logger.handlers:
            handler.close()
        MMLogger._instance_dict.pop(f'loading_{way}')


# ---- the truth, by every way --------------------------------------------------------------------


class Detector(BaseModule):
    def __init__(self, backbone=None):
        super().__init__()
        self.backbone = backbone or backbones.ResNeSt('resnest14')
        self.head = torch.nn.Linear(2, 2)


def detector_state(official, **changes) -> dict:
    state = {
        'backbone.' + key: value for key, value in official.items() if not key.startswith('fc.')
    }
    state.update({'head.weight': torch.ones(2, 2), 'head.bias': torch.ones(2)})
    state.update(changes)
    return {key: value for key, value in state.items() if value is not None}


def torch_way(model, state, folder):
    model.load_state_dict(state, strict=False)


def mmengine_way(model, state, folder):
    load_checkpoint(model, save(folder, dict(state_dict=state)))


def init_cfg_way(model, state, folder):
    model.init_cfg = dict(type='Pretrained', checkpoint=save(folder, dict(state_dict=state)))
    model.init_weights()


WAYS = pytest.mark.parametrize('way', [torch_way, mmengine_way, init_cfg_way])


@WAYS
def test_a_whole_detector_is_filled_and_it_is_said_once(tmp_path, official, way, monkeypatch):
    lines = []
    monkeypatch.setattr(backbones, 'print_log', lambda line, **_: lines.append(line))
    model = Detector()
    way(model, detector_state(official), tmp_path)
    assert torch.equal(model.backbone.stem[0].weight, official['conv1.0.weight'])
    assert torch.equal(model.head.bias, torch.ones(2))
    total = len(model.backbone.state_dict())
    assert lines == [
        f'mmresnest: {total} of {total} backbone tensors filled from backbone.* of '
        f'the checkpoint (official layout)'
    ]


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize(
    'changes, parts',
    [
        (
            {'backbone.layer3.0.conv3.weight': None},
            ['1 tensors of the network', 'layer3.0.conv3.weight'],
        ),
        (
            {'backbone.layer3.0.conv3.weight': torch.zeros(3, 3, 1, 1)},
            ['layer3.0.conv3.weight: (3, 3, 1, 1)'],
        ),
        (
            {'backbone.layer1.0.conv9.weight': torch.zeros(1)},
            ['1 tensors of the file', 'layer1.0.conv9.weight'],
        ),
    ],
)
def test_a_backbone_left_unfilled_is_an_error(tmp_path, official, way, changes, parts):
    model = Detector()
    before = model.backbone.stem[0].weight.clone()
    with refuses('weights.misfit', *parts):
        way(model, detector_state(official, **changes), tmp_path)
    assert torch.equal(model.backbone.stem[0].weight, before)


@pytest.mark.slow
@WAYS
def test_another_backbone_is_named(tmp_path, official, way):
    with refuses('weights.misfit', "arch='resnest14'"):
        way(Detector(backbones.ResNeSt('resnest26')), detector_state(official), tmp_path)
    foreign = {'backbone.block.weight': torch.ones(1), 'head.bias': torch.ones(2)}
    with refuses('weights.misfit', 'tensors of the network', 'stem.0.weight'):
        way(Detector(), foreign, tmp_path)


def test_parts_can_be_loaded_on_purpose(official):
    """The exceptions: the network itself not strictly, and files that have nothing for it."""
    part = {key: value for key, value in official.items() if not key.startswith('layer4')}
    built = network()
    found = built.load_state_dict(part, strict=False)
    assert all(key.startswith('layer4') for key in found.missing_keys) and found.missing_keys
    assert not found.unexpected_keys
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])
    with pytest.raises(RuntimeError, match='layer4.0.conv1.weight'):
        built.load_state_dict(part, strict=True)
    more = built.load_state_dict({**official, 'aux.weight': torch.zeros(1)}, strict=False)
    assert more.unexpected_keys == ['aux.weight'] and not more.missing_keys
    heads = {'head.weight': torch.ones(2, 2), 'head.bias': torch.ones(2)}
    assert Detector().load_state_dict(heads, strict=False).missing_keys


def test_our_own_state_comes_back_whatever_was_changed(official):
    model = Detector()
    model.backbone.extra = torch.nn.Linear(2, 2)
    model.backbone.stem[0] = torch.nn.Sequential(model.backbone.stem[0])
    state = {key: value + 1 for key, value in model.state_dict().items()}
    model.load_state_dict(state, strict=True)
    assert equal(model.state_dict(), state)


def test_unbuilt_stages_are_left_out_of_a_detector_by_name(official, monkeypatch):
    lines = []
    monkeypatch.setattr(backbones, 'print_log', lambda line, **_: lines.append(line))
    model = Detector(backbones.ResNeSt('resnest14', out_indices=(1, 2)))
    model.load_state_dict(detector_state(official), strict=True)
    assert lines[0].endswith('(official layout, left out layer4)')


def test_a_stem_of_other_channels_is_adapted_and_said(tmp_path, official):
    built = network(in_channels=4)
    assert 'stem.0.weight adapted from 3 to 4 image channels' in str(
        weights.load(built, save(tmp_path, official))
    )
    again = network(in_channels=4)
    again.load_state_dict(official, strict=True)
    assert torch.equal(again.stem[0].weight, built.stem[0].weight)


def test_init_cfg_that_cannot_be_obeyed(official):
    with refuses('argument.conflict', 'keep dict'):
        backbones.ResNeSt(
            'resnest14',
            init_cfg=[
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Pretrained', checkpoint='a.pth'),
            ],
        ).init_weights()
    with refuses('argument.needed', 'checkpoint='):
        backbones.ResNeSt('resnest14', init_cfg=dict(type='Pretrained')).init_weights()


# ---- files --------------------------------------------------------------------------------------


def needs_safetensors() -> None:
    pytest.importorskip('safetensors', reason='the extra mmresnest[safetensors] is not installed')


def test_safetensors(tmp_path, official):
    """Written here byte by byte, as the format's own description has it."""
    needs_safetensors()
    header, data = {}, b''
    for key, value in official.items():
        raw = value.numpy().tobytes()
        header[key] = dict(
            dtype='I64' if value.dtype == torch.int64 else 'F32',
            shape=list(value.shape),
            data_offsets=[len(data), len(data) + len(raw)],
        )
        data += raw
    text = json.dumps({'__metadata__': {'format': 'pt'}, **header}).encode()
    path = tmp_path / 'file.safetensors'
    path.write_bytes(len(text).to_bytes(8, 'little') + text + data)
    assert equal(reader.read_checkpoint(str(path)), official)
    report = weights.load(network(), str(path))
    assert report.filled == report.total
    whole = path.read_bytes()
    for broken in (
        whole[:4],
        whole[:100],
        whole[:-1],
        b'\xff' * 64,
        whole.replace(b'"F32"', b'"F99"', 1),
    ):
        path.write_bytes(broken)
        with refuses('checkpoint.unreadable'):
            reader.read_checkpoint(str(path))


def test_without_its_library_safetensors_are_refused(tmp_path, official, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    path = tmp_path / 'file.safetensors'
    path.write_bytes(b'')
    with refuses('package.missing', 'pip install safetensors'):
        reader.read_checkpoint(str(path))
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with refuses('package.missing', 'pip install safetensors'):
        weights.convert_file(save(tmp_path, official), str(path), 'mmdet', force=True)
    assert path.read_bytes() == b''


def test_mmengine_s_histories_are_read_past(tmp_path, official):
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer()
    history.update(1.0)
    content = dict(state_dict=official, message_hub=dict(log_scalars={'loss': history}))
    report = weights.load(network(), save(tmp_path, content))
    assert report.filled == report.total


class Options:
    """Something that a trainer left in its checkpoint."""


def test_objects_need_trust_which_is_asked_for(tmp_path, official, monkeypatch):
    file = save(tmp_path, dict(state_dict=official, args=Options()))
    with refuses('checkpoint.unsafe', 'Options', '--trust-checkpoint'):
        weights.load(network(), file)
    out = str(tmp_path / 'out.pth')
    line = ['convert', file, out, '--to', 'mmdet']
    check_refused(line, 'checkpoint.unsafe', file, 'Options', '--trust-checkpoint')
    assert main.main([*line, '--trust-checkpoint']) == 0
    assert TRUST not in os.environ
    monkeypatch.setenv(TRUST, '1')
    assert weights.load(network(), file).filled


def test_mmengine_s_downloads_are_never_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    file = save(tmp_path / 'hub' / 'checkpoints', dict(args=Options()), 'fetched.pth')
    with torch_load.trust_checkpoints():
        assert CheckpointLoader.load_checkpoint(file)['args']
        with refuses('checkpoint.unsafe'):
            CheckpointLoader.load_checkpoint('https://weights.invalid/fetched.pth')


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    file = save(tmp_path, dict(weight=torch.zeros(100000)))
    squeezed = tmp_path / 'squeezed.pth'
    with zipfile.ZipFile(file) as one, zipfile.ZipFile(squeezed, 'w', zipfile.ZIP_DEFLATED) as two:
        for name in one.namelist():
            two.writestr(name, one.read(name))
    with refuses('checkpoint.unsafe'):
        reader.read_checkpoint(str(squeezed))


# ---- conversion of files ------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('layout', ['cadene', 'mmpretrain', 'detectron2', 'mmdet'])
def test_a_file_there_and_back(tmp_path, official, layout, suffix, capsys):
    if suffix == '.safetensors':
        needs_safetensors()
    one, two = str(tmp_path / f'one{suffix}'), str(tmp_path / f'two{suffix}')
    source = save(tmp_path, dict(state_dict={'module.' + k: v for k, v in official.items()}))
    assert main.main(['convert', source, one, '--to', layout]) == 0
    said = capsys.readouterr().out
    assert said == f'{one}: {len(official)} tensors, from the official to the {layout} layout\n'
    assert main.main(['convert', one, two, '--to', 'timm']) == 0
    assert equal(reader.read_checkpoint(two), official)
    assert {path.name for path in tmp_path.iterdir()} == {
        'file.pth',
        f'one{suffix}',
        f'two{suffix}',
    }


def test_a_detector_s_backbone_is_taken_out(tmp_path, official):
    line = weights.convert_file(
        save(tmp_path, detector_state(official)), str(tmp_path / 'out.pth'), 'mmseg'
    )
    assert line.endswith('from the official to the mmdet layout, left out head')
    built = network()
    built.load_state_dict(reader.read_checkpoint(str(tmp_path / 'out.pth')), strict=True)
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, official, monkeypatch):
    source, out = save(tmp_path, official), tmp_path / 'out.pth'
    for arguments, code, part in [
        ((source, out, 'keras'), 'option.unknown', "'keras'"),
        ((source, tmp_path / 'no' / 'out.pth', 'mmdet'), 'option.no-folder', tmp_path / 'no'),
        (
            (save(tmp_path, dict(a=torch.ones(1)), 'b.pth'), out, 'mmdet'),
            'weights.unknown-keys',
            'b.pth',
        ),
    ]:
        with refuses(code, part):
            weights.convert_file(*map(str, arguments))
    out.write_text('mine')
    with refuses('option.exists', '--force'):
        weights.convert_file(source, str(out), 'mmdet')
    assert out.read_text() == 'mine'

    def fail(*_):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(torch, 'save', fail)
        with pytest.raises(OSError, match='disk full'):
            weights.convert_file(source, str(out), 'mmdet', force=True)
    assert out.read_text() == 'mine'
    weights.convert_file(source, str(out), 'mmdet', force=True)
    assert len(reader.read_checkpoint(str(out))) == len(official)
    assert {path.name for path in tmp_path.iterdir()} == {'file.pth', 'b.pth', 'out.pth'}


def test_the_script():
    run = subprocess.run(
        [sys.executable, '-I', '-S', TOOLS / 'convert_checkpoint.py', '--help'],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0 and 'usage: mmresnest convert' in run.stdout
