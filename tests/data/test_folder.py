"""Reading a user's data folder: what it says of good ones, and how it refuses bad ones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import refuses
from PIL import Image

from mmresnest.data import json_files
from mmresnest.data.checks import images, labels
from mmresnest.data.folder import read_folder, scan_folder

SHARED = Path(__file__).resolve().parents[3] / 'shared' / 'data'


def table(name='a', count=2, masks=True):
    """A COCO table whose images are <name>0.jpg, <name>1.jpg ..."""
    square = [[1, 1, 9, 1, 9, 9, 1, 9]]
    return {
        'images': [
            {'id': i, 'file_name': f'{name}{i}.jpg', 'width': 20, 'height': 10}
            for i in range(count)
        ],
        'annotations': [
            {
                'id': i + 1,
                'image_id': i,
                'category_id': 7,
                'bbox': [1, 1, 8, 8],
                'area': 64,
                'iscrowd': 0,
                **({'segmentation': square} if masks else {}),
            }
            for i in range(count)
        ],
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 3, 'name': 'dog'}],
    }


def write_coco(root, **tables):
    """Writes tables and empty files for their images, which only have to exist."""
    for split, rows in tables.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / f'{split}.json').write_text(json.dumps(rows))
        for image in rows['images']:
            (root / split / image['file_name']).touch()
    return root


def write_masks(root, masks, image_suffix='.jpg', mask_suffix='.png'):
    """Writes masks by split and stem, and empty files for their images."""
    for split, rows in masks.items():
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for stem, values in rows.items():
            (root / 'images' / split / (stem + image_suffix)).touch()
            mask = (
                values
                if isinstance(values, Image.Image)
                else Image.fromarray(np.array([values], np.uint8))
            )
            mask.save(root / 'annotations' / split / (stem + mask_suffix))
    return root


MASKS = {'train': {'a': [0, 1, 255], 'b': [0, 0]}, 'val': {'c': [2, 1]}}


def test_coco(tmp_path):
    found = read_folder(write_coco(tmp_path, train=table('a', 3), val=table('b')))
    assert found.kind == 'coco' and found.root == tmp_path
    # The order of the list, not of the ids: that is how mmdet numbers labels.
    assert found.classes == ('cat', 'dog')
    assert found.counts == {'train': 3, 'val': 2}
    assert found.has_masks and not found.has_test
    assert found.split('test') == found.split('val')
    assert found.split('train').annotations == 'train.json'
    assert found.split('train').images == 'train'
    assert '3 train, 2 val' in str(found)


def test_coco_test_split(tmp_path):
    found = read_folder(write_coco(tmp_path, train=table(), val=table('b'), test=table('c', 4)))
    assert found.has_test and found.split('test').image_count == 4
    submit = table('c')
    submit['annotations'] = []
    found = read_folder(write_coco(tmp_path, test=submit))
    assert not found.has_test and found.split('test').image_count == 2


def test_coco_as_published(tmp_path):
    for split, name in (('train', 'a'), ('val', 'b')):
        (tmp_path / f'{split}2017').mkdir()
        (tmp_path / 'annotations').mkdir(exist_ok=True)
        path = tmp_path / 'annotations' / f'instances_{split}2017.json'
        path.write_text(json.dumps(table(name)))
        for image in table(name)['images']:
            (tmp_path / f'{split}2017' / image['file_name']).touch()
    found = read_folder(tmp_path)
    assert found.split('val').annotations == 'annotations/instances_val2017.json'
    assert found.split('val').images == 'val2017'


def test_coco_paths_from_the_root(tmp_path):
    rows = {split: table(f'pictures/{split}') for split in ('train', 'val')}
    (tmp_path / 'pictures').mkdir()
    for split, one in rows.items():
        (tmp_path / f'{split}.json').write_text(json.dumps(one))
        for image in one['images']:
            (tmp_path / image['file_name']).touch()
    assert read_folder(tmp_path).split('train').images == ''


def test_coco_without_masks(tmp_path):
    found = read_folder(write_coco(tmp_path, train=table(), val=table('b', masks=False)))
    assert not found.has_masks
    assert 'val.json' in found.maskless and 'annotation 1' in found.maskless


def drop(name, key):
    return lambda rows: [row.pop(key) for row in rows[name]]


def put(name, key, value):
    return lambda rows: rows[name][0].update({key: value})


@pytest.mark.parametrize(
    'split, spoil, kind, parts',
    [
        ('train', lambda rows: rows.pop('images'), 'list-missing', ("'images'",)),
        ('train', lambda rows: rows.update(images=[]), 'list-missing', ("'images'",)),
        ('train', lambda rows: rows.update(annotations=[]), 'list-missing', ("'annotations'",)),
        ('val', lambda rows: rows.update(annotations=[]), 'list-missing', ("'annotations'",)),
        ('train', lambda rows: rows.update(categories=[]), 'list-missing', ("'categories'",)),
        (
            'train',
            lambda rows: [
                drop('annotations', 'bbox')(rows),
                drop('annotations', 'segmentation')(rows),  # from which it would follow
            ],
            'field-missing',
            ('2 of 2 annotations', "'bbox'"),
        ),
        ('train', drop('images', 'file_name'), 'field-missing', ('2 of 2 images', "'file_name'")),
        ('train', put('annotations', 'id', 2), 'annotation-twice', ('1 of 2', '"id"', '--fix')),
        (
            'train',
            put('annotations', 'image_id', 99),
            'image-unknown',
            ('1 of 2', '"image_id"', 'image 99', '--fix'),
        ),
        (
            'train',
            put('annotations', 'category_id', 4),
            'category-unknown',
            ('1 of 2', '"category_id"', '--fix'),
        ),
        ('train', put('categories', 'name', 'dog'), 'category-name-twice', ('1 of 2', "'dog'")),
        (
            'val',
            lambda rows: rows['categories'].reverse(),
            'categories-differ',
            ('train.json', "id 7 'cat'", "id 3 'dog'"),
        ),
        (
            'val',
            lambda rows: rows['categories'].pop(),
            'categories-differ',
            ('train.json', "id 3 'dog'", 'nothing'),
        ),
        (
            'val',
            put('categories', 'name', 'cta'),
            'categories-differ',
            ('train.json', "id 7 'cat'", "id 7 'cta'"),
        ),
    ],
)
def test_coco_that_cannot_be_used(tmp_path, split, spoil, kind, parts):
    tables = {'train': table(), 'val': table('b')}
    write_coco(tmp_path, **tables)
    spoil(tables[split])
    (tmp_path / f'{split}.json').write_text(json.dumps(tables[split]))
    with refuses(f'data.{kind}', f'{split}.json', *parts):
        read_folder(tmp_path)


def test_coco_images_missing(tmp_path):
    write_coco(tmp_path, train=table('a', 4), val=table('b'))
    (tmp_path / 'train' / 'a2.jpg').unlink()
    with refuses('data.image-missing', '4 images', '1 do', 'train/a2.jpg'):
        read_folder(tmp_path)
    for image in (tmp_path / 'train').iterdir():
        image.unlink()
    with refuses('data.image-missing', '4 do', 'train/a0.jpg'):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    'text, code, part',
    [
        ('{"images": [', 'data.json', 'line 1, column 13'),
        ('[]', 'data.json', 'list'),
        ('', 'data.json', 'line 1, column 1;'),
        (b'\xff\xfe\x00', 'data.encoding', 'UTF-16'),
    ],
)
def test_json_that_is_none(tmp_path, text, code, part):
    write_coco(tmp_path, train=table(), val=table('b'))
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / 'train.json').write_bytes(content)
    with refuses(code, 'train.json', part):
        read_folder(tmp_path)


def test_no_folder(tmp_path):
    with refuses('data.missing'):
        read_folder(tmp_path / 'nowhere')
    (tmp_path / 'file').touch()
    with refuses('data.not-a-folder'):
        read_folder(tmp_path / 'file')
    (tmp_path / 'empty').mkdir()
    with refuses('data.no-annotations'):
        read_folder(tmp_path / 'empty')
    with refuses('data.no-annotations', 'train.json'):
        read_folder(tmp_path / 'empty', 'coco')
    with refuses('option.unknown', "'voc'", 'legal: '):
        read_folder(tmp_path / 'empty', 'voc')


def test_no_validation_split(tmp_path):
    with refuses('data.no-split', 'val.json'):
        read_folder(write_coco(tmp_path, train=table()))


def test_masks(tmp_path):
    found = read_folder(write_masks(tmp_path, MASKS))
    assert found.kind == 'ade20k' and found.counts == {'train': 2, 'val': 1}
    # Class 2 is only in val, and 255 is no class.
    assert found.classes == ('class_0', 'class_1', 'class_2')
    assert (found.img_suffix, found.seg_map_suffix) == ('.jpg', '.png')
    assert not found.has_test
    write_masks(tmp_path, {'test': {'d': [0, 2]}})
    assert read_folder(tmp_path).has_test


def test_masks_named(tmp_path):
    write_masks(tmp_path, MASKS)
    (tmp_path / 'annotations' / 'classes.txt').write_text('ground\nsky\nsea\nsun\n')
    assert read_folder(tmp_path).classes == ('ground', 'sky', 'sea', 'sun')
    (tmp_path / 'classes.txt').write_text('ground\nsky\n')
    with refuses('data.label-value', '2 classes', 'c.png', 'label 2', '0 to 1'):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    'content, names',
    [
        ('ground\nsky\nsea\n'.encode('utf-8-sig'), ('ground', 'sky', 'sea')),
        (b'0 ground\n1 sky\n2 sea\n', ('ground', 'sky', 'sea')),
        (b'0: ground\r\n1: sky\r\n2: deep sea\r\n', ('ground', 'sky', 'deep sea')),
        ('地\n天\n海\n'.encode(), ('地', '天', '海')),
        (b'3 wheeler\ncar\nbus\n', ('3 wheeler', 'car', 'bus')),
    ],
)
def test_names_of_masks(tmp_path, content, names):
    write_masks(tmp_path, MASKS)
    (tmp_path / 'classes.txt').write_bytes(content)
    assert read_folder(tmp_path).classes == names


@pytest.mark.parametrize(
    'content, code, said',
    [
        ('背景\n环\n海\n'.encode('gbk'), 'data.encoding', 'GBK'),
        ('ground\nsky\nsea\n'.encode('utf-16'), 'data.encoding', 'UTF-16'),
        ('café\nsky\nsea\n'.encode('latin-1'), 'data.encoding', 'Latin-1'),
        (b'ground\nsky\nsky\n', 'data.names-twice', "'sky' 2 times"),
        (b'1 ground\n2 sky\n3 sea\n', 'data.names-numbered', '[1, 2, 3]'),
        (b'1 ground\n0 sky\n2 sea\n', 'data.names-numbered', '[1, 0, 2]'),
    ],
)
def test_names_of_masks_that_cannot_be_used(tmp_path, content, code, said):
    write_masks(tmp_path, MASKS)
    (tmp_path / 'classes.txt').write_bytes(content)
    with refuses(code, said):
        read_folder(tmp_path)


def test_masks_named_as_cityscapes_does(tmp_path):
    masks = {
        split: {f'town/{stem}': values for stem, values in rows.items()}
        for split, rows in MASKS.items()
    }
    for split in masks:
        for kind in ('images', 'annotations'):
            (tmp_path / kind / split / 'town').mkdir(parents=True)
    found = read_folder(write_masks(tmp_path, masks, '_leftImg8bit.png', '_gtFine_labels.png'))
    assert found.img_suffix == '_leftImg8bit.png'
    assert found.seg_map_suffix == '_gtFine_labels.png'
    assert found.counts == {'train': 2, 'val': 1}


def test_mask_suffix_longer_than_images(tmp_path):
    found = read_folder(write_masks(tmp_path, MASKS, '.jpg', '_mask.png'))
    assert (found.img_suffix, found.seg_map_suffix) == ('.jpg', '_mask.png')


@pytest.mark.parametrize(
    'spoil, kind, parts',
    [
        (
            lambda root: (root / 'annotations/train/a.png').unlink(),
            'label-missing',
            ('1 of 2 images', 'a.jpg', 'a.png'),
        ),
        (
            lambda root: (root / 'annotations/val/c.png').unlink(),
            'no-masks',
            ('annotations/val', '.png'),
        ),
        (lambda root: (root / 'images/val/c.jpg').unlink(), 'no-images', ('images/val', '.jpg')),
        (
            lambda root: (root / 'images/train/x.bmp').touch(),
            'images-mixed',
            ('images/train', '2 .jpg', '1 .bmp'),
        ),
        (
            lambda root: (root / 'annotations/val/c.png').write_text('x'),
            'label-unreadable',
            ('annotations/val/c.png',),
        ),
        (
            lambda root: (root / 'annotations/val').rename(root / 'annotations/v'),
            'no-annotations',
            ('annotations/val', '--split'),
        ),
    ],
)
def test_masks_that_do_not_match(tmp_path, spoil, kind, parts):
    spoil(write_masks(tmp_path, MASKS))
    with refuses(f'data.{kind}', *parts):
        read_folder(tmp_path)


def test_findings_of_folders_have_codes_and_reading_goes_on(tmp_path):
    """One reader: strict, it raises the first error, and otherwise it collects them all."""
    coloured = {'train': MASKS['train'], 'val': {'c': [0, 254]}}
    root = write_masks(tmp_path / 'far', coloured)
    (root / 'images/val/x.bmp').touch()
    folder, findings = scan_folder(root)
    assert folder.counts == {'train': 2, 'val': 1}
    assert [one.kind for one in findings if one.is_error] == [
        'images-mixed',
        'label-missing',
        'label-far',
    ]
    with refuses('data.images-mixed', 'images/val'):
        read_folder(root)
    root = write_masks(tmp_path / 'suffixes', {'train': MASKS['train']})
    write_masks(root, {'val': MASKS['val']}, '.png', '.tif')
    assert [one.kind for one in scan_folder(root)[1] if one.is_error] == ['label-suffixes']
    root = write_masks(tmp_path / 'ignored', {'train': {'a': [255]}, 'val': {'c': [255]}})
    folder, findings = scan_folder(root)
    assert [one.kind for one in findings if one.is_error] == ['labels-ignored'] and len(
        folder.classes
    ) == 1
    root = write_panoptic(tmp_path / 'panoptic', train=panoptic_table('a'), val=panoptic_table('b'))
    (root / 'panoptic_val').rename(root / 'away')
    assert [one.kind for one in scan_folder(root, 'panoptic')[1] if one.is_error] == ['labels-none']
    other = table('b')
    other['categories'].reverse()
    root = write_coco(tmp_path / 'coco', train=table('a'), val=other)
    folder, findings = scan_folder(root)
    assert [one.kind for one in findings if one.is_error] == ['categories-differ']
    assert folder.classes == ('cat', 'dog') and folder.counts == {'train': 2, 'val': 2}


def test_masks_with_other_values(tmp_path):
    coloured = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
    write_masks(tmp_path, MASKS | {'val': {'c': coloured}})
    with refuses('data.label-colours', 'c.png'):
        read_folder(tmp_path)
    write_masks(tmp_path, {'val': {'c': [0, 127, 254]}})
    with refuses('data.label-far'):
        read_folder(tmp_path)
    write_masks(tmp_path, {'train': {'a': [255], 'b': [255]}, 'val': {'c': [255]}})
    with refuses('data.labels-ignored', 'but 255'):
        read_folder(tmp_path)


def test_test_masks_have_no_further_class(tmp_path):
    write_masks(tmp_path, MASKS | {'test': {'d': [5]}})
    with refuses('data.label-value', '3 classes', 'd.png', 'label 5'):
        read_folder(tmp_path)


def test_many_masks_are_read_once(tmp_path, monkeypatch):
    write_masks(tmp_path / 'set', MASKS)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(labels, '_CACHED_FROM', 2)
    first = read_folder(tmp_path / 'set')
    opened = []
    monkeypatch.setattr(
        labels,
        'read_label_file',
        lambda path: opened.append(path) or images.ImageFile(values=(0, 1, 2)),
    )
    assert read_folder(tmp_path / 'set') == first and not opened
    write_masks(tmp_path / 'set', {'val': {'c': [2, 1, 1, 1]}})
    assert read_folder(tmp_path / 'set') == first and len(opened) == 3


@pytest.mark.parametrize('changed', ['time', 'size'])
def test_masks_that_changed_are_read_again(tmp_path, monkeypatch, changed):
    """A mask of the size that it had is told by its time, and one of the time by its size."""
    write_masks(tmp_path / 'set', MASKS)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(labels, '_CACHED_FROM', 2)
    first = read_folder(tmp_path / 'set')
    opened, read = [], labels.read_label_file
    monkeypatch.setattr(labels, 'read_label_file', lambda path: opened.append(path) or read(path))
    assert read_folder(tmp_path / 'set') == first and not opened
    (mask,) = (tmp_path / 'set').rglob('c.png')
    before = mask.stat()
    write_masks(tmp_path / 'set', {'val': {'c': [1, 2]}})
    assert mask.stat().st_size == before.st_size
    mask.write_bytes(mask.read_bytes() + bytes(changed == 'size'))
    time = before.st_mtime_ns + 10**9 * (changed == 'time')
    os.utime(mask, ns=(before.st_atime_ns, time))
    assert read_folder(tmp_path / 'set') == first and len(opened) == 3


def test_task_decides_between_layouts(tmp_path):
    write_coco(tmp_path, train=table(), val=table('b'))
    assert read_folder(tmp_path, 'ade20k').classes == ('background', 'cat', 'dog')
    write_masks(tmp_path, MASKS)
    assert read_folder(tmp_path).kind == 'coco'
    assert read_folder(tmp_path, 'coco').classes == ('cat', 'dog')
    assert len(read_folder(tmp_path, 'ade20k').classes) == 3
    (tmp_path / 'train.json').unlink()
    with refuses('data.no-split', 'train'):
        read_folder(tmp_path, 'coco')


def panoptic_table(name='a', count=2):
    """The COCO table's images, each with one cat before a sky."""

    def segment(number, category):
        return {
            'id': number,
            'category_id': category,
            'bbox': [0, 0, 20, 10],
            'area': 100,
            'iscrowd': 0,
        }

    rows = table(name, count)
    rows['annotations'] = [
        {
            'image_id': image['id'],
            'file_name': f'{name}{image["id"]}.png',
            'segments_info': [segment(1, 7), segment(2, 3)],
        }
        for image in rows['images']
    ]
    rows['categories'] = [
        {'id': 7, 'name': 'cat', 'isthing': 1},
        {'id': 3, 'name': 'sky', 'isthing': 0},
    ]
    return rows


def write_panoptic(root, **tables):
    """Writes tables, and empty files for their images and masks."""
    for split, rows in tables.items():
        for place, suffix in ((split, '.jpg'), (f'panoptic_{split}', '.png')):
            (root / place).mkdir(parents=True, exist_ok=True)
            for image in rows['images']:
                (root / place / image['file_name']).with_suffix(suffix).touch()
        (root / f'panoptic_{split}.json').write_text(json.dumps(rows))
    return root


def test_panoptic(tmp_path):
    write_panoptic(tmp_path, train=panoptic_table('a', 3), val=panoptic_table('b'))
    found = read_folder(tmp_path, 'panoptic')
    assert (found.things, found.classes) == (1, ('cat', 'sky'))
    assert found.counts == {'train': 3, 'val': 2} and found.has_masks and not found.has_test
    assert found.split('val').masks == 'panoptic_val' and found.split('val').images == 'val'
    assert read_folder(tmp_path) == found
    write_panoptic(tmp_path, test=panoptic_table('c', 4))
    assert read_folder(tmp_path).split('test').image_count == 4
    write_coco(tmp_path, train=table(), val=table('b'))
    assert read_folder(tmp_path).kind == 'coco', 'the kind is a matter of the task'


def of_segment(key, value=None):
    def spoil(rows):
        first = rows['annotations'][0]['segments_info'][0]
        first.pop(key) if value is None else first.update({key: value})

    return spoil


@pytest.mark.parametrize(
    'split, spoil, kind, parts',
    [
        *(
            (
                'train',
                lambda rows, name=name: rows.update({name: []}),
                'list-missing',
                (f"'{name}'",),
            )
            for name in ('images', 'annotations', 'categories')
        ),
        ('val', lambda rows: rows.pop('images'), 'list-missing', ("'images'",)),
        ('train', drop('images', 'file_name'), 'field-missing', ('2 of 2 images', "'file_name'")),
        ('val', drop('images', 'height'), 'field-missing', ('2 of 2 images', "'height'")),
        (
            'train',
            drop('categories', 'isthing'),
            'field-missing',
            ('2 of 2 categories', "'isthing'", '"isthing": 1'),
        ),
        (
            'train',
            drop('annotations', 'segments_info'),
            'field-missing',
            ('2 of 2 annotations', "'segments_info'", 'COCO', 'mask_rcnn_resnest50_fpn'),
        ),
        *(
            ('train', of_segment(key), kind, ('1 of 4 segments', f"'{key}'"))
            for key, kind in (
                ('id', 'field-missing'),
                ('category_id', 'field-missing'),
                ('bbox', 'field-missing'),
                ('area', 'area-missing'),
                ('iscrowd', 'iscrowd-missing'),
            )
        ),
        (
            'val',
            of_segment('category_id', 99),
            'segment-category',
            ('segment 1 of image 0', 'category_id 99', '[3, 7]'),
        ),
        (
            'val',
            lambda rows: rows['categories'].reverse(),
            'categories-differ',
            ("id 7 'cat'", "id 3 'sky'"),
        ),
        ('train', put('categories', 'name', 'sky'), 'category-name-twice', ("'sky'",)),
    ],
)
def test_panoptic_that_cannot_be_used(tmp_path, split, spoil, kind, parts):
    tables = {'train': panoptic_table(), 'val': panoptic_table('b')}
    write_panoptic(tmp_path, **tables)
    spoil(tables[split])
    if kind == 'category-name-twice':  # in both, or they would differ
        spoil(tables['val'])
    for name, rows in tables.items():
        (tmp_path / f'panoptic_{name}.json').write_text(json.dumps(rows))
    with refuses(f'data.{kind}', f'panoptic_{split}.json', *parts):
        read_folder(tmp_path, 'panoptic')


def test_panoptic_with_stuff_first(tmp_path):
    tables = {'train': panoptic_table(), 'val': panoptic_table('b')}
    for rows in tables.values():
        rows['categories'].reverse()
    with refuses('data.thing-order', "'sky'", "'cat'"):
        read_folder(write_panoptic(tmp_path, **tables), 'panoptic')


@pytest.mark.parametrize(
    'lost, code, parts',
    [
        (
            'panoptic_val/b1.png',
            'data.label-missing',
            ('panoptic_val.json: 1 of 2', 'panoptic_val/b1.png'),
        ),
        ('train/a0.jpg', 'data.image-missing', ('panoptic_train.json', '2 images', 'train/a0.jpg')),
        ('panoptic_val.json', 'data.no-annotations', ('panoptic_val.json', 'panoptic_val/ ')),
        (
            'panoptic_train.json',
            'data.no-annotations',
            ('panoptic_train.json', 'panoptic_train/ ', 'COCO', 'mask_rcnn_resnest50_fpn'),
        ),
        ('panoptic_train', 'data.labels-none', ('panoptic_train.json', 'panoptic_train;')),
    ],
)
def test_panoptic_files_that_are_lost(tmp_path, lost, code, parts):
    write_panoptic(tmp_path, train=panoptic_table(), val=panoptic_table('b'))
    (tmp_path / 'train.json').write_text(json.dumps(table()))
    (tmp_path / lost).rename(tmp_path / 'away')
    with refuses(code, *parts):
        read_folder(tmp_path, 'panoptic')


@pytest.mark.parametrize(
    'order',
    [('info', 'images', 'annotations', 'categories'), ('categories', 'annotations', 'images')],
)
@pytest.mark.parametrize('indent', [None, 1])
def test_peeking_sees_the_beginning_of_each_list(tmp_path, order, indent):
    rows = {**table(count=9), 'info': {'year': 2017}}
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({name: rows[name] for name in order}, indent=indent) + '\n')
    seen = json_files.peek_json(path, most=3)
    assert seen == {
        name: rows[name][: None if name == 'categories' else 3] for name in order if name != 'info'
    }
    rows['annotations'] = []
    path.write_text(json.dumps(rows, indent=indent))
    assert json_files.peek_json(path, most=99) == {name: rows[name] for name in seen}


@pytest.mark.parametrize(
    'spoil',
    [
        lambda text: text[:-1],
        lambda text: text.replace('"id": 7', '"id": '),
        lambda text: text.replace('[{', '{{'),
    ],
)
def test_peeking_says_when_it_cannot(tmp_path, spoil):
    path = tmp_path / 'a.json'
    path.write_text(spoil(json.dumps(table())))
    with pytest.raises(ValueError):
        json_files.peek_json(path, most=3)


@pytest.mark.skipif(not SHARED.is_dir(), reason='the shared data sets are not beside the clone')
def test_real_folders():
    cells, scans = read_folder(SHARED / 'bccd'), read_folder(SHARED / 'usgra')
    assert cells.classes == ('RBC', 'WBC', 'Platelets')
    assert cells.counts == {'train': 205, 'val': 87, 'test': 72} and not cells.has_masks
    assert len(scans.classes) == 3
    assert scans.counts == {'train': 170, 'val': 34, 'test': 40}
