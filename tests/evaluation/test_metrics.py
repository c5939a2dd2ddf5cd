"""Scores that flatter nobody; those by faster-coco-eval are pycocotools' scores."""

import json
import re
import shutil
import uuid

import numpy as np
import pytest
import torch
from helpers.errors import refuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmseg.evaluation import IoUMetric as TheirIoUMetric

from mmresnest.config.defaults import FAST, configure_evaluators, use_fast_evaluation
from mmresnest.config.retarget import use_data
from mmresnest.evaluation.collector import PredictionCollector
from mmresnest.evaluation.scores import class_mean, label_overlap
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
    field[y : y + h + 1, x : x + w + 1] = 1
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
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    bbox=box,
                    area=box[2] * box[3],
                    category_id=int(rng.integers(classes)) * 3 + 1,
                    iscrowd=int(rng.random() < 0.15),
                    segmentation=encoded(box),
                )
            )
    path.write_text(
        json.dumps(
            dict(
                images=[
                    dict(id=number, width=WIDTH, height=HEIGHT, file_name=f'{number}.jpg')
                    for number in range(images)
                ],
                annotations=annotations,
                categories=[
                    dict(id=number * 3 + 1, name=f'class {number}') for number in range(classes)
                ],
            )
        )
    )
    return annotations


def predicted(images, classes, most, annotations, rng):
    """Some near an object, some anywhere, of many equal scores; none on some images."""
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
            scores=torch.tensor(rng.random(number).round(2), dtype=torch.float32),
        )
        corners = found.bboxes.numpy()
        found.masks = torch.tensor(
            np.array([rectangle([x, y, a - x, b - y]) for x, y, a, b in corners], np.uint8).reshape(
                -1, HEIGHT, WIDTH
            )
            > 0
        )
        yield dict(img_id=image, ori_shape=(HEIGHT, WIDTH), pred_instances=found)


@pytest.fixture
def warned(monkeypatch):
    """What is warned of, which mmengine's logger keeps from all handlers but its own."""
    lines = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: lines.append(text))
    return lines


OURS, THEIRS = 'mmresnest.CocoMetric', 'mmdet.CocoMetric'


def names(classes):
    return [f'class {number}' for number in range(classes)]


def scores(type_, path, classes, samples, monkeypatch, **more):
    """What a metric says, and what it would say with all its digits."""
    from mmdet.evaluation.metrics import coco_metric

    exact = []

    def noted(value, digits):
        exact.append(float(value))
        return round(value, digits)

    monkeypatch.setattr(coco_metric, 'round', noted, raising=False)
    metric = METRICS.build(
        dict(dict(type=type_, ann_file=str(path), metric=['bbox', 'segm'], classwise=True), **more)
    )
    metric.dataset_meta = dict(classes=names(classes))
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
    theirs, ours = (
        scores(type_, path, classes, samples, monkeypatch) for type_ in ('mmdet.CocoMetric', FAST)
    )
    assert theirs[0].keys() == ours[0].keys() and theirs[0]['coco/bbox_mAP'] > 0.05
    np.testing.assert_equal(ours[0], theirs[0])
    assert len(theirs[1]) > 12
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-6)


@pytest.mark.slow
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 12),
    classes=st.integers(1, 6),
    detections=st.sampled_from([1, 2, 12, 130]),
    objects=st.integers(1, 9),
)
def test_scores_of_pycocotools_whatever_is_drawn(
    tmp_path, monkeypatch, seed, images, classes, detections, objects
):
    """None of a class or at all, on some images or on all; more than count."""
    rng = np.random.default_rng(seed)
    annotations = written(tmp_path / 'truth.json', images, classes, objects, rng)
    samples = list(predicted(images, classes, detections, annotations, rng))
    theirs, ours, fast = (
        scores(type_, tmp_path / 'truth.json', classes, samples, monkeypatch)
        for type_ in (THEIRS, OURS, FAST)
    )
    if any(len(one['pred_instances']) for one in samples):
        np.testing.assert_equal(ours, theirs)
    assert ours[0].keys() == fast[0].keys() and len(ours[0]) == 12 + classes
    np.testing.assert_allclose(fast[1], ours[1], rtol=0, atol=1e-6)


def test_what_was_patched_is_put_back(tmp_path, monkeypatch):
    from mmdet.datasets.api_wrappers import COCO
    from mmdet.evaluation.metrics import coco_metric

    before, loading = coco_metric.COCOeval, COCO.loadRes
    written(tmp_path / 'truth.json', 4, 2, 4, np.random.default_rng(0))
    scores(
        FAST,
        tmp_path / 'truth.json',
        2,
        list(predicted(4, 2, 4, [], np.random.default_rng(1))),
        monkeypatch,
    )
    assert coco_metric.COCOeval is before and COCO.loadRes is loading


IDS = {  # what files in the wild carry; the number of an image, annotation or category from 1 on
    'from 1': lambda number: number,
    'from 0': lambda number: number - 1,
    'with gaps, backwards': lambda number: 5000 - 7 * number,
    'negative': lambda number: number - 4,
    'float': float,
    'float from 0': lambda number: number - 1.0,
    'numeric text': str,
    'padded text': lambda number: f'{number:012d}',
    'text': lambda number: f'image {number}.jpg',
    'uuid': lambda number: str(uuid.UUID(int=number << 64 | 0xA)),
    'of 31 bits': lambda number: 2**31 - 2 + number,
    'of 53 bits': lambda number: 2**53 - 100 + number,
    'beyond 53 bits': lambda number: 2**53 + number,
    'beyond 63 bits': lambda number: 2**63 + number,
    'beyond 64 bits': lambda number: 2**70 + number,
    'mixed': lambda number: (number, str(number), float(number), f'n{number}')[number % 4],
}


def with_ids(path, samples, kinds):
    """The file and the samples, their ids given otherwise: of what is named, by a function."""
    table = json.loads(path.read_text())
    images, categories = (
        {row['id']: kinds.get(key, int)(at) for at, row in enumerate(table[key], 1)}
        for key in ('images', 'categories')
    )
    for at, row in enumerate(table['annotations'], 1):
        row['id'] = kinds.get('annotations', int)(at)
        row['image_id'] = kinds.get('references', lambda one: one)(images[row['image_id']])
        row['category_id'] = categories[row['category_id']]
    for key, numbers in (('images', images), ('categories', categories)):
        for row in table[key]:
            row['id'] = numbers[row['id']]
    path.write_text(json.dumps(table))
    return [dict(sample, img_id=images[sample['img_id']]) for sample in samples], table


@pytest.fixture(scope='module')
def scored(tmp_path_factory):
    """A file, detections, and their scores with all digits."""
    path = tmp_path_factory.mktemp('ids') / 'truth.json'
    rng = np.random.default_rng(5)
    samples = list(predicted(9, 3, 12, written(path, 9, 3, 6, rng), rng))
    for number, sample in enumerate(samples):  # of equal scores the order of images would tell
        sample['pred_instances'].scores += number / 1000
    with pytest.MonkeyPatch.context() as patch:
        return path, samples, scores(THEIRS, path, 3, samples, patch)[1]


@pytest.mark.parametrize('kind', IDS)
@pytest.mark.parametrize('what', ['images', 'annotations', 'categories', 'all'])
def test_scores_do_not_depend_on_ids(tmp_path, monkeypatch, scored, what, kind):
    path, samples, wanted = scored
    shutil.copy(path, tmp_path)
    path = tmp_path / path.name
    keys = ('images', 'annotations', 'categories') if what == 'all' else (what,)
    samples, _ = with_ids(path, samples, dict.fromkeys(keys, IDS[kind]))
    assert wanted[0] > 0.02
    for type_ in (OURS, FAST):
        found = scores(type_, path, 3, samples, monkeypatch)[1]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12, err_msg=type_)


@pytest.mark.parametrize('spelled', [str, float, lambda one: f' {one}'])
def test_annotations_that_spell_the_id_of_their_image_otherwise(
    tmp_path, monkeypatch, scored, spelled
):
    path, samples, wanted = scored
    shutil.copy(path, tmp_path)
    path = tmp_path / path.name
    samples, _ = with_ids(path, samples, dict(references=spelled, annotations=str))
    for type_ in (OURS, FAST):
        found = scores(type_, path, 3, samples, monkeypatch)[1]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12, err_msg=type_)


@pytest.mark.parametrize('kind', IDS)
def test_what_is_written_out_has_the_ids_of_the_file(tmp_path, monkeypatch, scored, kind):
    path, samples, _ = scored
    shutil.copy(path, tmp_path)
    path = tmp_path / path.name
    samples, table = with_ids(path, samples, dict(images=IDS[kind], categories=IDS[kind]))
    scores(OURS, path, 3, samples, monkeypatch, outfile_prefix=str(tmp_path / 'out'))
    for part in ('bbox', 'segm'):
        rows = json.loads((tmp_path / f'out.{part}.json').read_text())
        assert {row['image_id'] for row in rows} == {
            one['img_id'] for one in samples if len(one['pred_instances'])
        }
        given = [one['id'] for one in table['categories']]
        labels = [int(label) for one in samples for label in one['pred_instances'].labels]
        assert [row['category_id'] for row in rows] == [given[label] for label in labels]


@pytest.mark.parametrize('kind', IDS)
@pytest.mark.parametrize('type_', [OURS, FAST])
def test_perfect_predictions_score_1_whatever_the_ids(tmp_path, monkeypatch, type_, kind):
    """Pycocotools takes an annotation of id 0 for none: 0.985, and of two objects a half."""
    path = tmp_path / 'truth.json'
    boxes = [[10, 10, 60, 50], [90, 20, 100, 120]]
    table = dict(
        images=[dict(id=IDS[kind](1), width=WIDTH, height=HEIGHT, file_name='a.jpg')],
        categories=[dict(id=IDS[kind](1), name='class 0')],
        annotations=[
            dict(
                id=IDS[kind](at),
                image_id=IDS[kind](1),
                category_id=IDS[kind](1),
                bbox=box,
                area=box[2] * box[3],
                iscrowd=0,
                segmentation=encoded(box),
            )
            for at, box in enumerate(boxes, 1)
        ],
    )
    path.write_text(json.dumps(table))
    found = InstanceData(
        bboxes=torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).float(),
        labels=torch.zeros(2, dtype=torch.long),
        scores=torch.ones(2),
        masks=torch.tensor(np.array([rectangle(box) for box in boxes])) > 0,
    )
    sample = dict(img_id=IDS[kind](1), ori_shape=(HEIGHT, WIDTH), pred_instances=found)
    got, _ = scores(type_, path, 1, [sample], monkeypatch, classwise=False)
    assert got['coco/bbox_mAP'] == got['coco/segm_mAP'] == 1.0


def nothing(images, wrong=0):
    """Samples without a detection, or with wrong ones on the first."""
    for image in range(images):
        count = wrong if image == 0 else 0
        yield dict(
            img_id=image,
            img_path=f'{image}.jpg',
            ori_shape=(HEIGHT, WIDTH),
            instances=[dict(bbox=[0, 0, 20, 20], bbox_label=1)],
            pred_instances=InstanceData(
                bboxes=torch.zeros(count, 4) - 5,
                labels=torch.zeros(count, dtype=torch.long),
                scores=torch.zeros(count),
                masks=torch.zeros(count, HEIGHT, WIDTH) > 0,
            ),
        )


@pytest.mark.parametrize('type_', [OURS, FAST])
@pytest.mark.parametrize(
    'more',
    [
        {},
        dict(metric='bbox', classwise=False),
        dict(metric='proposal'),
        dict(metric='segm', metric_items=['mAP', 'AR@100']),
        dict(ann_file=None, metric='bbox'),
    ],
)
def test_no_detections_are_scored_as_wrong_ones(tmp_path, monkeypatch, warned, type_, more):
    """mmdet gives no score at all, and a score for everything to a single wrong detection."""
    path = tmp_path / 'truth.json'
    written(path, 10, 4, 6, np.random.default_rng(0))
    wanted, _ = scores(THEIRS, path, 4, list(nothing(10, wrong=1)), monkeypatch, **more)
    found, _ = scores(type_, path, 4, list(nothing(10)), monkeypatch, **more)
    np.testing.assert_equal(found, wanted)
    assert wanted and {value for value in found.values() if value == value} <= {0.0, -1.0}
    assert 0.0 in found.values()
    assert warned == ['nothing was detected on any of the 10 images: the scores are 0']
    theirs, _ = scores(THEIRS, path, 4, list(nothing(10)), monkeypatch, **more)
    assert theirs == {}, 'mmdet is mended: ours can go'


def test_no_detections_are_written_as_such(tmp_path, monkeypatch):
    path = tmp_path / 'truth.json'
    written(path, 3, 4, 6, np.random.default_rng(0))
    for only in (True, False):
        found, _ = scores(
            OURS,
            path,
            4,
            list(nothing(3)),
            monkeypatch,
            format_only=only,
            outfile_prefix=str(tmp_path / 'out'),
        )
        assert bool(found) != only
        assert json.loads((tmp_path / 'out.bbox.json').read_text()) == []


@pytest.mark.parametrize('label', [-1, 3])
def test_detections_of_no_class(tmp_path, monkeypatch, label):
    path = tmp_path / 'truth.json'
    written(path, 3, 3, 6, np.random.default_rng(0))
    samples = list(nothing(3, wrong=2))
    samples[0]['pred_instances'].labels[1] = label
    with refuses('data.label-range', '1 of 2', '0.jpg', f'class {label},', 'has 3', 'num_classes'):
        scores(OURS, path, 3, samples, monkeypatch)


@pytest.mark.parametrize(
    'classes, wrong',
    [
        (['class 1', 'class 0', 'class 2'], ' class 0, class 1, class 2,'),
        (['class 0', 'klass 1', 'class 2'], ' klass 1, and'),
        (['class 0', 'class 1', 'class 2', 'class 3'], ' class 3, and'),
    ],
)
def test_classes_in_another_order(tmp_path, classes, wrong):
    path = tmp_path / 'truth.json'
    written(path, 3, 3, 6, np.random.default_rng(0))
    for type_ in (OURS, FAST):
        metric = METRICS.build(dict(type=type_, ann_file=str(path)))
        with refuses('data.other-classes', path, wrong, ', '.join(classes), 'metainfo.classes'):
            metric.dataset_meta = dict(classes=classes)
        metric.dataset_meta = dict(classes=['class 0', 'class 2'])  # a part is one
    metric = METRICS.build(dict(type=OURS, ann_file=str(path), metric='proposal'))
    metric.dataset_meta = dict(classes=classes)  # has no use for classes


def test_categories_of_one_name(tmp_path):
    path = tmp_path / 'truth.json'
    written(path, 3, 3, 6, np.random.default_rng(0))
    table = json.loads(path.read_text())
    table['categories'][2]['name'] = 'class 0'
    path.write_text(json.dumps(table))
    metric = METRICS.build(dict(type=OURS, ann_file=str(path)))
    with refuses('data.category-name-twice', path, 'class 0, class 1, class 0'):
        metric.dataset_meta = dict(classes=names(2))


def maps(truth, said, **more):
    """A sample as mmseg gives it."""
    return dict(
        gt_sem_seg=dict(data=torch.as_tensor(truth)[None]),
        pred_sem_seg=dict(data=torch.as_tensor(said)[None]),
        img_path='a.jpg',
        seg_map_path='a.png',
        **more,
    )


def iou(samples, classes=3, **more):
    metric = METRICS.build(dict(type='mmresnest.IoUMetric', **more))
    metric.dataset_meta = dict(classes=names(classes))
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_scores_of_mmseg():
    rng = np.random.default_rng(0)
    samples = [
        maps(rng.choice([0, 1, 2, 255], (20, 30)), rng.integers(0, 3, (20, 30))) for _ in range(4)
    ]
    theirs = TheirIoUMetric(iou_metrics=['mIoU', 'mDice', 'mFscore'])
    theirs.dataset_meta = dict(classes=names(3))
    theirs.process({}, samples)
    assert iou(samples, iou_metrics=['mIoU', 'mDice', 'mFscore']) == theirs.evaluate(4)


RIGHT = np.array([[0, 1], [2, 255]])


@pytest.mark.parametrize(
    'sample, code, parts',
    [
        (
            maps([[0, 1], [7, 9]], [[0, 1], [2, 2]]),
            'data.label-range',
            ('2 pixels of a.png', 'class 7, 9,', '3 classes, from 0'),
        ),
        (
            maps([[0, 1], [-1, 2]], [[0, 1], [2, 2]]),
            'data.label-range',
            ('1 pixels of a.png', 'class -1,'),
        ),
        (
            maps([[0, 3], [1, 2]], [[0, 1], [2, 2]], reduce_zero_label=True),
            'data.label-range',
            ('1 pixels of a.png', 'class 3 (', 'reduce_zero_label'),
        ),
        (
            maps(RIGHT, [[0, 1], [2, 3]]),
            'data.label-range',
            ('1 pixels of a.jpg', 'as 3,', 'num_classes'),
        ),
        (
            maps(RIGHT, [[0, -1], [2, 2]]),
            'data.label-range',
            ('1 pixels of a.jpg', 'as -1,', 'num_classes'),
        ),
        (
            maps(RIGHT, [[0, 1, 2], [0, 1, 2]]),
            'data.mask-size',
            ('a.png has 2 x 2 pixels', 'a.jpg 3 x 2'),
        ),
        (
            maps(np.zeros((2, 2, 3), int), [[0, 1], [0, 1]]),
            'data.mask-size',
            ('a.png has 3 x 2 x 2 pixels', 'a.jpg 2 x 2'),
        ),
    ],
)
def test_no_pixel_is_left_out_in_silence(sample, code, parts):
    with refuses(code, *parts):
        iou([sample])
    assert iou([maps(RIGHT, [[0, 1], [2, 2]])])['aAcc'] == 100


@pytest.mark.parametrize('ignored', [254, 3, -1, 65535])
def test_what_is_ignored_is_what_the_config_says(ignored):
    """254 is left out where it is said to be, and 255 is then a label that no class has."""
    truth = np.array([[0, 1], [2, ignored]])
    found = iou([maps(truth, [[0, 1], [2, 2]])], ignore_index=ignored)
    assert found['aAcc'] == found['mIoU'] == 100
    wrong = iou([maps(truth, [[0, 1], [0, 2]])], ignore_index=ignored)
    assert wrong['aAcc'] == pytest.approx(100 * 2 / 3, abs=0.01)
    with refuses('data.label-range', '1 pixels of a.png', 'class 255,', f' {ignored} '):
        iou([maps(RIGHT, [[0, 1], [2, 2]])], ignore_index=ignored)


@pytest.mark.parametrize('ignored', [255, 254, 0, 2])
def test_the_report_leaves_out_what_the_score_leaves_out(ignored):
    """Also a class: 0 is the background in many masks, and not to be scored."""
    rng = np.random.default_rng(3)
    samples = [
        maps(
            rng.choice([0, 1, 2, ignored], (20, 30)),
            rng.integers(0, 3, (20, 30)),
            ori_shape=(20, 30),
        )
        for _ in range(3)
    ]
    metric = METRICS.build(dict(type='mmresnest.IoUMetric', ignore_index=ignored))
    collector = PredictionCollector(None, [metric])
    for one in (metric, collector):
        one.dataset_meta = dict(classes=names(3))
        one.process({}, samples)
    wanted = metric.evaluate(3)
    collector.evaluate(3)
    got = label_overlap(collector.found)
    assert 100 * class_mean(got.iou) == pytest.approx(wanted['mIoU'], abs=0.01)
    assert 100 * got.accuracy == pytest.approx(wanted['aAcc'], abs=0.01)
    assert 20 < wanted['aAcc'] < 50


@pytest.mark.parametrize('ignored', [254, 255, 3])
def test_predictions_are_never_ignored(ignored):
    with refuses('data.label-range', '1 pixels of a.jpg', f'as {ignored},'):
        iou([maps([[0, 1], [2, ignored]], [[0, 1], [2, ignored]])], ignore_index=ignored)


def test_mmseg_flatters():
    """Why there is one of ours: half of the pixels are out of range."""
    theirs = TheirIoUMetric()
    theirs.dataset_meta = dict(classes=names(3))
    theirs.process({}, [maps([[0, 1], [7, 9]], [[0, 1], [2, 2]])])
    assert theirs.evaluate(1)['aAcc'] == 100


def test_without_truth(tmp_path):
    """Predictions to be scored elsewhere are looked at, too."""
    sample = maps(RIGHT, [[0, 1], [2, 0]])
    del sample['gt_sem_seg']
    more = dict(format_only=True, output_dir=str(tmp_path))
    assert iou([sample], **more) == {} and (tmp_path / 'a.png').is_file()
    sample['pred_sem_seg']['data'] += 1
    with refuses('data.label-range', 'as 3'):
        iou([sample], **more)


@pytest.mark.parametrize(
    'nan_to_num, said',
    [
        (
            None,
            '2 of 5 classes are neither in the masks nor predicted: their scores are nan, and '
            'means are over the other 3: class 3, class 4',
        ),
        (0, r'their scores count as 0 \(nan_to_num\)'),
    ],
)
def test_absent_classes_are_named_once(warned, nan_to_num, said):
    metric = METRICS.build(dict(type='mmresnest.IoUMetric', nan_to_num=nan_to_num))
    metric.dataset_meta = dict(classes=names(5))
    for _ in range(2):
        metric.process({}, [maps(RIGHT, [[0, 1], [2, 2]])])
        found = metric.evaluate(1)
    assert found['mIoU'] == (100 if nan_to_num is None else 60)
    (line,) = warned
    assert re.search(said, line)


def test_what_it_refuses(monkeypatch):
    with refuses('argument', 'use_mp_eval=True', 'legal: False'):
        METRICS.build(dict(type=FAST, use_mp_eval=True))
    for cfg in (
        dict(val_evaluator=dict(type='mmseg.IoUMetric')),
        {},
        dict(test_evaluator=dict(type='CocoMetric')),
    ):
        with refuses('option.conflict', 'val_evaluator', 'CocoMetric'):
            use_fast_evaluation(Config(cfg), 'val')
    for module in ('config.defaults', 'evaluation.coco_metric'):
        monkeypatch.setattr(f'mmresnest.{module}.find_spec', lambda name: None)
    for ask in (
        lambda: METRICS.build(dict(type=FAST)),
        lambda: use_fast_evaluation(Config({}), 'val'),
    ):
        with refuses('package.missing', 'mmresnest[fast-eval]'):
            ask()


def test_it_takes_the_place_of_mmdet_s():
    cfg = Config(
        dict(
            val_evaluator=dict(type='CocoMetric', metric='bbox', use_mp_eval=True),
            test_evaluator=[dict(type='mmdet.CocoMetric'), dict(type='Other')],
        )
    )
    for split in ('val', 'test'):
        use_fast_evaluation(cfg, split)
    assert cfg.val_evaluator == dict(type=FAST, metric='bbox')
    assert [one['type'] for one in cfg.test_evaluator] == [FAST, 'Other']


@pytest.mark.parametrize(
    'scope, before, after',
    [
        ('mmdet', 'CocoMetric', OURS),
        ('mmdet', THEIRS, OURS),
        ('mmseg', THEIRS, OURS),
        ('mmseg', 'IoUMetric', 'mmresnest.IoUMetric'),
        ('mmdet', 'mmseg.IoUMetric', 'mmresnest.IoUMetric'),
        ('mmpose', 'CocoMetric', 'CocoMetric'),
        ('mmdet', 'mmpose.CocoMetric', 'mmpose.CocoMetric'),
        ('mmdet', FAST, FAST),
        ('mmdet', 'CocoPanopticMetric', 'CocoPanopticMetric'),
        ('mmseg', TheirIoUMetric, 'mmresnest.IoUMetric'),
        ('mmdet', dict, dict),
    ],
)
def test_ours_take_the_place_of_theirs(scope, before, after):
    for wrap, found in (
        (lambda one: one, lambda given: given),
        (lambda one: [dict(type='Other'), one], lambda given: given[1]),
        (lambda one: dict(type='Evaluator', metrics=[one]), lambda given: given['metrics'][0]),
    ):
        cfg = Config(
            dict(
                default_scope=scope,
                val_evaluator=wrap(dict(type=before, some=1)),
                test_evaluator=None,
            )
        )
        configure_evaluators(cfg)
        assert found(cfg.val_evaluator) == dict(type=after, some=1)
        if after == OURS:
            use_fast_evaluation(cfg, 'val')
            assert found(cfg.val_evaluator)['type'] == FAST


@pytest.mark.parametrize(
    'type_, wanted', [('CocoMetric', THEIRS), (THEIRS, THEIRS), (OURS, OURS), (FAST, FAST)]
)
def test_a_users_data_keep_the_evaluator(shapes, type_, wanted):
    from mmresnest.config.load import load_config

    cfg = load_config('faster_rcnn_resnest50_fpn')
    cfg.val_evaluator = dict(type=type_, ann_file='former', classwise=True)
    cfg.test_evaluator = [dict(type='Other'), dict(type=type_, classwise=False)]
    use_data(cfg, shapes)
    assert cfg.val_evaluator == dict(type=wanted, ann_file=str(shapes / 'val.json'), classwise=True)
    assert cfg.test_evaluator.type == wanted and cfg.test_evaluator.classwise is False


def test_they_are_built_from_any_config(shapes):
    path = shapes / 'val.json'
    from mmengine.registry import METRICS as ROOT

    assert type(ROOT.build(dict(type=OURS, ann_file=str(path)))).__module__.endswith('coco_metric')
    assert type(ROOT.build(dict(type='mmresnest.IoUMetric'))).__module__.endswith('iou_metric')
