"""Several views of an image: ``predict --tta``."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import tiny
from helpers.blobs import paint, use_blobs
from helpers.errors import check_refused, refuses
from helpers.tiers import mark_slow
from mmengine.config import Config

from mmresnest import Predictor
from mmresnest.config.load import load_config
from mmresnest.config.retarget import use_data
from mmresnest.engine.test import test as score
from mmresnest.engine.tta import check_mergeable
from mmresnest.inference.option_checks import check_task
from mmresnest.inference.options import PredictOptions
from mmresnest.inference.predict import predict
from mmresnest.inference.slicing import SlicedPredictor

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [
    pytest.mark.filterwarnings('ignore'),
    pytest.mark.usefixtures('unformatted', 'fresh_logger'),
]


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Config and checkpoint of a kind, made once."""
    folder, made = tmp_path_factory.mktemp('models'), {}

    def make(kind):
        if kind not in made:
            path = tiny.write(folder, kind)
            cfg = load_config(path)
            use_data(cfg, shapes)
            made[kind] = str(path), tiny.save_random(cfg, folder / f'{kind}.pth')
        return made[kind]

    return make


@pytest.mark.parametrize(
    'kind', mark_slow(['detection', 'instance', 'semantic'], 'detection'.__eq__)
)
def test_of_a_mirrored_image_everything_is_mirrored(trained, shapes, kind):
    """What one view alone does not give; the batch changes nothing."""
    image = cv2.imread(str(shapes / 'test/000000.jpg'))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    predictor = Predictor(*trained(kind), 'cpu', 0.0).use_tta()
    one, two = predictor(image), predictor(mirrored)
    many = predictor([image, mirrored[:40], mirrored], batch_size=2)
    if kind == 'semantic':
        assert (one.labels == two.labels[:, ::-1]).mean() > 0.999
        assert (one.labels != Predictor(*trained(kind), 'cpu')(image).labels).any()
        assert np.array_equal(many[0].labels, one.labels)
        return
    assert predictor.task == 'detection' and one.masks is None
    width = image.shape[1]
    boxes = two.boxes[:, [2, 1, 0, 3]]
    boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
    np.testing.assert_allclose(one.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    np.testing.assert_allclose(many[0].boxes, one.boxes, atol=1e-4)


def test_the_command_merges_views(trained, shapes, tmp_path):
    """What is written is what a predictor of several views finds, and not that of one."""
    config, checkpoint = trained('detection')
    image, kept = shapes / 'test/000000.jpg', dict(vis=False, device='cpu', score_thr=0.0)
    rows = {}
    for tta in (False, True):
        out = tmp_path / str(tta)
        predict(config, checkpoint, [image], out=out, tta=tta, **kept)
        rows[tta] = json.loads((out / 'predictions.json').read_text())
    expected = Predictor(config, checkpoint, 'cpu', 0.0).use_tta()(image)
    assert (
        rows[True]
        == [dict(row, file_name=image.as_posix()) for row in expected.to_coco(1)]
        != rows[False]
    )


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'instance', 'semantic'])
def test_it_is_that_of_a_test(trained, shapes, tmp_path, kind):
    config, checkpoint = trained(kind)
    out = tmp_path / 'all.pkl'
    score(config, checkpoint, data=shapes, work_dir=tmp_path, out=out, tta=True)
    predictor = Predictor(config, checkpoint, 'cpu', 0.0).use_tta()
    for sample in pickle.loads(out.read_bytes()):
        found = predictor(shapes / 'test' / Path(sample['img_path']).name)
        if kind == 'semantic':
            labels = sample['pred_sem_seg']['data'].numpy().reshape(found.size)
            assert (labels == found.labels).mean() > 0.999
            continue
        objects = sample['pred_instances']
        order = np.argsort(-objects['scores'].numpy(), kind='stable')
        np.testing.assert_allclose(objects['scores'].numpy()[order], found.scores, atol=1e-4)
        np.testing.assert_allclose(objects['bboxes'].numpy()[order], found.boxes, atol=1e-2)


def test_the_recipe_of_the_config(trained, shapes):
    """Steps that load annotations, which a prediction has none of, are left out."""
    config, checkpoint = trained('semantic')
    cfg = load_config(config)
    scales = [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (48, 64, 96)]
    cfg.tta_model = dict(type='mmseg.SegTTAModel')
    cfg.tta_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[scales, [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]],
        ),
    ]
    predictor = Predictor(cfg, checkpoint, 'cpu').use_tta()
    size, sample = predictor.prepare(np.zeros((40, 60, 3), np.uint8))
    assert size == (3, 32, 48, 3, 43, 64, 3, 64, 96) and len(sample['inputs']) == 3
    assert predictor(np.zeros((40, 60, 3), np.uint8)).labels.shape == (40, 60)


def test_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refuses('option.conflict', '--slice', '--tta'):
        check_task(PredictOptions(slice=64, tta=True), 'semantic')
    fusion = dict(type='PanopticFPN', panoptic_fusion_head=dict(type='a'))
    with refuses('option.conflict', 'panoptic'):
        check_mergeable(Config(dict(model=fusion)))
    use_blobs(monkeypatch)
    cv2.imwrite('a.png', paint((40, 40)))
    check_refused(['predict', '--model', 'a.onnx', 'a.png', '--tta'], 'option.conflict', '--tta')
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


@pytest.mark.slow
def test_tiles_of_a_real_model(trained, shapes):
    """One tile is the whole to the bit; of several, the scores are averaged."""
    image = cv2.imread(str(shapes / 'test/000000.jpg'))
    for kind in ('detection', 'instance', 'semantic'):
        whole = Predictor(*trained(kind), 'cpu', 0.0)(image)
        predictor = Predictor(*trained(kind), 'cpu', 0.0)
        tiled = SlicedPredictor(predictor, max(image.shape))(image)
        assert np.array_equal(whole.labels, tiled.labels)
        if kind != 'semantic':
            assert np.array_equal(whole.boxes, tiled.boxes)
            assert np.array_equal(whole.scores, tiled.scores)
        else:
            views = SlicedPredictor(predictor, 40, 0.5)
            size = image.shape[:2]
            total, count = 0, np.zeros(size)
            for view in views._list_views(size):
                part = np.zeros((7, *size), np.float32)
                rows, columns = view.slices
                with views._keep_scores():
                    part[:, rows, columns] = predictor(image[view.slices]).scores
                total, count[view.slices] = total + part, count[view.slices] + 1
            expected = (total / count).argmax(0)
            assert (views(image).labels == expected).mean() > 0.999
