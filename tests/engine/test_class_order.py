"""A checkpoint's classes beside those of the data that score it: by name, or refused."""

import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from mmengine.structures import InstanceData, PixelData

from mmresnest.config.inspect import import_packages
from mmresnest.config.load import load_config
from mmresnest.config.retarget import use_data
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine.class_order import RenumberLabels, match_classes
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train
from mmresnest.inference.results import Detections
from mmresnest.inference.scoring import check_scorable, score_predictor

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('fresh_logger')]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return draw_dataset(folder, train=4, val=2, test=0, size=(64, 64), progress=False)


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Config and checkpoint of a kind."""
    folder, made = tmp_path_factory.mktemp('runs'), {}

    def get(kind):
        if kind not in made:
            path = tiny.write(folder, kind)
            cfg_options = {'model.test_cfg.rcnn.score_thr': 0.0} if kind == 'detection' else None
            result = train(
                path, data=shapes, work_dir=folder / kind, seed=0, cfg_options=cfg_options
            )
            made[kind] = path, result.checkpoint, cfg_options
        return made[kind]

    return get


def rewrite_categories(shapes, folder, change):
    """Copy the set, its categories changed in both splits."""
    shutil.copytree(shapes, folder)
    for split in ('train', 'val'):
        table = json.loads((folder / f'{split}.json').read_text())
        table['categories'] = change(table['categories'])
        (folder / f'{split}.json').write_text(json.dumps(table))
    return folder


def rename(categories):
    return [dict(row, name=f'other {row["name"]}') for row in categories]


def test_labels_are_matched_by_name():
    assert match_classes('it', ['a', 'b', 'c'], ['c', 'a', 'b']) == [1, 2, 0]
    assert match_classes('it', ['a', 'b'], ['a', 'b']) is None
    assert match_classes('it', [], ['a', 'b']) is None
    with refuses('checkpoint.other-classes', "class 1 is 'b'", "'x'"):
        match_classes('it', ['a', 'b'], ['a', 'x'])
    with refuses('checkpoint.other-classes', "class 2 is 'nothing'", "'c'"):
        match_classes('it', ['a', 'b'], ['a', 'b', 'c'])
    with refuses('checkpoint.other-classes', '(c)'):
        match_classes('it', ['a', 'b', 'c'], ['c', 'a', 'b'], things=['c'])


def test_every_kind_of_prediction_is_renumbered():
    from mmdet.structures import DetDataSample

    sample = DetDataSample()
    sample.pred_instances = InstanceData(labels=torch.tensor([0, 2, 1]))
    sample.pred_sem_seg = PixelData(data=torch.tensor([[[0, 1], [2, 2]]]))
    # Segments are numbered by label + 1000 * instance; 3 is what is neither.
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[0, 1002], [2001, 3]]]))
    sample.seg_logits = PixelData(data=torch.arange(12.0).reshape(3, 2, 2))
    [found] = RenumberLabels([1, 2, 0], merges_views=True)(None, None, [sample])
    assert found.pred_instances.labels.tolist() == [1, 0, 2]
    assert found.pred_sem_seg.data.tolist() == [[[1, 2], [0, 0]]]
    assert found.pred_panoptic_seg.sem_seg.tolist() == [[[1, 1000], [2002, 3]]]
    assert found.seg_logits.data[:, 0, 0].tolist() == [8.0, 0.0, 4.0]
    assert RenumberLabels([1, 0])(None, None, dict(loss=1)) == dict(loss=1)


@pytest.mark.slow
def test_a_detector_is_scored_by_name(trained, shapes, tmp_path):
    config, checkpoint, cfg_options = trained('detection')
    moved = rewrite_categories(shapes, tmp_path / 'moved', lambda rows: rows[::-1])
    results = [
        score(
            config,
            checkpoint,
            data=folder,
            work_dir=tmp_path / 'work',
            out=tmp_path / f'{name}.json',
            cfg_options=cfg_options,
        )
        for name, folder in (('as trained', shapes), ('moved', moved))
    ]
    assert results[0].metrics == results[1].metrics
    # Ids stay with their names, so that the files say the same; by number they would not.
    one, two = (json.loads(result.files[0].read_text()) for result in results)
    assert one == two != []


def test_some_classes_of_the_data_are_scored(trained, shapes, tmp_path):
    config, checkpoint, cfg_options = trained('detection')
    names = [row['name'] for row in json.loads((shapes / 'val.json').read_text())['categories']]
    more = rewrite_categories(
        shapes, tmp_path / 'more', lambda rows: [dict(id=99, name='blob'), *rows[::-1]]
    )
    with refuses('checkpoint.other-classes', checkpoint, f'--classes {",".join(names)}'):
        score(config, checkpoint, data=more, work_dir=tmp_path, cfg_options=cfg_options)
    asked = dict(data=more, classes=','.join(names))
    ours, theirs = (
        score(config, checkpoint, work_dir=tmp_path, cfg_options=cfg_options, **given).metrics
        for given in (asked, dict(data=shapes))
    )
    assert ours == theirs


class Oracle:
    """Finds every object of a file, its classes numbered in an order of its own."""

    def __init__(self, file, names):
        table = json.loads(file.read_text())
        category = {row['id']: row['name'] for row in table['categories']}
        self.names, self.found = names, []
        for image in table['images']:
            rows = [row for row in table['annotations'] if row['image_id'] == image['id']]
            boxes = np.array([row['bbox'] for row in rows], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = np.array([names.index(category[row['category_id']]) for row in rows], int)
            size = image['height'], image['width']
            self.found.append(
                Detections(boxes, np.ones(len(rows), np.float32), labels, names, None, size)
            )

    def __call__(self, image):
        return self.found.pop(0)


def test_whatever_predicts_is_scored_by_name(shapes):
    cfg = load_config('faster_rcnn_resnest50_fpn')
    names = use_data(cfg, shapes).classes
    for order in (names, names[::-1]):
        oracle = Oracle(shapes / 'val.json', tuple(order))
        assert score_predictor(oracle, cfg, progress=False)['coco/bbox_mAP'] == 1
    import_packages(cfg)
    check_scorable(cfg, names[::-1])
    other = tuple(f'other {name}' for name in names)
    for refuse in (
        lambda: check_scorable(cfg, other),
        lambda: score_predictor(SimpleNamespace(names=other, __call__=None), cfg, progress=False),
    ):
        with refuses('checkpoint.other-classes'):
            refuse()


@pytest.mark.slow
def test_a_segmentor_is_scored_by_name(trained, shapes, tmp_path):
    config, checkpoint, _ = trained('semantic')
    moved = tmp_path / 'moved'
    shutil.copytree(shapes, moved)
    names = (moved / 'classes.txt').read_text().split('\n')
    count = len([name for name in names if name.strip()])
    order = np.roll(np.arange(count), 1)  # label -> its new label
    for path in (moved / 'annotations').rglob('*.png'):
        recolor(path, order)
    (moved / 'classes.txt').write_text(
        '\n'.join(names[label] for label in np.argsort(order)) + '\n'
    )
    found = {}
    for name, folder in (('trained', shapes), ('moved', moved)):
        out = tmp_path / f'{name}.pkl'
        result = score(config, checkpoint, data=folder, work_dir=tmp_path / 'work', out=out)
        maps = [one['pred_sem_seg']['data'] for one in pickle.loads(out.read_bytes())]
        found[name] = result.metrics, maps
    scores = found['trained'][0]
    assert scores['aAcc'] > 0 and found['moved'][0] == pytest.approx(scores)
    for one, two in zip(found['trained'][1], found['moved'][1], strict=True):
        assert (order[np.asarray(one)] == np.asarray(two)).all()


def recolor(path, order):
    from PIL import Image

    image = Image.open(path)
    values = np.asarray(image)
    mapped = np.concatenate([order, np.arange(len(order), 256)]).astype(np.uint8)[values]
    Image.fromarray(mapped).save(path)


def test_other_names_are_refused(trained, shapes, tmp_path):
    config, checkpoint, cfg_options = trained('detection')
    other = rewrite_categories(shapes, tmp_path / 'other', rename)
    with refuses('checkpoint.other-classes', checkpoint, "class 0 is 'disk'", "'other disk'"):
        score(config, checkpoint, data=other, work_dir=tmp_path, cfg_options=cfg_options)


@pytest.mark.parametrize('change', [lambda rows: rows[::-1], rename], ids=['moved', 'renamed'])
def test_a_training_is_not_resumed_with_other_classes(trained, shapes, tmp_path, change):
    config, checkpoint, _ = trained('detection')
    other = rewrite_categories(shapes, tmp_path / 'other', change)
    with refuses('checkpoint.other-classes', checkpoint):
        train(
            config,
            data=other,
            work_dir=tmp_path / 'work',
            resume=str(checkpoint),
            allow_mismatch=True,
        )
    assert not (tmp_path / 'work').exists()
