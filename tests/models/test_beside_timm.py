"""Our networks against timm's, for random weights that either hands to the other."""

import pytest
import torch
from helpers.optional import import_or_skip
from torch import Tensor, nn

from mmresnest.models import weights
from mmresnest.models.factory import build_backbone
from mmresnest.models.variants import VARIANTS, variant
from mmresnest.models.weights.layouts import unused_projections

NAMES = (  # timm's; a row of each form that it has
    'resnest14d',
    'resnest50d_1s4x24d',
    'resnest50d_4s2x40d',
    'res2net50_48w_2s',
    'res2net50_26w_4s',
    'res2next50',
    'res2net50d',
    'legacy_seresnet50',
    'legacy_seresnext26_32x4d',
    'seresnet50',
    'seresnext26d_32x4d',
    'skresnet50',
    'skresnet50d',
    'skresnext50_32x4d',
    'dla60',
    'dla60x',
    'dla102',
    'dla60_res2net',
    'dla60_res2next',
    'resnet50d',
    'resnext50_32x4d',
)


@pytest.fixture(scope='module')
def timm():
    return import_or_skip('timm')


@torch.no_grad()
def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Give every tensor values of its own, statistics included; return the network to evaluate."""
    random = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=random)
            if value.ndim > 1:
                drawn /= value[0].numel() ** 0.5
            elif key.endswith('running_var'):
                drawn = 1 + 0.25 * drawn.tanh()
            else:
                drawn = 0.1 * drawn + key.endswith('.weight')
            value.copy_(drawn)
    return network.eval()


def maps_of(theirs: nn.Module, stages: list[str], image: Tensor) -> list[Tensor]:
    """What timm's stages compute."""
    found: list[Tensor] = []
    hooks = [
        theirs.get_submodule(stage).register_forward_hook(lambda *call: found.append(call[2]))
        for stage in stages
    ]
    theirs(image)
    for hook in hooks:
        hook.remove()
    return found


def assert_same_maps(ours: nn.Module, theirs: nn.Module) -> None:
    size = (96, 128) if 'level2' in ours.stage_names else (97, 129)  # timm's DLA takes 32s only
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = maps_of(theirs, ours.stage_names, image)
        for found, one in zip(ours(image), wanted, strict=True):
            assert found.shape == one.shape
            assert (found - one).abs().max() < 1e-4 * one.std()


@pytest.mark.parametrize('name', NAMES)
def test_features_are_timm_s_in_both_directions(timm, name, tmp_path):
    """By files in its layout: strictly read by us, and written by us and strictly read by it."""
    theirs = randomize(timm.create_model(name), seed=0)
    ours = build_backbone(name).eval()
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    report = weights.load(ours, str(tmp_path / 'theirs.pth'))
    assert report.filled == report.total == len(ours.state_dict())
    assert_same_maps(ours, theirs)

    torch.save(randomize(ours, seed=1).state_dict(), tmp_path / 'ours.pth')
    layout = weights.recognize_backbone(theirs.state_dict()).layout
    weights.convert_file(str(tmp_path / 'ours.pth'), str(tmp_path / 'converted.pth'), layout)
    converted = torch.load(tmp_path / 'converted.pth', weights_only=True)
    classifier = {key for key in theirs.state_dict() if key.startswith(('fc.', 'last_linear.'))}
    unread = classifier | unused_projections(theirs.state_dict())
    read = theirs.load_state_dict(converted, strict=False)
    assert set(read.missing_keys) == unread and not read.unexpected_keys
    assert_same_maps(ours, theirs)


def test_every_kind_of_network_is_compared():
    compared = {variant(name).trunk['kind'] for name in NAMES}
    assert compared == {row.trunk['kind'] for row in VARIANTS.values()}


def test_the_comparison_can_fail(timm):
    theirs = randomize(timm.create_model('resnest14d'), seed=0)
    ours = build_backbone('resnest14').eval()
    ours.load_state_dict(theirs.state_dict())
    assert_same_maps(ours, theirs)
    with torch.no_grad():
        ours.layer4[0].conv3.weight *= 1.01
    with pytest.raises(AssertionError):
        assert_same_maps(ours, theirs)
