"""Test splits without annotations: predicted on for a server that scores, and never replaced."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import tiny
from helpers.errors import refuses
from helpers.tiers import mark_slow

from mmresnest.cli.main import main
from mmresnest.config.load import load_config
from mmresnest.config.retarget import use_data
from mmresnest.data.folder import read_folder
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('fresh_logger')]

ALL = {'model.test_cfg.rcnn.score_thr': 0.0}


@pytest.fixture(scope='module')
def annotated(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return draw_dataset(folder, train=2, val=1, test=3, size=(64, 64), progress=False)


@pytest.fixture(params=mark_slow(['empty', 'left out'], lambda way: way == 'left out'))
def submission(annotated, tmp_path, request):
    """The set with a test split of images alone."""
    folder = tmp_path / 'data'
    shutil.copytree(annotated, folder)
    table = json.loads((folder / 'test.json').read_text())
    table['annotations'] = []
    if request.param == 'left out':
        del table['annotations'], table['categories']
    (folder / 'test.json').write_text(json.dumps(table))
    shutil.rmtree(folder / 'annotations' / 'test')
    return folder


@pytest.fixture(scope='module')
def trained(annotated, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp('runs'), {}

    def get(kind):
        if kind not in made:
            path = tiny.write(folder, kind)
            options = ALL if kind == 'detection' else None
            made[kind] = (
                path,
                train(path, data=annotated, work_dir=folder / kind, cfg_options=options).checkpoint,
            )
        return made[kind]

    return get


@pytest.mark.parametrize('kind', ['coco', 'ade20k'])
def test_the_folder_has_a_split_that_is_not_scored(submission, kind):
    found = read_folder(submission, kind)
    assert found.split('test') != found.split('val')
    assert found.split('test').image_count == 3
    assert not found.split('test').scored and not found.has_test


def test_a_detector_writes_what_it_finds_on_the_test_images(trained, submission, tmp_path, capsys):
    config, checkpoint = trained('detection')
    out = tmp_path / 'found.json'
    result = score(
        config,
        checkpoint,
        data=submission,
        work_dir=tmp_path / 'work',
        out=out,
        show_dir=tmp_path / 'shown',
        cfg_options=ALL,
    )
    assert not result.scored and result.metrics == {}
    table = json.loads((submission / 'test.json').read_text())
    rows = json.loads(out.read_text())
    assert {row['image_id'] for row in rows} == {image['id'] for image in table['images']}
    known = json.loads((submission / 'train.json').read_text())['categories']
    assert {row['category_id'] for row in rows} <= {row['id'] for row in known}
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 3
    line = f'test {config} {checkpoint} --data {submission} --out {tmp_path / "found.pkl"}'
    assert main([*line.split(), '--work-dir', str(tmp_path / 'work')]) == 0
    assert 'nothing is scored: the test images have no annotations' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('tta', [False, True])
def test_a_segmentor_writes_a_map_for_each_test_image(trained, submission, tmp_path, tta):
    result = score(
        *trained('semantic'),
        data=submission,
        work_dir=tmp_path / 'work',
        out=tmp_path / 'maps',
        tta=tta,
        cfg_options={'test_dataloader.num_workers': 0},
    )
    assert not result.scored and result.metrics == {}
    images = {path.stem for path in (submission / 'images' / 'test').iterdir()}
    assert {path.stem for path in (tmp_path / 'maps').iterdir()} == images


def test_without_anywhere_to_write_it_is_refused(trained, submission, tmp_path):
    with refuses('data.not-scored', '--out FILE'):
        score(*trained('detection'), data=submission, work_dir=tmp_path / 'work', cfg_options=ALL)
    assert not Path(tmp_path / 'work' / 'vis_data').exists()


@pytest.mark.slow
def test_a_config_that_names_such_a_file_itself(trained, annotated, tmp_path):
    config, checkpoint = trained('detection')
    table = json.loads((annotated / 'test.json').read_text())
    file = tmp_path / 'images.json'
    file.write_text(json.dumps(dict(table, annotations=[])))
    cfg = load_config(config, ALL)
    use_data(cfg, annotated)
    cfg.test_dataloader.dataset.ann_file = cfg.test_evaluator.ann_file = str(file)
    out = tmp_path / 'found.json'
    result = score(cfg, checkpoint, work_dir=tmp_path / 'work', out=out)
    assert not result.scored and result.metrics == {}
    found = {row['image_id'] for row in json.loads(out.read_text())}
    assert found == {image['id'] for image in table['images']}
