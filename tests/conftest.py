"""What all tests share: the stack, imported with its warnings silenced, and a small drawn set."""
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from mmresnest.data.shapes import draw  # mmresnest first: a stand-in for mmcv._ext

with warnings.catch_warnings():
    warnings.simplefilter('ignore')     # they warn of torch's future while they are imported
    for _name in ('mmengine.runner', 'mmcv.ops', 'mmdet.apis', 'mmseg.apis'):
        import_module(_name)


@pytest.fixture
def unformatted(monkeypatch):
    """Leaves the texts of configs unformatted: yapf takes longer than the runs of small models."""
    for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
        monkeypatch.setattr(f'{module}.FormatCode', lambda text, **_: (text, False), raising=False)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    """All layouts of the drawn data set at 64 x 64."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return draw(folder, train=4, val=2, test=2, size=(64, 64), progress=False)
