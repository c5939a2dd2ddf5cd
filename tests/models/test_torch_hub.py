"""torch.hub finds every network by its name, in a clone."""

import importlib.util
from pathlib import Path

import pytest
import torch

import mmresnest

ROOT = str(Path(__file__).resolve().parents[2])


def test_every_network_is_an_entry_point():
    source = importlib.util.spec_from_file_location('hubconf', f'{ROOT}/hubconf.py')
    entries = importlib.util.module_from_spec(source)
    source.loader.exec_module(entries)
    archs = mmresnest.list_archs()
    assert [arch for arch in archs if getattr(entries, arch).__name__ != arch] == []
    assert len(archs) > 40


def test_an_entry_point_builds_the_network(tmp_path):
    torch.manual_seed(0)
    network = torch.hub.load(ROOT, 'resnest14', source='local', out_indices=(1, 3))
    torch.manual_seed(0)
    own = mmresnest.build_backbone('resnest14', out_indices=(1, 3))
    assert all(map(torch.equal, network.state_dict().values(), own.state_dict().values()))
    assert [maps.shape[1] for maps in network(torch.zeros(1, 3, 64, 64))] == [512, 2048]
    torch.save(own.state_dict(), tmp_path / 'x.pth')
    again = torch.hub.load(ROOT, 'resnest14', source='local', pretrained=str(tmp_path / 'x.pth'))
    assert all(map(torch.equal, again.state_dict().values(), own.state_dict().values()))
    with pytest.raises(TypeError):
        torch.hub.load(ROOT, 'resnest14', source='local', dpeth=50)
