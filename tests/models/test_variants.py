"""The variant table: every row re-derived from the network it describes."""

import re

import pytest
import torch
from helpers.errors import refuses
from helpers.tiers import mark_slow
from torch.utils.flop_counter import FlopCounterMode

from mmresnest.models.trunks import build_trunk
from mmresnest.models.variants import ALIASES, ALTERNATIVES, TABLE, VARIANTS, list_archs, variant
from mmresnest.models.weights import LAYOUTS

LICENCES = {'Apache-2.0', 'BSD-3-Clause', 'CC-BY-NC-4.0', 'CC-BY-NC-SA-4.0', 'unknown'}


@pytest.mark.parametrize(
    'row', mark_slow(TABLE, lambda row: row.macs < 3), ids=lambda row: row.name
)
def test_parameters_and_macs(row, uninitialized):
    with torch.device('meta'):
        trunk = build_trunk(**row.trunk).eval()
        with FlopCounterMode(display=False) as counter:
            trunk(torch.empty(1, 3, 224, 224))
    classifier = trunk.out_channels[-1] * 1000  # which the figures include
    params = sum(parameter.numel() for parameter in trunk.parameters()) + classifier + 1000
    assert params / 1e6 == pytest.approx(row.params, abs=6e-4)
    assert (counter.get_total_flops() / 2 + classifier) / 1e9 == pytest.approx(row.macs, abs=6e-4)


def test_names_are_unique_and_aliases_lead_to_rows():
    assert len(VARIANTS) == len(TABLE) == len(list_archs())
    for alias, name in ALIASES.items():
        assert alias not in VARIANTS
        assert variant(alias) is VARIANTS[name]


@pytest.mark.parametrize('row', TABLE, ids=lambda row: row.name)
def test_weights_name_hash_layout_and_licence(row):
    for weights in (*row.weights, *row.alternatives):
        assert re.fullmatch('[0-9a-f]{8,}', weights.sha256), weights.file
        assert re.match(r'https?://[a-z0-9.-]+/', weights.url) and weights.file.endswith('.pth')
        assert weights.layout in LAYOUTS
        assert weights.license in LICENCES
        assert (weights.top1 is None) == (weights.crop is None)
    assert (row.top1 is None) == (row.crop is None)
    assert (row.top1 is None) == (not row.weights)
    for top1, crop in [(row.top1, row.crop)] + [(w.top1, w.crop) for w in row.alternatives]:
        assert top1 is None or 75 < top1 < 85 and crop in (224, 256, 288, 320, 416)


@pytest.mark.parametrize('row', [row for row in TABLE if row.weights], ids=lambda row: row.name)
def test_pretrained_takes_one_set_of_weights_whichever_host_answers(row):
    """Mirrors have the hash of the first, or say what they are; what was trained anew is apart."""
    first = row.weights[0]
    for mirror in row.weights[1:]:
        assert mirror.sha256 == first.sha256 or mirror.note == 'saved anew by timm'
        assert mirror.url != first.url
        assert mirror.license == first.license
    assert not {weights.sha256 for weights in row.weights} & {
        weights.sha256 for weights in row.alternatives
    }


def test_alternatives_are_of_networks_in_the_table_and_say_whose_they_are():
    assert set(ALTERNATIVES) <= set(VARIANTS)
    assert all(weights.note for row in TABLE for weights in row.alternatives)
    files = [
        file
        for row in TABLE
        for file in {weights.file for weights in (*row.weights, *row.alternatives)}
    ]
    assert len(files) == len(set(files))  # a file is of one network


def test_figures_that_are_easily_confused():
    """Two sets of weights of one network, each with its own accuracy at its own crop."""
    row = VARIANTS['seresnext50_32x4d']
    assert (row.top1, row.crop, row.weights[0].sha256) == (81.27, 224, 'a304a460')
    (gluon,) = row.alternatives
    assert (gluon.top1, gluon.crop, gluon.sha256) == (79.92, 224, '90cf2d6e')
    assert VARIANTS['resnest50'].weights[0].sha256 == '528c19ca'
    assert '7497a55b' in {weights.sha256 for weights in VARIANTS['resnest50'].alternatives}


def test_a_wrong_name_is_answered_with_near_ones():
    with refuses('argument.value', "'resnest-50'", 'nearest: resnest50'):
        variant('resnest-50')
    with refuses('argument.value', "arch='resnet50'", "type='mmresnest.ResNet'"):
        variant('resnet50', 'ResNeSt')
    with refuses('argument.value', 'arch=None', 'legal: resnest14'):
        variant(None)


def test_list_archs_by_type():
    assert 'resnest269' in list_archs('ResNeSt')
    assert set(list_archs('SENet')) == {'senet154', 'legacy_senet154'}
