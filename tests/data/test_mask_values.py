"""--mask-values from end to end: refused without, trained and scored with, written by --fix."""

import numpy as np
import pytest
from helpers import tiny
from helpers.errors import refuses
from PIL import Image

from mmresnest.analysis.check_data import check_data
from mmresnest.config.load import load_config
from mmresnest.config.retarget import use_data
from mmresnest.data.folder import read_folder, scan_folder
from mmresnest.data.request import DataRequest
from mmresnest.engine.train import train

MAPPING = '0=background,255=object'


@pytest.fixture(scope='module')
def folder(tmp_path_factory, shapes):
    """The drawn set with masks of 0 and 255."""
    root = tmp_path_factory.mktemp('two') / 'set'
    for split in ('train', 'val'):
        (root / 'annotations' / split).mkdir(parents=True)
        for mask in sorted((shapes / 'annotations' / split).iterdir()):
            objects = np.asarray(Image.open(mask)) > 0
            Image.fromarray((255 * objects).astype(np.uint8)).save(
                root / 'annotations' / split / mask.name
            )
    (root / 'images').symlink_to(shapes / 'images')
    return root


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    file = tmp_path / 'config.py'
    file.write_text(tiny.SEMANTIC)
    return load_config(file)


def test_refused_by_train_and_check_data_alike(folder, config, tmp_path):
    with refuses('data.label-pattern', MAPPING):
        train(config, data=folder, work_dir=tmp_path / 'run')
    _, findings = scan_folder(folder, 'ade20k')
    assert [found.kind for found in findings] == ['label-pattern']
    report = check_data(config, data=folder)
    assert 'label-pattern' in {found.kind for _, found in report.findings if found.is_error}


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:For binary segmentation')
def test_trained_and_scored_as_the_index_masks(folder, config, tmp_path):
    cfg = load_config(config.filename)
    use_data(cfg, DataRequest.parse(folder, MAPPING))
    dataset = cfg.train_dataloader.dataset
    assert dataset.metainfo.classes == ('background', 'object')
    check_data(config, data=folder, mask_values=MAPPING, fix=tmp_path / 'fixed')
    mapped = train(config, data=folder, mask_values=MAPPING, seed=0, work_dir=tmp_path / 'one')
    indices = train(config, data=tmp_path / 'fixed', seed=0, work_dir=tmp_path / 'two')
    assert mapped.metrics == indices.metrics and 'mIoU' in mapped.metrics
    report = check_data(config, data=folder, mask_values=MAPPING)
    assert not report.errors


def test_fix_writes_a_folder_of_index_masks(folder, config, tmp_path):
    out = tmp_path / 'fixed'
    check_data(config, data=folder, mask_values=MAPPING, fix=out)
    read = read_folder(out, 'ade20k')
    assert read.classes == ('background', 'object') and read.counts == dict(train=4, val=2, test=2)
    for split in ('train', 'val'):
        for mask in sorted((folder / 'annotations' / split).iterdir()):
            found = np.asarray(Image.open(out / 'annotations' / split / mask.name))
            assert (found == np.asarray(Image.open(mask)) // 255).all()
    with refuses('option.exists', out):
        check_data(config, data=folder, mask_values=MAPPING, fix=out)


@pytest.mark.parametrize('mapping', ['0=background', '0=a,128=b'])
def test_a_mapping_that_leaves_out_a_class_is_refused(folder, config, mapping):
    with refuses('data.label-values'):
        use_data(load_config(config.filename), DataRequest.parse(folder, mapping))


def test_a_mapping_without_a_folder_is_refused(config):
    with refuses('option.conflict', '--mask-values'):
        DataRequest.parse(None, MAPPING)
