"""Networks of timm: by a stand-in of it everywhere, and by timm itself where it can be imported."""

import importlib.machinery
import sys

import pytest
import torch
from helpers import fake_timm
from helpers.errors import refuses
from helpers.optional import import_or_skip

from mmresnest.config.architecture import scale_pixels
from mmresnest.deploy import fuse
from mmresnest.models.factory import build_backbone
from mmresnest.models.timm_network import TimmNetwork, find_network

REAL = ('convnext_tiny', 'xception41', 'xception65', 'xception71', 'inception_v3', 'inception_v4')
REAL += ('swin_tiny_patch4_window7_224', 'efficientnet_b0', 'dla34')


@pytest.fixture
def fake(monkeypatch):
    module = fake_timm.make_fake_timm()
    module.__spec__ = importlib.machinery.ModuleSpec('timm', None)
    monkeypatch.setitem(sys.modules, 'timm', module)
    monkeypatch.setattr(fake_timm, 'WEIGHTS', {})
    return module


@pytest.fixture(scope='module')
def timm():
    """The real one."""
    return import_or_skip('timm')


def shapes_of(network, channels=3, size=64):
    return [tuple(x.shape) for x in network.eval()(torch.zeros(1, channels, size, size))]


@pytest.mark.parametrize('name, first', [('pyramid', 1), ('patches', 0), ('late', 2)])
def test_indices_are_strides_and_maps_are_bchw(fake, name, first):
    network = build_backbone(f'timm/{name}')
    widths = tuple(4 * (index + 1) for index in range(first, first + 4))
    assert network.out_channels == widths
    assert shapes_of(network) == [(1, c, s, s) for c, s in zip(widths, (16, 8, 4, 2))]
    assert [network.net.out_indices[0], network.net.out_indices[-1]] == [first, first + 3]
    last = TimmNetwork(name, out_indices=(1, 3))
    assert shapes_of(last) == [(1, widths[1], 8, 8), (1, widths[3], 2, 2)]


def test_dilated_stages_keep_their_index(fake):
    network = TimmNetwork('pyramid', output_stride=8, out_indices=(0, 2, 3))
    assert shapes_of(network) == [(1, 8, 16, 16), (1, 16, 8, 8), (1, 20, 8, 8)]
    with refuses('argument.value', 'output_stride'):
        TimmNetwork('patches', output_stride=8)


def test_options_are_obeyed(fake):
    network = TimmNetwork('pyramid', in_channels=1, with_cp=True, drop_path_rate=0.25)
    assert network.net.recomputes and network.net.drop_path_rate == 0.25
    assert shapes_of(network, channels=1)[0] == (1, 8, 16, 16)
    still = TimmNetwork('pyramid', norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False))
    norms = [one for one in still.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    fixed = [weight for norm in norms for weight in norm.parameters()]
    assert len(fixed) == 10 and not any(weight.requires_grad for weight in fixed)
    assert still.net.stages_1[0].training and still.net.stages_1[0].weight.requires_grad


# timm's index 0 is stride 2 in a pyramid, which is its stem
@pytest.mark.parametrize(
    'name, stages, frozen',
    [
        ('pyramid', -1, []),
        ('pyramid', 0, ['stem', 'stages_0']),
        ('pyramid', 1, ['stem', 'stages_0', 'stages_1']),
        ('pyramid', 4, ['stem', *(f'stages_{index}' for index in range(5))]),
        ('patches', 0, ['stem']),
        ('patches', 2, ['stem', 'stages_0', 'stages_1']),
    ],
)
def test_freezing_by_stage(fake, name, stages, frozen):
    network = TimmNetwork(name, frozen_stages=stages).train().net
    for child, module in network.named_children():
        trains = [weight.requires_grad for weight in module.parameters()]
        assert set(trains) == {child not in frozen}, child
        assert all(part.training == (child not in frozen) for part in module.modules()), child


def test_what_no_map_needs_waits_for_no_gradient(fake):
    network = TimmNetwork('pyramid', out_indices=(0, 1))
    sum(x.sum() for x in network(torch.randn(2, 3, 64, 64))).backward()
    weights = dict(network.net.named_parameters())
    without = {name.partition('.')[0] for name, weight in weights.items() if weight.grad is None}
    assert without == {'stages_3', 'stages_4'}
    assert all(weight.requires_grad == (weight.grad is not None) for weight in weights.values())


def test_weights_of_the_hub_and_of_a_file(fake, tmp_path):
    state = fake.create_model('pyramid').state_dict()
    fake_timm.WEIGHTS['pyramid'] = state
    torch.save(state, tmp_path / 'weights.pth')
    for source in (True, tmp_path / 'weights.pth'):
        network = build_backbone('timm/pyramid', pretrained=source)
        assert all(value.equal(state[key]) for key, value in network.net.state_dict().items())


def test_weights_that_are_not_to_be_had(fake, tmp_path):
    hub = 'https://huggingface.co/timm/pyramid.a_in1k/resolve/main/model.safetensors'
    with refuses('weights.download-failed', hub):
        build_backbone('timm/pyramid', pretrained=True)
    with refuses('weights.unpublished', 'flat'):
        build_backbone('timm/flat', pretrained=True, out_indices=(2,))
    torch.save(fake.create_model('patches').state_dict(), tmp_path / 'other.pth')
    with refuses('weights.misfit', 'other.pth', 'pyramid'):
        build_backbone('timm/pyramid', pretrained=tmp_path / 'other.pth')
    with refuses('checkpoint.missing', 'none.pth'):
        build_backbone('timm/pyramid', pretrained=tmp_path / 'none.pth')


@pytest.mark.parametrize(
    'code, name, options, parts',
    [
        ('timm.stride', 'flat', {}, ['stride 4', '16', '2 (stride 16)']),
        ('timm.maps', 'mapless', {}, ['mapless']),
        ('timm.own-network', 'resnest50d', {}, ['arch resnest50', 'mmresnest.ResNeSt']),
        ('timm.own-network', 'seresnext50_32x4d.racm_in1k', {}, ['arch seresnext50_32x4d']),
        ('timm.own-network', 'dla60_res2net', {}, ['mmresnest.DLA']),
        ('argument.value', 'pyramids', {}, ['pyramid']),
        ('argument.value', 'pyramid', dict(norm_cfg=dict(type='GN')), ['GN']),
        ('argument.value', 'pyramid', dict(frozen_stages=5), ['5']),
        ('argument.value', 'pyramid', dict(out_indices=(4,)), ['4']),
        ('argument.value', 'pyramid', dict(out_indices=(1, 0)), ['(1, 0)']),
        ('argument.value', 'pyramid', dict(out_indices=3), ['out_indices=3']),
        ('argument.value', 'pyramid', dict(radix=2), ['radix']),
    ],
)
def test_refused(fake, code, name, options, parts):
    with refuses(code, *parts):
        build_backbone(f'timm/{name}', **options)


def test_timm_that_is_missing_or_broken(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, 'timm', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'timm.py').write_text("raise RuntimeError('operator torchvision::nms')")
    with refuses('package.broken', 'torchvision::nms', torch.__version__):
        build_backbone('timm/pyramid')
    monkeypatch.setitem(sys.modules, 'timm', None)
    with refuses('package.missing', 'mmresnest[timm]'):
        build_backbone('timm/pyramid')


def test_pixels(fake):
    assert scale_pixels(find_network('pyramid')[1]) == dict(
        mean=[127.5, 127.5, 63.75], std=[127.5, 63.75, 127.5]
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', REAL)
def test_real_networks_give_the_maps_of_timm(timm, name):
    torch.manual_seed(0)
    network = TimmNetwork(name, frozen_stages=1).eval()
    twin = timm.create_model(name, features_only=True, **network.options).eval()
    twin.load_state_dict(network.net.state_dict())
    image = torch.randn(2, 3, 256, 320)
    with torch.no_grad():
        wanted = [x for x, stride in zip(twin(image), twin.feature_info.reduction()) if stride >= 4]
    found = network(image)
    assert len(found) == len(wanted) == 4
    for x, y, channels, stride in zip(found, wanted, network.out_channels, (4, 8, 16, 32)):
        assert x.shape[1] == channels
        # inception's convolutions do not pad
        assert 0 <= 256 // stride - x.shape[2] <= 4 and 0 <= 320 // stride - x.shape[3] <= 4
        assert x.equal(y.movedim(-1, 1) if y.shape[1] != channels else y)
    sum(x.mean() for x in found).backward()
    for key, weight in network.net.named_parameters():
        assert weight.requires_grad == (weight.grad is not None), key
    assert 0 < len(network.frozen) < len(list(network.parameters()))
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.1, 0.1), norm.running_var.uniform_(0.8, 1.2)
        for x, y in zip(network(image), fuse(network)(image), strict=True):
            assert (x - y).abs().max() < 1e-4 * x.std()


@pytest.mark.slow
def test_real_networks_are_refused_and_dilated(timm):
    with refuses('timm.stride', 'stride 4', '2 (stride 16)'):
        TimmNetwork('vit_tiny_patch16_224')
    with refuses('timm.stride', 'stride 4'):  # it has weights that are not learned
        TimmNetwork('efficientvim_m1')
    with refuses('timm.maps', 'gemma4_vit_167m'):
        TimmNetwork('gemma4_vit_167m')
    for size in (4, 0, 7):
        with refuses('argument.value', f"'output_stride': {size}"):
            TimmNetwork('resnet18', output_stride=size)
    with refuses('argument.value', 'with_cp'):
        TimmNetwork('coat_lite_tiny', with_cp=True)
    with refuses('argument.value', 'convnext_tinny'):
        TimmNetwork('convnext_tinny')
    with refuses('argument.value', 'output_stride'):
        TimmNetwork('swin_tiny_patch4_window7_224', output_stride=8)
    dilated = TimmNetwork('convnext_tiny', output_stride=8, norm_eval=True, with_cp=True)
    assert [shape[2:] for shape in shapes_of(dilated)] == [(16, 16), (8, 8), (8, 8), (8, 8)]
    assert scale_pixels(find_network('inception_v4')[1]) == dict(mean=[127.5] * 3, std=[127.5] * 3)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['convnext_tiny', 'efficientnet_b0', 'vit_tiny_patch16_224'])
def test_real_weights_of_a_file(timm, tmp_path, name):
    whole = timm.create_model(name)
    torch.save(whole.state_dict(), tmp_path / 'weights.pth')
    network = TimmNetwork(name, out_indices=(2,))
    network.load_weights(tmp_path / 'weights.pth')
    image = torch.randn(1, 3, 224, 224)
    wanted = whole.eval().forward_intermediates(image, intermediates_only=True)
    (found,) = network.eval()(image)
    # of those of one size the last: a transformer's blocks all have stride 16
    assert torch.allclose([x for x in wanted if x.shape == found.shape][-1], found, atol=1e-5)
    for channels in (1, 4):  # timm fits the weights of the first convolution
        other = TimmNetwork(name, out_indices=(2,), in_channels=channels)
        other.load_weights(tmp_path / 'weights.pth')
        assert other(torch.zeros(1, channels, 224, 224))[0].shape == found.shape
    with refuses('weights.misfit', 'weights.pth', 'resnet18'):
        TimmNetwork('resnet18').load_weights(tmp_path / 'weights.pth')
