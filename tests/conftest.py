"""What all tests share: the stack, imported with its warnings silenced, and a small drawn set."""

import os
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from mmresnest.data.shapes.dataset import draw  # mmresnest first: a stand-in for mmcv._ext

with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # they warn of torch's future while they are imported
    for _name in ('mmengine.runner', 'mmcv.ops', 'mmdet.apis', 'mmseg.apis'):
        import_module(_name)

# Scripts that tests start import ``helpers`` as the tests do.
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent), os.environ.get('PYTHONPATH')])
)

ONCE = {
    # no mm library has a part in them
    'test_blocks',
    'test_deploy',
    'test_docs',
    'test_download',
    'test_features',
    'test_folder',
    'test_growth',
    'test_invariants',
    'test_layers',
    'test_ops',
    'test_package',
    'test_shapes',
    'test_trunk',
    'test_variants',
    'test_zoo',
    # or one that is the same in both stacks; minutes each
    'test_annotations',
    'test_benchmark',
    'test_browse_data',
    'test_check_data',
    'test_compiled',
    'test_completion',
    'test_complexity',
    'test_documented',
    'test_export',
    'test_kills',
    'test_bad_images',
    'test_live',
    'test_notebook',
    'test_numbers',
    'test_pictures',
    'test_precise_bn',
    'test_profile',
    'test_progress',
    'test_report',
    'test_safe_config',
    'test_scale',
    'test_signals',
    'test_two_processes',
}
"""Modules that .ci/run leaves out on its second stack."""


def pytest_collection_modifyitems(items):
    """Marks the tests of these modules: ``-m 'not once'`` leaves them out.

    And those of configs that differ from another one in the network alone; they take minutes.
    """
    for item in items:
        other_network = (
            item.module.__name__ == 'test_configs'
            and '[' in item.name
            and 'resnest50' not in item.name
        )
        if item.module.__name__ in ONCE or other_network:
            item.add_marker(pytest.mark.once)


@pytest.fixture
def fresh_logger():
    """Forgets mmengine's loggers, which keep the captured stream of the test that made them."""
    from mmengine.logging import MMLogger

    MMLogger._instance_dict.clear()


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
