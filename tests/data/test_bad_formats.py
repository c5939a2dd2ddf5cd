"""Folders that are not understood, files that cannot be read: refused, with place and remedy."""

import json
import shutil

import pytest
from helpers.errors import refuses
from helpers.folders import CLASSES, KINDS, make_truth, put_yolo, write_text
from PIL import Image

from mmresnest.data.folder import read_folder
from mmresnest.data.formats.split import Division
from mmresnest.data.request import DataRequest

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mmresnest'


def change_text(path, old, new):
    """Return what replaces a text in a file; an empty one stands for all of it."""

    def spoil(root):
        text = (root / path).read_text()
        assert old in text
        write_text(root / path, text.replace(old, new, 1) if old else new)

    return spoil


def change_shape(**fields):
    """Return what changes the first shape of a file of labelme."""

    def spoil(root):
        path = root / 'train_0.json'
        table = json.loads(path.read_text())
        table['shapes'][0].update(fields)
        path.write_text(json.dumps(table, indent=1))

    return spoil


def resize_image(path):
    def spoil(root):
        Image.open(root / path).resize((30, 20)).save(root / path)

    return spoil


def remove(path):
    return lambda root: (root / path).unlink()


LABEL, XML = 'labels/train/train_0.txt', 'Annotations/train_0.xml'
BOMB = '<!DOCTYPE a [<!ENTITY b "b"><!ENTITY c "&b;&b;">]>\n<annotation>'

# fmt: off
BAD = {
    'voc-no-size': ('voc', change_text(XML, '<width>80</width>', ''), 'data.size-missing',
                    [f'{XML}:', '<size>']),
    'voc-no-box': ('voc', change_text(XML, 'bndbox>', 'box>'), 'data.xml', [f'{XML}:']),
    'voc-no-name': ('voc', change_text(XML, '<name>disk</name>', ''), 'data.label-line', [XML]),
    'voc-corner-text': ('voc', change_text(XML, '<xmin>', '<xmin>x'), 'data.label-line',
                        [f'{XML}:9', 'xmin']),
    'voc-corners-swapped': ('voc', change_text(XML, '<xmax>', '<xmax>-'), 'data.label-line', [XML]),
    'voc-entities': ('voc', change_text(XML, '<annotation>', BOMB), 'data.xml',
                     [f'{XML}:1', 'DOCTYPE']),
    'voc-cut-off': ('voc', change_text(XML, '</annotation>', ''), 'data.xml', [XML]),
    'voc-size': ('voc', resize_image('JPEGImages/train_0.jpg'), 'data.image-size',
                 ['train_0.jpg', '30 x 20', '80 x 96', XML]),
    'voc-no-image': ('voc', remove('JPEGImages/train_0.jpg'), 'data.image-missing', [XML]),
    'voc-list': ('voc', remove(XML), 'data.label-missing', ['train.txt:1', XML]),
    'yolo-five-and-a-half': ('yolo', change_text(LABEL, '\n', ' 0.5\n'), 'data.label-line',
                             [f'{LABEL}:1', '6 numbers']),
    'yolo-text': ('yolo', change_text(LABEL, '0 ', 'disk '), 'data.label-line', [f'{LABEL}:1']),
    'yolo-nan': ('yolo', change_text(LABEL, '0 0', '0 nan 0'), 'data.label-line', [f'{LABEL}:1']),
    'yolo-pixels': ('yolo', change_text(LABEL, ' 0.', ' 14'), 'data.label-line',
                    [f'{LABEL}:1', 'width']),
    'yolo-class': ('yolo', change_text(LABEL, '0 ', '3 '), 'data.class-index',
                   [f'{LABEL}:1', '3 classes', 'data.yaml']),
    'yolo-two-points': ('yolo', change_text(LABEL, '', '0 .1 .1 .2 .2 .1 .1\n'), 'data.mask-points',
                        [f'{LABEL}:1']),
    'yolo-nc': ('yolo-roboflow', change_text('data.yaml', 'nc: 3', 'nc: 4'), 'data.yaml',
                ['data.yaml', '4', '3 names']),
    'yolo-tag': ('yolo', change_text('data.yaml', 'names:', 'x: !!python/object/apply:os.getcwd []'
                                     '\nnames:'), 'data.yaml', ['data.yaml:', 'tag']),
    'yolo-names': ('yolo', change_text('data.yaml', '0: disk', '7: disk'), 'data.yaml', ['7']),
    'yolo-folder': ('yolo', change_text('data.yaml', 'images/train', 'images/tram'), 'data.missing',
                    ['data.yaml', 'images/tram']),
    'yolo-no-image': ('yolo', remove('images/train/train_0.jpg'), 'data.image-missing', [LABEL]),
    'yolo-list': ('yolo-lists', remove('images/train_0.jpg'), 'data.image-missing',
                  ['train.txt:1', 'train_0.jpg']),
    'labelme-circle': ('labelme', change_shape(shape_type='circle', points=[[1, 1], [2, 2]]),
                       'data.shape', ['train_0.json:6', 'circle', 'disk']),
    'labelme-two-points': ('labelme', change_shape(points=[[1, 1], [2, 2]]), 'data.mask-points',
                           ['train_0.json:6', '2 points']),
    'labelme-same-points': ('labelme', change_shape(points=[[1, 1], [2, 2], [1, 1]]),
                            'data.mask-points', ['train_0.json:6']),
    'labelme-no-label': ('labelme', change_shape(label=None), 'data.label-line', ['train_0.json']),
    'labelme-points-text': ('labelme', change_shape(points='1 2'), 'data.label-line',
                            ['train_0.json:6']),
    'labelme-size': ('labelme', resize_image('train_0.jpg'), 'data.image-size',
                     ['train_0.json', '30 x 20']),
    'labelme-no-image': ('labelme', remove('train_0.jpg'), 'data.image-missing', ['train_0.json']),
    'csv-number': ('csv', change_text('train_labels.csv', ',disk,', ',disk,x'), 'data.label-line',
                   ['train_labels.csv:2']),
    'csv-size': ('csv', change_text('train_labels.csv', ',80,96,', ',90,96,'), 'data.image-size',
                 ['train_labels.csv:2']),
    'csv-no-image': ('csv', remove('images/train/train_0.jpg'), 'data.image-missing',
                     ['train_labels.csv:2', 'train_0.jpg']),
    'coco-no-image': ('coco-roboflow', remove('valid/val_0.jpg'), 'data.image-missing',
                      ['valid/_annotations.coco.json', 'val_0.jpg']),
    'coco-twice': ('coco-roboflow', lambda root: shutil.copy(
        root / 'train/_annotations.coco.json', root / 'train/other.json'), 'data.ambiguous',
                   ['other.json', '_annotations.coco.json']),
}
# fmt: on


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_refused_with_place_and_remedy(name, tmp_path, cache):
    kind, spoil, code, parts = BAD[name]
    root = tmp_path / 'set'
    KINDS[kind].make(root)
    spoil(root)
    division = Division(0.4) if len(KINDS[kind].splits) == 1 else None
    with refuses(code, root, *parts):
        read_folder(DataRequest(root, division=division), 'coco')
    assert not cache.exists(), 'nothing half-read'


@pytest.mark.parametrize(
    'one, other, names',
    [
        ('yolo', 'voc', ['voc', 'yolo']),
        ('labelme', 'voc-flat', ['voc', 'labelme']),
        ('coco-published', 'yolo', ['coco', 'yolo']),
        ('csv', 'labelme', ['labelme', 'csv']),
    ],
)
def test_a_folder_of_two_formats_is_refused_until_one_is_named(one, other, names, tmp_path):
    root = tmp_path / 'set'
    KINDS[one].make(root)
    KINDS[other].make(root)
    with refuses('data.ambiguous', *(f'--format {name}' for name in names)):
        read_folder(root, 'coco')
    for name in names:
        division = Division(0.4) if 'labelme' in (name, one) and name != 'csv' else None
        folder = read_folder(DataRequest(root, format=name, division=division), 'coco')
        assert sorted(folder.classes) == sorted(CLASSES)


def test_what_a_folder_resembles_and_the_command_that_mends_it(tmp_path):
    put_yolo(tmp_path / 'set' / 'images', tmp_path / 'set' / 'labels', make_truth()['train'])
    with refuses('data.no-annotations', 'YOLO', 'classes.txt', 'printf', 'VOC', 'labelme'):
        read_folder(tmp_path / 'set', 'coco')
    names = '\\n'.join(CLASSES)
    write_text(tmp_path / 'set' / 'classes.txt', names.replace('\\n', '\n') + '\n')
    asked = DataRequest(tmp_path / 'set', division=Division(0.4))
    assert read_folder(asked, 'coco').classes == CLASSES


def test_a_format_that_does_not_fit_is_refused(tmp_path):
    KINDS['voc'].make(tmp_path / 'set')
    with refuses('data.no-annotations', '--format yolo'):
        read_folder(DataRequest(tmp_path / 'set', format='yolo'), 'coco')
    with refuses('option.unknown', 'voc'):
        read_folder(DataRequest(tmp_path / 'set', format='vok'), 'coco')


@pytest.mark.parametrize('text', ['0', '1', '-0.2', 'half', '0.2:x', 'nan'])
def test_no_share_of_images(text):
    with refuses('option.value', f'--split {text}'):
        DataRequest.parse('set', split=text)


def test_options_that_contradict(tmp_path):
    KINDS['voc'].make(tmp_path / 'set')
    with refuses('option.conflict', '--split'):
        read_folder(DataRequest(tmp_path / 'set', division=Division(0.2)), 'coco')
    with refuses('option.conflict', '--split'):
        DataRequest.parse(None, split='0.2')
    with refuses('option.conflict', '--format'):
        read_folder(DataRequest(tmp_path / 'set', format='voc'), 'panoptic')
