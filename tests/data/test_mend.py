"""Values of annotation files that have one meaning: read as that, by whatever reads the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import refuses
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData

from mmresnest.config.inspect import import_packages
from mmresnest.config.load import load_config
from mmresnest.data.checks.mend import (
    mend_area,
    mend_box,
    mend_file_name,
    mend_flag,
    mend_mask,
    spell_id,
)
from mmresnest.data.checks.rows import ABSENT
from mmresnest.data.folder import read_folder, scan_folder
from mmresnest.data.json_files import read_coco_file

pytestmark = pytest.mark.filterwarnings('ignore')

SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


@pytest.mark.parametrize(
    'value, meaning',
    [
        *((value, 0) for value in (0, 0.0, False, None, '', '0', ' 0 ', 'false', 'False', '0.0')),
        *((value, 1) for value in (1, 1.0, True, '1', 'true')),
        (ABSENT, 0),
        *((value, value) for value in (2, -1, 'maybe', [0], 0.5)),
    ],
)
def test_flags(value, meaning):
    read = mend_flag(value, {})
    assert read == meaning and (read is value or type(read) is int)


@pytest.mark.parametrize(
    'value, meaning',
    [
        *((value, 50) for value in (ABSENT, None, 0, 0.0, '0')),
        *((value, 12.5) for value in (12.5, '12.5', ' 12.5 ', '1.25e1')),
        *((value, value) for value in (-4, 'large', [3], float('inf'), 'nan', '0x10')),
    ],
)
def test_areas(value, meaning):
    assert mend_area(value, {'bbox': [3, 4, 5, 10]}) == meaning


@pytest.mark.parametrize('box', [None, [3, 4, 0, 10], [3, 4, '5', 10], 'box'])
def test_an_area_is_not_made_up(box):
    assert mend_area(ABSENT, {'bbox': box}) is ABSENT and mend_area(0, {'bbox': box}) == 0


@pytest.mark.parametrize(
    'value, meaning',
    [
        (['1', '2.5', ' 3', '4e0'], [1, 2.5, 3, 4]),
        ([1, '2', 3, 4], [1, 2, 3, 4]),
        *((value, value) for value in (['1', '2', '3'], [1, 2, None, '4'], '1 2 3 4', ['a'] * 4)),
    ],
)
def test_boxes(value, meaning):
    assert mend_box(value, {}) == meaning


@pytest.mark.parametrize(
    'value, meaning',
    [
        (SQUARE, [SQUARE]),
        ([[]], []),
        ([[], SQUARE, []], [SQUARE]),
        ({'size': [9, 9], 'counts': "b'PPYo0'"}, {'size': [9, 9], 'counts': 'PPYo0'}),
        ({'size': [9, 9], 'counts': 'b"P\\\\Y"'}, {'size': [9, 9], 'counts': 'P\\Y'}),
        *(
            (value, value)
            for value in ([1, 2, 3, 4], [[1, 2, 3, 4]], 'M 0 0', None, {'counts': 'PPYo0'})
        ),
    ],
)
def test_masks(value, meaning):
    assert mend_mask(value, {}) == meaning


@pytest.mark.parametrize(
    'value, meaning', [(0, 1), (ABSENT, 1), ('0', 1), (False, 1), (1, 1), ('maybe', 'maybe')]
)
def test_an_object_that_is_ignored_is_a_crowd(value, meaning):
    assert mend_flag(value, {'ignore': 1}) == mend_flag(value, {'ignore': '1'}) == meaning
    assert mend_flag(value, {'ignore': 0}) == mend_flag(value, {})


@pytest.mark.parametrize('box', [ABSENT, None, []])
def test_a_box_follows_from_polygons(box):
    assert mend_box(box, {'segmentation': [SQUARE, [30, 5, 31, 5, 31, 6]]}) == [10, 5, 21, 15]
    for mask in (None, [], [[1, 2]], {'counts': 'a'}, [[1, 2, 3, 4, 5, 'x']]):
        assert mend_box(box, {'segmentation': mask}) is box


def test_a_box_that_cvat_turned():
    row = {'bbox': [10, 10, 20, 40], 'attributes': {'rotation': 90.0}, 'segmentation': []}
    row['segmentation'] = mend_mask(row['segmentation'], row)
    assert row['segmentation'] == [[40, 20, 40, 40, 0, 40, 0, 20]]
    row['bbox'] = mend_box(row['bbox'], row)
    assert row['bbox'] == [0, 20, 40, 20]
    assert mend_box(row['bbox'], row) is row['bbox']  # and once more changes nothing
    assert mend_mask(row['segmentation'], row) is row['segmentation']
    for turn in (0, '90', float('nan'), None):
        assert mend_mask([], {'bbox': [1, 2, 3, 4], 'attributes': {'rotation': turn}}) == []


def test_a_file_is_the_end_of_an_address():
    address = 'http://images.cocodataset.org/val2017/1.jpg'
    assert mend_file_name(ABSENT, {'coco_url': address}) == 'val2017/1.jpg'
    assert mend_file_name('a.jpg', {'coco_url': address}) == 'a.jpg'
    assert mend_file_name(ABSENT, {'coco_url': '1.jpg'}) is ABSENT


def test_ids_are_spelled_alike_whatever_their_type():
    assert {spell_id(one) for one in (3, 3.0, '3', ' 3 ', '3.0')} == {'3'}
    assert len({spell_id(one) for one in ('007', 7, '0x7', 'a', 'A', 7.5)}) == 6


def each(place, **changes):
    """Change a field of every row; a value may be made from the one that is there."""

    def spoil(table):
        for row in table[place]:
            for key, value in changes.items():
                row[key] = value(row[key]) if callable(value) else value

    return spoil


def drop(place, key):
    return lambda table: [row.pop(key) for row in table[place]]


def both(*spoils):
    return lambda table: [spoil(table) for spoil in spoils]


def float_ids(table):
    each('images', id=float)(table)
    each('categories', id=float)(table)
    each('annotations', id=float, image_id=float, category_id=float)(table)


def huge_ids(table):
    each('images', id=lambda number: 2**70 + number)(table)
    each('annotations', image_id=lambda number: 2**70 + number)(table)


def text_ids(table):
    each('images', id=lambda number: f'{number:06d}')(table)
    each('annotations', image_id=lambda number: f'{number:06d}')(table)


def mixed_ids(table):
    """Hashes with and without a sign: numpy makes floats of them, which are rounded."""

    def change(number):
        return 2**63 + number if number % 2 else -number

    each('images', id=change)(table)
    each('annotations', image_id=change)(table)


def from_zero(table):
    for number, row in enumerate(table['annotations']):
        row['id'] = number


def uuids(table):
    for number, row in enumerate(table['annotations']):
        row['id'] = f'{number:08x}-0000-4000-8000-{number:012x}'


def half_text(number):
    return f'frame-{number}' if number % 2 else number


SPELLINGS = {
    'float ids': float_ids,
    'huge ids': huge_ids,
    'text ids': text_ids,
    'mixed ids': mixed_ids,
    'annotations from 0': from_zero,
    'UUIDs of annotations': uuids,
    'annotation ids as text': each('annotations', id=str),
    'text categories of annotations': each('annotations', category_id=str),
    'float links': each('annotations', image_id=float, category_id=float),
    'text links, ids numbers': each('annotations', image_id=str, category_id=str),
    'no iscrowd': drop('annotations', 'iscrowd'),
    'iscrowd null': each('annotations', iscrowd=None),
    'iscrowd text': each('annotations', iscrowd='0'),
    'iscrowd false': each('annotations', iscrowd=False),
    'iscrowd float': each('annotations', iscrowd=0.0),
    'sizes as text': each('images', width=str, height=str),
    'boxes as text': each('annotations', bbox=lambda box: [str(one) for one in box]),
    'areas as text': each('annotations', area=str),
    'names as numbers': None,
    'categories by name': both(
        each('categories', id='c{}'.format), each('annotations', category_id='c{}'.format)
    ),
    'image ids half text': both(
        each('images', id=half_text), each('annotations', image_id=half_text)
    ),
}


@pytest.fixture(scope='module')
def table(shapes):
    rows = json.loads((shapes / 'val.json').read_text())
    for row in rows['annotations']:
        row['area'] = row['bbox'][2] * row['bbox'][3]
    return rows


@pytest.fixture
def cfg():
    cfg = load_config('faster_rcnn_resnest50_fpn')
    import_packages(cfg)
    return cfg


def build_data(cfg, shapes, file):
    names = [
        str(row['name']) for row in json.loads(Path(file).read_text('utf-8-sig'))['categories']
    ]
    settings = {
        **cfg.val_dataloader.dataset,
        'data_root': str(shapes),
        'ann_file': str(file),
        'data_prefix': dict(img='val'),
        'metainfo': dict(classes=names),
        'pipeline': [],
        'serialize_data': False,
    }
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(settings)


def score(cfg, dataset, file, fast, shift=0):
    """Score the annotations themselves, moved by some pixels, as predictions."""
    from mmresnest.evaluation.coco_metric import CocoMetric, FastCocoMetric

    metric = (FastCocoMetric if fast else CocoMetric)(ann_file=str(file), metric='bbox')
    metric.dataset_meta = dataset.metainfo
    for row in dataset.load_data_list() if not dataset.data_list else dataset.data_list:
        boxes = np.array([one['bbox'] for one in row['instances']], float).reshape(-1, 4)
        found = InstanceData(
            bboxes=boxes + shift * (np.arange(len(boxes)) % 3)[:, None],
            labels=np.array([one['bbox_label'] for one in row['instances']], int),
            scores=1 - np.arange(len(boxes)) / 100,
        )
        sample = dict(
            pred_instances={key: _tensor(value) for key, value in found.items()},
            img_id=row['img_id'],
            ori_shape=(row['height'], row['width']),
        )
        metric.process({}, [sample])
    return metric.evaluate(len(dataset.data_list))


def _tensor(values):
    import torch

    return torch.as_tensor(np.asarray(values))


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_data_and_scores_are_those_of_the_plain_file(shapes, cfg, table, tmp_path, spelling):
    spoil = SPELLINGS[spelling]
    plain, file = tmp_path / 'plain.json', tmp_path / 'spelled.json'
    rows = json.loads(json.dumps(table))
    if spoil is None:
        for row in rows['categories']:
            row['name'] = str(row['id'])
    plain.write_text(json.dumps(rows))
    spelled = json.loads(json.dumps(rows))
    (spoil or each('categories', name=int))(spelled)
    file.write_text(json.dumps(spelled))
    ours, theirs = build_data(cfg, shapes, file), build_data(cfg, shapes, plain)
    assert len(ours.data_list) == len(theirs.data_list) > 1
    for one, other in zip(ours.data_list, theirs.data_list):
        assert {**one, 'img_id': 0} == {**other, 'img_id': 0}
    for fast in (False, True):
        assert score(cfg, ours, file, fast)['coco/bbox_mAP'] == pytest.approx(1)
        moved = score(cfg, ours, file, fast, shift=2)
        assert moved == pytest.approx(score(cfg, theirs, plain, False, shift=2))
        assert 0.2 < moved['coco/bbox_mAP'] < 0.99


def test_a_file_with_a_byte_order_mark(shapes, cfg, table, tmp_path):
    file = tmp_path / 'bom.json'
    file.write_text(json.dumps(table), encoding='utf-8-sig')
    assert read_coco_file(file) == (table, [])
    dataset = build_data(cfg, shapes, file)
    assert score(cfg, dataset, file, fast=False)['coco/bbox_mAP'] == pytest.approx(1)


def test_another_encoding_is_named(shapes, tmp_path):
    root = Path(shutil.copytree(shapes, tmp_path / 'data'))
    rows = json.loads((root / 'val.json').read_text())
    rows['categories'][0]['name'] = '环'
    (root / 'val.json').write_text(json.dumps(rows, ensure_ascii=False), encoding='gbk')
    with refuses('data.encoding', 'val.json', 'GBK'):
        read_folder(root, 'coco')


def test_what_is_mended_is_said_once_and_the_rows_stay(shapes, tmp_path):
    root = Path(shutil.copytree(shapes, tmp_path / 'data'))
    rows = json.loads((root / 'train.json').read_text())
    each('annotations', iscrowd='0', category_id=str)(rows)
    rows['annotations'][0]['iscrowd'] = 'maybe'
    (root / 'train.json').write_text(json.dumps(rows))
    _, findings = scan_folder(root, 'coco')
    said = [one.said for one in findings if one.kind == 'value-mended']
    count = len(rows['annotations'])
    assert len(said) == 2
    assert f'{count} of {count} annotations have a "category_id" that is \'' in said[0]
    assert f'{count - 1} of {count} annotations have a "iscrowd" that is \'0\'' in said[1]
    table, _ = read_coco_file(root / 'train.json')
    assert table['annotations'][0]['iscrowd'] == 'maybe'
    assert [row['segmentation'] for row in table['annotations']] == [
        row['segmentation'] for row in rows['annotations']
    ]
