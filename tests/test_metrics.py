"""Scores by faster-coco-eval are pycocotools' scores."""
import json

import numpy as np
import pytest
from mmengine.config import Config

from mmresnest.engine.metrics import FAST, use_fast_evaluation
from mmresnest.errors import ArgumentError, UserError
from mmresnest.registry import METRICS

pytest.importorskip('faster_coco_eval')
mask = pytest.importorskip('pycocotools.mask')
pytestmark = pytest.mark.filterwarnings('ignore')

WIDTH, HEIGHT = 200, 160
#: images, classes, detections and objects of an image at most
CASES = [(40, 3, 20, 6), (10, 2, 300, 10), (60, 20, 150, 8)]


def rectangle(box):
    x, y, w, h = map(int, box)
    field = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    field[y:y + h + 1, x:x + w + 1] = 1
    return field


def encoded(box):
    rle = mask.encode(rectangle(box))
    return dict(rle, counts=rle['counts'].decode())


def written(path, images, classes, most, rng):
    """An annotation file with crowds, and images without objects."""
    annotations = []
    for image in range(images):
        for _ in range(0 if image % 7 == 3 else int(rng.integers(0, most))):
            size = rng.uniform(2, 150, 2)
            box = [float(v) for v in (*rng.uniform(0, [WIDTH, HEIGHT] - size), *size)]
            annotations.append(dict(
                id=len(annotations) + 1, image_id=image, bbox=box, area=box[2] * box[3],
                category_id=int(rng.integers(classes)) * 3 + 1, iscrowd=int(rng.random() < 0.15),
                segmentation=encoded(box)))
    path.write_text(json.dumps(dict(
        images=[dict(id=number, width=WIDTH, height=HEIGHT, file_name=f'{number}.jpg')
                for number in range(images)], annotations=annotations,
        categories=[dict(id=number * 3 + 1, name=f'class {number}') for number in range(classes)])))
    return annotations


def predicted(images, classes, most, annotations, rng):
    """Some near an object, some anywhere, of many equal scores; none on some images."""
    import torch
    from mmengine.structures import InstanceData
    for image in range(images):
        number = 0 if image % 11 == 5 else int(rng.integers(0, most))
        own = [one for one in annotations if one['image_id'] == image]
        boxes, labels = [], []
        for _ in range(number):
            if own and rng.random() < 0.6:
                near = own[rng.integers(len(own))]
                x, y, w, h = np.array(near['bbox']) + rng.normal(0, 4, 4)
                labels.append(near['category_id'] // 3)
            else:
                w, h = rng.uniform(2, 150, 2)
                x, y = rng.uniform(0, [WIDTH - w, HEIGHT - h])
                labels.append(int(rng.integers(classes)))
            x, y = np.clip([x, y], 0, [WIDTH - 2, HEIGHT - 2])
            boxes.append([x, y, x + max(w, 1), y + max(h, 1)])
        found = InstanceData(
            bboxes=torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.tensor(rng.random(number).round(2), dtype=torch.float32))
        corners = found.bboxes.numpy()
        found.masks = torch.tensor(np.array([rectangle([x, y, a - x, b - y]) for x, y, a, b in
                                             corners], np.uint8).reshape(-1, HEIGHT, WIDTH) > 0)
        yield dict(img_id=image, ori_shape=(HEIGHT, WIDTH), pred_instances=found)


def scores(type_, path, classes, samples, monkeypatch):
    """What a metric says, and what it would say with all its digits."""
    from mmdet.evaluation.metrics import coco_metric
    exact = []

    def noted(value, digits):
        exact.append(float(value))
        return round(value, digits)
    monkeypatch.setattr(coco_metric, 'round', noted, raising=False)
    metric = METRICS.build(dict(type=type_, ann_file=str(path), metric=['bbox', 'segm'],
                                classwise=True))
    metric.dataset_meta = dict(classes=[f'class {number}' for number in range(classes)])
    metric.process({}, [dict(one) for one in samples])
    return metric.evaluate(len(samples)), exact


@pytest.mark.parametrize('images,classes,detections,objects', CASES)
def test_scores_of_pycocotools(tmp_path, monkeypatch, images, classes, detections, objects):
    rng = np.random.default_rng(images)
    path = tmp_path / 'truth.json'
    annotations = written(path, images, classes, objects, rng)
    samples = list(predicted(images, classes, detections, annotations, rng))
    assert any(one['iscrowd'] for one in annotations)
    assert detections < 200 or any(len(one['pred_instances']) > 200 for one in samples)
    theirs, ours = (scores(type_, path, classes, samples, monkeypatch)
                    for type_ in ('mmdet.CocoMetric', FAST))
    assert theirs[0].keys() == ours[0].keys() and theirs[0]['coco/bbox_mAP'] > 0.05
    np.testing.assert_equal(ours[0], theirs[0])
    assert len(theirs[1]) > 12
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-6)


def test_what_was_patched_is_put_back(tmp_path, monkeypatch):
    from mmdet.evaluation.metrics import coco_metric
    before = coco_metric.COCOeval
    written(tmp_path / 'truth.json', 4, 2, 4, np.random.default_rng(0))
    scores(FAST, tmp_path / 'truth.json', 2, list(predicted(4, 2, 4, [], np.random.default_rng(1))),
           monkeypatch)
    assert coco_metric.COCOeval is before


def test_what_it_refuses(monkeypatch):
    with pytest.raises(ArgumentError, match='use_mp_eval'):
        METRICS.build(dict(type=FAST, use_mp_eval=True))
    for cfg in (dict(val_evaluator=dict(type='mmseg.IoUMetric')), {},
                dict(test_evaluator=dict(type='CocoMetric'))):
        with pytest.raises(UserError, match='val_evaluator of the config is not CocoMetric'):
            use_fast_evaluation(Config(cfg), 'val')
    monkeypatch.setattr('mmresnest.engine.metrics.find_spec', lambda name: None)
    for ask in (lambda: METRICS.build(dict(type=FAST)),
                lambda: use_fast_evaluation(Config({}), 'val')):
        with pytest.raises(UserError, match=r'mmresnest\[fast-eval\]'):
            ask()


def test_it_takes_the_place_of_mmdet_s():
    cfg = Config(dict(val_evaluator=dict(type='CocoMetric', metric='bbox', use_mp_eval=True),
                      test_evaluator=[dict(type='mmdet.CocoMetric'), dict(type='Other')]))
    for split in ('val', 'test'):
        use_fast_evaluation(cfg, split)
    assert cfg.val_evaluator == dict(type=FAST, metric='bbox')
    assert [one['type'] for one in cfg.test_evaluator] == [FAST, 'Other']
