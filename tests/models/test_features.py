"""Every published network against its authors' features, through its publisher's own keys."""

import pytest
import torch
from helpers import published
from helpers.tiers import mark_slow

import mmresnest
from mmresnest.models import weights
from mmresnest.models.variants import VARIANTS


def is_smallest(name):
    """Return whether no network of its kind has fewer parameters; dilated ones are slow, all."""

    def kind(case):
        return VARIANTS[published.CASES[case]['arch']].trunk['kind']

    kin = [
        case
        for case, known in published.CASES.items()
        if kind(case) == kind(name) and int(known['output_stride']) == 32
    ]
    return name == min(kin, key=lambda case: (published.CASES[case]['params'], case))


@pytest.mark.parametrize('name', mark_slow(published.CASES, is_smallest))
def test_published_features(name, tmp_path, uninitialized):
    """From weights that are drawn once; those of the new network are all filled by the loading."""
    case = published.CASES[name]
    drawn = published.checkpoint(name)
    network = mmresnest.build_backbone(
        case['arch'], **published.STRIDES[int(case['output_stride'])]
    ).eval()
    file = tmp_path / 'weights.pth'
    torch.save(drawn, file)
    report = weights.load(network, str(file))
    assert report.filled == report.total == len(network.state_dict())
    classifier = sum(
        tensor.numel() for key, tensor in drawn.items() if key.startswith(('fc.', 'last_linear.'))
    )
    assert sum(p.numel() for p in network.parameters()) + classifier == case['params']
    with torch.no_grad():
        maps = network(published.image(case.get('input', (2, 3, 97, 129))))
    distances = [
        published.distance(map_, reference)
        for map_, reference in zip(maps, case['features'], strict=True)
    ]
    assert max(distances) < 1e-4, distances


@pytest.mark.parametrize('name', ['resnest50', 'res2net50_v1b_26w_4s', 'resnet50'])
def test_the_distance_sees_a_small_change(name, uninitialized):
    """The check above fails where it should: one stage's stride-1 pool, or a 1 % change."""
    case = published.CASES[name]
    network = mmresnest.build_backbone(case['arch']).eval()
    network.load_state_dict(dict(published.checkpoint(name)), strict=True)
    with torch.no_grad():
        network.layer1[0].conv3.weight *= 1.01
        maps = network(published.image())
    assert published.distance(maps[0], case['features'][0]) > 1e-4
