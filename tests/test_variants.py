"""The variant table: every row re-derived from the network it describes."""
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmresnest.errors import ArgumentError
from mmresnest.trunk import ResTrunk
from mmresnest.variants import ALIASES, TABLE, VARIANTS, list_archs, variant
from mmresnest.weights import LAYOUTS

CLASSIFIER = 2048 * 1000                        # the 1000-way classifier that the figures include


@pytest.mark.parametrize('row', TABLE, ids=lambda row: row.name)
def test_parameters_and_macs(row):
    with torch.device('meta'):
        trunk = ResTrunk(**row.trunk).eval()
        with FlopCounterMode(display=False) as counter:
            trunk(torch.empty(1, 3, 224, 224))
    params = sum(parameter.numel() for parameter in trunk.parameters()) + CLASSIFIER + 1000
    assert params / 1e6 == pytest.approx(row.params, abs=6e-4)
    assert (counter.get_total_flops() / 2 + CLASSIFIER) / 1e9 == pytest.approx(row.macs, abs=6e-4)


def test_names_are_unique_and_aliases_lead_to_rows():
    assert len(VARIANTS) == len(TABLE) == len(list_archs())
    for alias, name in ALIASES.items():
        assert alias not in VARIANTS
        assert variant(alias) is VARIANTS[name]


@pytest.mark.parametrize('row', TABLE, ids=lambda row: row.name)
def test_weights_name_hash_layout_and_licence(row):
    for weights in row.weights:
        assert re.fullmatch('[0-9a-f]{8,}', weights.sha256), weights.file
        assert weights.layout in LAYOUTS
        assert weights.licence
    assert (row.top1 is None) == (row.crop is None)


def test_a_wrong_name_is_answered_with_near_ones():
    with pytest.raises(ArgumentError, match='resnest50'):
        variant('resnest-50')
    with pytest.raises(ArgumentError, match=r"mmresnest\.ResNet'"):
        variant('resnet50', 'ResNeSt')
    with pytest.raises(ArgumentError, match='unknown'):
        variant(None)


def test_list_archs_by_type():
    assert 'resnest269' in list_archs('ResNeSt')
    assert set(list_archs('SENet')) == {'senet154', 'legacy_senet154'}
