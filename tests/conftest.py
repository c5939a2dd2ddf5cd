"""What all tests share: the stack, imported with its warnings silenced, and a small drawn set.

Tests have two tiers: ``slow`` ones, which ``make test`` leaves out and ``make test-all`` runs, and
the others. A test is slow if it takes more than about two seconds and others of its kind are fast,
or more than five. Tests of one module run in one worker process, so that its fixtures are made
once; tests of modules in SPREAD, which share next to nothing, run in whichever worker is free.
"""

import gc
import os
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from filelock import FileLock

from mmresnest.data.shapes.dataset import draw_dataset  # mmresnest first: a stand-in for mmcv._ext

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
    'test_bad_formats',
    'test_beside_timm',
    'test_beside_torchvision',
    'test_blocks',
    'test_deploy',
    'test_docs',
    'test_download',
    'test_features',
    'test_folder',
    'test_formats',
    'test_gpu_check',
    'test_growth',
    'test_hub',
    'test_invariants',
    'test_layers',
    'test_fast',
    'test_mask_formats',
    'test_mask_mapping',
    'test_object_files',
    'test_package',
    'test_shapes',
    'test_slicing',
    'test_tampering',
    'test_timm',
    'test_torch_hub',
    'test_tracking',
    'test_trunk',
    'test_variants',
    'test_write_formats',
    'test_zoo',
    # or one that is the same in both stacks; minutes each
    'test_annotations',
    'test_architecture',
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
    'test_networks_of_timm',
    'test_notebook',
    'test_numbers',
    'test_page',
    'test_pictures',
    'test_precise_bn',
    'test_profile',
    'test_progress',
    'test_report',
    'test_safe_config',
    'test_scale',
    'test_signals',
    'test_sweep',
    'test_two_processes',
}
"""Modules that .ci/run leaves out on its second stack."""


SPREAD = {
    'test_configs',
    'test_exact_resume',
    'test_features',
    'test_hostile',
    'test_kills',
    'test_quiet',
    'test_safe_config',
    'test_zoo',
}
"""Modules whose tests need not run in one worker process."""


def pytest_collection_modifyitems(items):
    """Mark the tests of ONCE, and have those of a module run in one worker process.

    ``-m 'not once'`` leaves out what is the same on both stacks, configs that differ from another
    one in the network alone, and the slow cases of a kind (helpers/tiers.py); they take minutes.
    """
    for item in items:
        module = item.module.__name__
        other_network = (
            module == 'test_configs' and '[' in item.name and 'resnest50' not in item.name
        )
        if module in ONCE or other_network:
            item.add_marker(pytest.mark.once)
        if module not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(module))


def pytest_collection_finish():
    """Leave what imports and collection made out of collections of garbage.

    mmengine asks for one with each data set that it reads: half a second of processor time where
    all is imported.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def fresh_logger():
    """Forgets mmengine's loggers, which keep the captured stream of the test that made them."""
    close_loggers()
    yield
    close_loggers()


def close_loggers():
    """Close the files of mmengine's loggers, and forget the loggers."""
    from mmengine.logging import MMLogger

    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    MMLogger._instance_dict.clear()


@pytest.fixture
def unformatted(monkeypatch):
    """Leaves the texts of configs unformatted: yapf takes longer than the runs of small models."""
    for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
        monkeypatch.setattr(f'{module}.FormatCode', lambda text, **_: (text, False), raising=False)


@pytest.fixture(scope='module')
def kept_bases() -> Iterator[None]:
    """Has files that many configs inherit from parsed once in a module."""
    from helpers.base_configs import keep_base_files

    with keep_base_files():
        yield


@pytest.fixture
def uninitialized(monkeypatch):
    """Leaves new weights as they are: on the device meta torch takes long to fill nothing."""
    from torch.nn import init

    for name in vars(init).copy():
        if name.endswith('_') and not name.startswith('_'):
            monkeypatch.setattr(init, name, lambda tensor, *_, **__: tensor)


def share(tmp_path_factory, name, make) -> Path:
    """Make a folder once for all worker processes of a run.

    Args:
        name: of the folder, which no test may change.
        make: writes into the folder that it is given.
    """
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get('PYTEST_XDIST_WORKER'):
        folder = folder.parent  # of the run; each worker has a folder of its own in it
    folder = folder / f'shared_{name}'
    with FileLock(f'{folder}.lock'):
        done = folder / 'done'
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope='session', autouse=True)
def cache_home(tmp_path_factory) -> Iterator[Path]:
    """Keep what is cached by tests, such as data sets read from another format, out of the home."""
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """Draw all layouts of the embedded data set at 64 x 64, once for all worker processes."""

    def make(folder):
        draw_dataset(folder / 'shapes', train=4, val=2, test=2, size=(64, 64), progress=False)

    return share(tmp_path_factory, 'shapes', make) / 'shapes'
