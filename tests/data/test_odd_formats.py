"""What tools and people write beside the rules: read for what it is, or refused with the remedy."""

import base64
import json
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from helpers.errors import refuses
from helpers.folders import (
    CLASSES,
    KINDS,
    coco_table,
    draw_image,
    make_cvat_xml,
    make_truth,
    put_yolo,
    spell_labelme,
    spell_voc,
    write_json,
    write_text,
)
from helpers.mask_folders import draw_truth, make_voc_objects, save_mask

from mmresnest.data.folder import read_folder
from mmresnest.data.formats.base import WHOLE, ImageIndex, enclose
from mmresnest.data.formats.split import Division
from mmresnest.data.json_files import read_coco_file
from mmresnest.data.request import DataRequest
from mmresnest.errors import UserError
from mmresnest.utils.masks import decode_mask

pytestmark = pytest.mark.once

ALL = dict(train=7, val=6, test=3)
"""How many objects the truth has in each split."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


class Odd(NamedTuple):
    """A folder that differs from what its format says.

    Attributes:
        kind: of the folder it begins as.
        change: what is done to it.
        counts: objects of each split that are read; empty if all are.
        note: a word of the note on what is left out.
    """

    kind: str
    change: Callable[[Path], None]
    counts: dict = ALL
    note: str = ''


def replace_in(pattern: str, *pairs: tuple[str, str]) -> Callable[[Path], None]:
    """Return what replaces texts in files."""

    def change(root: Path) -> None:
        paths = sorted(root.rglob(pattern))
        assert paths
        for path in paths:
            data = path.read_bytes()
            for old, new in pairs:
                data = data.replace(old.encode(), new.encode())
            path.write_bytes(data)

    return change


def set_yaml(**values: object) -> Callable[[Path], None]:
    """Return what sets keys of ``data.yaml``; None takes one away."""

    def change(root: Path) -> None:
        table = yaml.safe_load((root / 'data.yaml').read_text()) | values
        table = {key: value for key, value in table.items() if value is not None}
        write_text(root / 'data.yaml', yaml.safe_dump(table))

    return change


def rename_all(pattern: str, make: Callable[[Path], Path]) -> Callable[[Path], None]:
    """Return what renames files."""

    def change(root: Path) -> None:
        for path in sorted(root.rglob(pattern)):
            path.rename(make(path))

    return change


def set_json(path: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Return what changes the table in a json file."""

    def apply(root: Path) -> None:
        table = json.loads((root / path).read_text())
        change(table)
        write_json(root / path, table)

    return apply


def add_bom(pattern: str, end: str = '\r\n') -> Callable[[Path], None]:
    """Return what writes files as Windows does."""

    def change(root: Path) -> None:
        for path in sorted(root.rglob(pattern)):
            path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', end.encode()))

    return change


def quote_all(root: Path) -> None:
    """Have every field of the tables in quotes."""
    for path in root.glob('*.csv'):
        rows = [line.split(',') for line in path.read_text().splitlines()]
        write_text(path, ''.join('"' + '","'.join(row) + '"\n' for row in rows))


def put_yaml_above(root: Path) -> None:
    """Move the data below the settings, which name their absolute path."""
    (root / 'inner').mkdir()
    for name in ('images', 'labels'):
        shutil.move(root / name, root / 'inner' / name)
    set_yaml(path=str(root / 'inner'))(root)


def put_labels_beside(root: Path) -> None:
    """Have label files, and the list of classes, beside the images, as LabelImg writes them."""
    for split in ALL:
        for path in (root / 'labels' / split).iterdir():
            path.rename(root / 'images' / split / path.name)
        shutil.move(root / 'images' / split, root / split)
        write_text(root / split / 'classes.txt', '\n'.join(CLASSES))
    for name in ('images', 'labels'):
        shutil.rmtree(root / name)
    (root / 'data.yaml').unlink()


def add_points(root: Path) -> None:
    """Have two key points after each box."""
    for path in root.rglob('labels/**/*.txt'):
        path.write_text(path.read_text().replace('\n', ' 0.1 0.2 0.3 0.4\n'))
    set_yaml(kpt_shape=[2, 2])(root)


def move_root_category(root: Path) -> None:
    """Have Roboflow's files in COCO's own places."""
    for name, split in (('train', 'train'), ('valid', 'val'), ('test', 'test')):
        target = root / 'annotations' / f'{split}.json'
        target.parent.mkdir(exist_ok=True)
        shutil.move(root / name / '_annotations.coco.json', target)
        (root / name).rename(root / split)


def drop_columns(root: Path) -> None:
    """Leave width and height out, and call the others otherwise."""
    for path in root.glob('*.csv'):
        rows = [line.split(',') for line in path.read_text().splitlines()]
        rows[0] = ['Image', '', '', 'Label', 'x1', 'y1', 'x2', 'y2']
        write_text(path, '\n'.join(';'.join([row[0], *row[3:]]) for row in rows) + '\n')


def make_polygon(**fields: object) -> Callable[[Path], None]:
    return set_json('train_0.json', lambda table: table['shapes'][0].update(fields))


def decompose(kind: str) -> Callable[[Path], None]:
    """Return what gives images names with accents, as macOS writes them; labels have one letter."""

    def change(root: Path) -> None:
        for path in sorted(root.rglob('*_*.*')):
            composed = path.name.replace('train', 'tr\xe4in')
            name = composed if path.suffix == kind else unicodedata.normalize('NFD', composed)
            path.rename(path.with_name(name))
        replace_in(f'*{kind}', ('train_', 'tr\xe4in_'))(root)

    return change


def write_addresses(root: Path) -> None:
    """Have addresses in place of names, as LVIS has."""
    for split in ('train', 'val'):
        path = root / 'annotations' / f'instances_{split}2017.json'
        table = json.loads(path.read_text())
        for row in table['images']:
            name = row.pop('file_name')
            row['coco_url'] = f'http://images.cocodataset.org/{split}2017/{name}'
        path.unlink()
        write_json(root / f'lvis_v1_{split}.json', table)


def drop_boxes(root: Path) -> None:
    for path in root.rglob('*.json'):
        table = json.loads(path.read_text())
        for row in table['annotations']:
            del row['bbox'], row['area']
        write_json(path, table)


def change_tables(change: Callable[[list[str]], str]) -> Callable[[Path], None]:
    """Return what writes the rows of tables anew."""

    def apply(root: Path) -> None:
        for path in root.glob('*.csv'):
            rows = [line.split(',') for line in path.read_text().splitlines()]
            write_text(path, ''.join(change(row) + '\n' for row in rows))

    return apply


def spell_sides(row: list[str]) -> str:
    """Return a row as makesense.ai writes it."""
    name, width, height, label, *corners = row
    if name == 'filename':
        return 'label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height'
    x0, y0, x1, y1 = map(int, corners)
    return f'{label},{x0},{y0},{x1 - x0},{y1 - y0},{name},{width},{height}'


def add_empty_rows(root: Path) -> None:
    """Have lines of the images without objects."""
    path = root / 'train_labels.csv'
    write_text(path, path.read_text() + 'train_3.jpg,,,,,,,\n')


TWO = dict(train=7, val=6)

# fmt: off
ODD = {
    'yolo-darknet-roboflow': Odd('yolo', lambda root: (
        put_labels_beside(root), rename_all('classes.txt', lambda path: path.with_name(
            '_darknet.labels'))(root))),
    'yolo-darknet-names': Odd('yolo-no-yaml', lambda root: (root / 'classes.txt').rename(
        root / 'coco.names'), TWO),
    'yolo-marks-no-yaml': Odd('yolo-no-yaml', add_bom('*_*.txt'), TWO),
    'voc-valid': Odd('voc', rename_all('val.txt', lambda path: path.with_stem('Valid'))),
    'coco-capitals': Odd('coco-one-file', rename_all('*.png', lambda path: path.with_name(
        path.name.upper())), dict(train=7)),
    'csv-capitals': Odd('csv', rename_all('*.jpg', lambda path: path.with_suffix('.JPG')), TWO,
                        'train_3.JPG'),
    'cvat-other-name': Odd('cvat', lambda root: (root / 'annotations.xml').rename(
        root / 'task 1.xml'), TWO),
    'via-project': Odd('via', lambda root: number_regions(root), TWO),
    'yolo-no-test': Odd('yolo-roboflow', lambda root: shutil.rmtree(root / 'test'), TWO, 'test'),
    'voc-upper': Odd('voc', rename_all('*.xml', lambda path: path.with_suffix('.XML'))),
    'voc-upper-flat': Odd('voc-flat', rename_all(
        '*.*', lambda path: path.with_suffix(path.suffix.upper())), dict(train=7)),
    'voc-two-bytes': Odd('voc-flat', lambda root: [
        path.write_bytes(('<?xml version="1.0" encoding="utf-16"?>' + path.read_text()).encode(
            'utf-16')) for path in root.rglob('*.xml')], dict(train=7)),
    'voc-decomposed': Odd('voc-flat', decompose('.xml'), dict(train=7)),
    'labelme-decomposed': Odd('labelme', decompose('.json'), dict(train=7)),
    'coco-decomposed': Odd('coco-one-file', decompose('.json'), dict(train=7)),
    'coco-addresses-alone': Odd('coco-published', write_addresses, TWO),
    'coco-key-points': Odd('coco-published', rename_all(
        'instances*.json', lambda path: path.with_name(path.name.replace(
            'instances', 'person_keypoints'))), TWO, 'key points'),
    'coco-no-boxes': Odd('coco-roboflow', drop_boxes),
    'csv-sides': Odd('csv', change_tables(spell_sides), TWO, 'train_3.jpg'),
    'csv-decimal-commas': Odd('csv', change_tables(lambda row: ';'.join(
        [f'{one},0' if one.isdecimal() else one for one in row])), TWO, 'train_3.jpg'),
    'csv-empty-rows': Odd('csv', add_empty_rows, TWO),
    'yolo-path-absolute': Odd('yolo', put_yaml_above),
    'yolo-lists-of-another-machine': Odd('yolo-lists', lambda root: [
        write_text(path, ''.join(f'{start}{line.removeprefix("./")}\n' for line in
                                 path.read_text().split('\n') if line))
        for path, start in ((root / 'train.txt', 'C:\\data\\'), (root / 'val.txt', '/home/me/'))],
        TWO),
    'yolo-no-path': Odd('yolo', set_yaml(path=None)),
    'yolo-lists-of-folders': Odd('yolo', set_yaml(train=['images/train', 'images/test'], test=None),
                                 dict(train=10, val=6)),
    'yolo-nc-text': Odd('yolo', set_yaml(nc='3')),
    'yolo-names-of-texts': Odd('yolo', set_yaml(names=dict(zip('012', CLASSES)))),
    'yolo-names-in-a-list': Odd('yolo', lambda root: (
        set_yaml(names=None)(root), write_text(root / 'classes.txt', '\n'.join(CLASSES)))),
    'yolo-windows': Odd('yolo', lambda root: (
        add_bom('*_*.txt', ' \r\n')(root), add_bom('data.yaml')(root))),
    'yolo-tabs': Odd('yolo', replace_in('*_*.txt', (' ', '\t'))),
    'yolo-upper': Odd('yolo', rename_all('*_*.*', lambda path: path.with_suffix(
        path.suffix.upper()))),
    'yolo-empty-label': Odd('yolo', lambda root: write_text(
        root / 'labels/train/train_3.txt', ' \n')),
    'yolo-beside': Odd('yolo', put_labels_beside),
    'yolo-key-points': Odd('yolo', add_points, note='key points'),
    'yolo-hidden': Odd('yolo', lambda root: (
        shutil.copytree(root / 'images/train', root / 'images/train/.ipynb_checkpoints'),
        shutil.copytree(root / 'images/train', root / 'images/train/__MACOSX'))),
    'yolo-capitals': Odd('yolo', lambda root: (
        (root / 'images').rename(root / 'Images'), (root / 'labels').rename(root / 'Labels'),
        set_yaml(train='Images/train', val='Images/val', test='Images/test')(root))),
    'yolo-two-settings': Odd('yolo', lambda root: shutil.copy(
        root / 'data.yaml', root / 'a.yaml')),
    'voc-other-filename': Odd('voc', replace_in('*.xml', ('<filename>', '<filename>0'))),
    'voc-other-name-of-xml': Odd('voc-flat', rename_all('*.xml', lambda path: path.with_stem(
        f'ann_{path.stem}')), dict(train=7)),
    'voc-floats': Odd('voc', replace_in('*.xml', ('</xmax>', '.0</xmax>'),
                                        ('</width>', '.0</width>'))),
    'voc-list-of-images': Odd('voc', add_bom('ImageSets/**/*.txt', '.jpg\r\n')),
    'voc-difficult': Odd('voc', replace_in('val_0.xml', ('<difficult>0', '<difficult>1')),
                         note='1 of 16 objects are marked difficult'),
    'voc-no-xml': Odd('voc-flat', lambda root: (root / 'annotations/train_3.xml').unlink(),
                      dict(train=7), 'train_3.jpg'),
    'labelme-no-kind': Odd('labelme', make_polygon(shape_type=None), dict(train=7)),
    'labelme-list': Odd('labelme', lambda root: write_text(
        root / 'labels.txt', '\n'.join(['__ignore__', '_background_', *CLASSES])), dict(train=7)),
    'labelme-no-json': Odd('labelme', lambda root: (root / 'train_3.json').unlink(),
                           dict(train=7), 'train_3.jpg'),
    'csv-windows': Odd('csv', add_bom('*.csv'), TWO, 'train_3.jpg'),
    'csv-quoted': Odd('csv', quote_all, TWO, 'train_3.jpg'),
    'csv-columns': Odd('csv', drop_columns, TWO, 'train_3.jpg'),
    'coco-addresses': Odd('coco-label-studio', lambda root: (
        rename_all('*.jpg', lambda path: path.with_name(path.name.replace('_', ' ')))(root),
        replace_in('*.json', ('images/', '/data/local-files/?d=a%2F'), ('n_', 'n%20'))(root)),
        dict(train=7)),
    'coco-windows': Odd('coco-roboflow', replace_in(
        '*.json', ('"file_name": "', '"file_name": "C:\\\\data\\\\'))),
    'coco-root-category': Odd('coco-roboflow', move_root_category),
    'coco-valid': Odd('coco-roboflow', lambda root: (
        move_root_category(root), (root / 'annotations/val.json').rename(
            root / 'annotations/valid.json'))),
}
# fmt: on


@pytest.mark.parametrize('name', ODD)
def test_what_has_one_meaning_is_read(name, tmp_path):
    odd, root = ODD[name], tmp_path / 'set'
    KINDS[odd.kind].make(root)
    odd.change(root)
    division = Division(0.4) if len(KINDS[odd.kind].splits) == 1 else None
    folder = read_folder(DataRequest(root, division=division), 'coco')
    counts = {name: split.object_count for name, split in folder.splits.items()}
    assert sorted(folder.classes) == sorted(CLASSES)
    assert sum(counts.values()) == sum(odd.counts.values())
    assert division or counts == odd.counts
    assert [odd.note in note for note in folder.notes] == ([True] if odd.note else [])
    assert read_folder(DataRequest(root, division=division), 'coco').notes == folder.notes


def embed_images(root: Path) -> None:
    """Have the images in the json files alone."""
    for path in root.glob('*.jpg'):
        data = base64.b64encode(path.read_bytes()).decode()
        set_json(f'{path.stem}.json', lambda table, data=data: table.update(imageData=data))(root)
        path.unlink()


def write_shares(root: Path) -> None:
    """Have corners as shares of the image."""
    for path in root.glob('*.csv'):
        head, *lines = path.read_text().splitlines()
        rows = [line.split(',') for line in lines]
        rows = [[*row[:4], *(float(one) / 100 for one in row[4:])] for row in rows]
        write_text(path, '\n'.join([head, *(','.join(map(str, row)) for row in rows)]) + '\n')


def put_below(root: Path) -> None:
    """Have the data in a folder inside, as an archive unpacks."""
    inner = root.with_name('moved')
    root.rename(inner)
    shutil.move(inner, root / 'VOCdevkit' / 'VOC2007')


def clear(root: Path) -> None:
    for path in root.rglob('*'):
        if path.is_file() and path.suffix != '.jpg':
            path.unlink()


def raw_label_studio(root: Path) -> None:
    clear(root)
    write_json(root / 'export.json', [dict(id=1, data=dict(image='a.jpg'), annotations=[])])


def change_region(region_attributes: dict | None = None, **shape: object) -> Callable[[Path], None]:
    """Return what changes the first region of VGG Image Annotator."""

    def change(table: dict) -> None:
        region = table['train_0.jpg1']['regions'][0]
        region['shape_attributes'].update(shape)
        region['region_attributes'] = region_attributes or region['region_attributes']

    return set_json('train/via_region_data.json', change)


def number_regions(root: Path) -> None:
    """Have version 1 of VGG Image Annotator in a saved project, with check boxes."""
    for split in ('train', 'val'):
        path = root / split / 'via_region_data.json'
        table = json.loads(path.read_text())
        for row in table.values():
            for region in row['regions']:
                name = region['region_attributes']['kind']
                region['region_attributes'] = dict(kind={name: True, 'other': False}, note='')
            row['regions'] = {str(at): one for at, one in enumerate(row['regions'])}
        write_json(path, dict(_via_settings={}, _via_img_metadata=table, _via_attributes={}))


HEADER = 'filename,width,height,class,xmin,ymin,xmax,ymax\n'

# fmt: off
REFUSED = {
    'yolo-no-names': ('yolo', set_yaml(names=None), 'data.no-annotations',
                      ["echo 'names: [", 'data.yaml']),
    'yolo-labels-elsewhere': ('yolo', lambda root: shutil.move(root / 'labels', root / 'txt'),
                              'data.label-missing', ['mv', 'txt/train', 'labels/train']),
    'yolo-labels-elsewhere-beside': ('yolo', lambda root: [
        (root / 'labels' / split).rename(root / 'images' / split / 'txt')
        for split in ('train', 'val', 'test')] and (root / 'labels/train').mkdir(),
        'data.label-missing', ['mv', 'images/train/txt/*.txt', 'labels/train']),
    'yolo-key-points': ('yolo', set_yaml(kpt_shape=[2, 2]), 'data.label-line',
                        ['train_0.txt:1', 'kpt_shape']),
    'yolo-no-images': ('yolo', lambda root: [path.unlink() for path in root.glob('images/val/*')],
                       'data.no-images', ['val']),
    'yolo-no-valid': ('yolo-roboflow', lambda root: shutil.rmtree(root / 'valid'), 'data.missing',
                      ['data.yaml', '../valid/images', '--split 0.2']),
    'yolo-two-endings': ('yolo', lambda root: shutil.copy(
        root / 'images/train/train_1.jpg', root / 'images/train/train_1.png'), 'data.ambiguous',
        ['train_1.txt', 'train_1.jpg', 'train_1.png']),
    'yolo-key-points-unsaid': ('yolo', lambda root: write_text(
        root / 'labels/train/train_0.txt', '0 .5 .5 .1 .1' + ' .5 .5 2' * 3), 'data.label-line',
        ['train_0.txt:1', 'kpt_shape']),
    'yolo-two-settings': ('yolo', lambda root: (
        shutil.copy(root / 'data.yaml', root / 'a.yaml'),
        (root / 'data.yaml').rename(root / 'b.yaml')), 'data.ambiguous', ['a.yaml', 'b.yaml']),
    'yolo-two-lists': ('yolo', lambda root: (put_labels_beside(root), write_text(
        root / 'val' / 'classes.txt', 'other')), 'data.ambiguous', ['classes.txt']),
    'voc-two-labels': ('voc', lambda root: (
        (root / 'Annotations/copy.xml').write_bytes(
            (root / 'Annotations/train_1.xml').read_bytes()),
        write_text(root / 'ImageSets/Main/train.txt', 'train_1\ncopy')),
        'data.ambiguous', ['copy.xml', 'train_1.xml', 'train_1.jpg']),
    'voc-listed-twice': ('voc', lambda root: write_text(
        root / 'ImageSets/Main/train.txt', 'train_1\ntrain_1'), 'data.ambiguous',
        ['train_1.xml', 'listed twice']),
    'voc-list': ('voc', lambda root: (root / 'ImageSets/Main/train.txt').write_bytes(b'b\xefld\n'),
                 'data.encoding', ['train.txt']),
    'voc-no-objects': ('voc-flat', replace_in('*.xml', ('<object>', '<part>'), (
        '</object>', '</part>')), 'data.objects-none', ['none of its 5 images']),
    'voc-other-encoding': ('voc-flat', lambda root: [
        path.write_bytes(path.read_text().replace('disk', '\u72d7').encode('gbk'))
        for path in root.rglob('*.xml')], 'data.encoding', ['train_0.xml', 'GBK']),
    'voc-declared-encoding': ('voc-flat', lambda root: [
        path.write_bytes(('<?xml version="1.0" encoding="gbk"?>' + path.read_text()).encode('gbk'))
        for path in root.rglob('*.xml')], 'data.xml', ['train_0.xml', 'UTF-8']),
    'voc-two-lists': ('voc', lambda root: shutil.copy(
        root / 'ImageSets/Main/val.txt', root / 'ImageSets/Main/valid.txt'), 'data.ambiguous',
        ['val.txt', 'valid.txt']),
    'voc-empty-list': ('voc', lambda root: write_text(root / 'ImageSets/Main/val.txt', ''),
                       'data.no-images', ['val']),
    'voc-below': ('voc', put_below, 'data.no-annotations', ['--data', 'VOCdevkit/VOC2007']),
    'labelme-embedded': ('labelme', embed_images, 'data.image-missing',
                         ['train_0.json', 'imageData']),
    'labelme-blank': ('labelme', make_polygon(label=' '), 'data.label-line', ['train_0.json:6']),
    'labelme-ignored': ('labelme', make_polygon(label='__ignore__'), 'data.class-index',
                        ['train_0.json:6']),
    'labelme-list': ('labelme', lambda root: write_text(root / 'labels.txt', 'disk'),
                     'data.class-index', ['train_1.json', 'bar']),
    'csv-shares': ('csv', write_shares, 'data.label-line', ['train_labels.csv', 'awk']),
    'csv-empty': ('csv', lambda root: write_text(root / 'train_labels.csv', HEADER),
                  'data.no-images', ['train']),
    'csv-no-header': ('csv', replace_in('*.csv', (HEADER, '')), 'data.no-annotations',
                      ["sed -i '1i filename,width", 'first line']),
    'csv-columns': ('csv', replace_in('*.csv', ('filename', 'ImageID'), ('class', 'LabelName')),
                    'data.no-annotations', ['filename, class', 'imageid']),
    'coco-stray-object': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table['annotations'][0].update(image_id=55)),
        'data.image-unknown', ['55', 'my annotations.json']),
    'coco-no-image-id': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table['annotations'][0].pop('image_id')),
        'data.field-missing', ['my annotations.json', 'image_id']),
    'coco-no-category-id': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table['annotations'][0].pop('category_id')),
        'data.field-missing', ['my annotations.json', 'category_id']),
    'coco-no-id': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table['images'][0].pop('id')),
        'data.image-unknown', ['my annotations.json', 'image 0']),
    'coco-text-for-a-row': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table['annotations'].append('x')),
        'data.field-missing', ['my annotations.json', 'the first is x']),
    'coco-one-id-for-two': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table['images'][1].update(id=0)),
        'data.image-id-shared', ['my annotations.json', 'train_1.png']),
    'coco-cut-off': ('coco-one-file', lambda root: (root / 'my annotations.json').write_text('{"a'),
                     'data.no-annotations', ['my annotations.json', 'line 1']),
    'coco-list': ('coco-one-file', lambda root: write_json(
        root / 'my annotations.json', [coco_table([])]), 'data.no-annotations', ['is a list']),
    'coco-no-annotations': ('coco-one-file', set_json(
        'my annotations.json', lambda table: table.pop('annotations')), 'data.list-missing',
        ['my annotations.json']),
    'coco-image-of-another-split': ('coco-roboflow', lambda root: shutil.move(
        next((root / 'train').glob('*.jpg')), root / 'valid'), 'data.image-missing',
        ['train/_annotations.coco.json', 'valid/', 'another split']),
    'coco-no-images': ('coco-roboflow', set_json(
        'valid/_annotations.coco.json', lambda table: table.update(images=[], annotations=[])),
        'data.no-images', ['valid/_annotations.coco.json']),
    'label-studio': ('coco-label-studio', raw_label_studio, 'data.no-annotations',
                     ['export.json', 'Label Studio', 'export the project']),
    **{name: ('coco-label-studio', lambda root, table=table: (
        clear(root), write_json(root / 'x.json', table)), 'data.no-annotations', ['x.json', name])
       for name, table in {
           'JSON_MIN': [dict(image='a.jpg', id=1, label=[], annotation_id=1)],
           'CreateML': [dict(image='a.jpg', annotations=[])],
           'BDD100K': [dict(name='a.jpg', labels=[])],
           'Datumaro': dict(info={}, categories={}, items=[]),
           'VoTT': dict(name='x', assets={}, tags=[])}.items()},
    **{name: ('coco-label-studio', lambda root, file=file, text=text: (
        clear(root), write_text(root / file, text)), 'data.no-annotations', [file, name])
       for name, file, text in (
           ('Open Images', 'a.csv', 'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n'),
           ('one column', 'a.csv', 'image_id,width,height,bbox,source\n'),
           ("'1i label_name,bbox_x", 'a.csv', 'disk,1,2,3,4,a.jpg,80,96\n'),
           ('Keras', 'train/_annotations.txt', 'a.jpg 1,2,3,4,0 5,6,7,8,1\n'),
           ('MOT', 'gt.txt', '1,1,10,10,20,15,1,1,0.8\n'), ('Hugging', 'a.parquet', 'PAR1'),
           ('WIDER', 'wider_face_train_bbx_gt.txt', 'a.jpg\n1\n'),
           ('CrowdHuman', 'a.odgt', '{}\n'), ('Labelbox', 'a.ndjson', '{}\n'),
           ('DOTA', 'labelTxt/a.txt', 'imagesource:x\n'),
           ('DOTA', 'labelTxt/b.txt', '1.0 2 3 2 3 4 1 4 small-vehicle 0\n'))},
    'panoptic': ('coco-label-studio', lambda root: (
        clear(root), write_json(root / 'annotations/panoptic_train2017.json', {})),
        'data.no-annotations', ['panoptic_train2017.json', 'panoptic_fpn_resnest50_fpn']),
    'voc-too-deep': ('voc-flat', lambda root: (
        (root / 'annotations').rename(root / 'train'), (root / 'a/b').mkdir(parents=True),
        (root / 'train').rename(root / 'a/b/train')),
        'data.no-annotations', ['a/b/train/train_0.xml', 'where it is']),
    'csv-two-bytes': ('csv', lambda root: [path.write_bytes(path.read_text().encode('utf-16'))
                                           for path in root.glob('*.csv')],
                      'data.no-annotations', ['train_labels.csv', 'UTF-16']),
    'label-me-3': ('voc-flat', replace_in('*.xml', ('size>', 'imagesize>')), 'data.label-line',
                   ['train_0.xml', 'LabelMe 3.0']),
    'via-circle': ('via', change_region(name='circle', cx=1, cy=1, r=1), 'data.shape',
                   ['via_region_data.json', 'train_0.jpg', 'region 0', 'circle']),
    'via-two-points': ('via', change_region(all_points_x=[1, 2], all_points_y=[1, 2]),
                       'data.mask-points', ['train_0.jpg', 'region 0', '2 points']),
    'via-infinite': ('via', change_region(name='rect', x=1e999, y=1, width=2, height=2),
                     'data.label-line', ['train_0.jpg', 'region 0', 'inf']),
    'via-rectangle': ('via', change_region(name='rect', x=1), 'data.label-line',
                      ['train_0.jpg', 'region 0']),
    'via-no-class': ('via', change_region(region_attributes=dict(kind='')), 'data.label-line',
                     ['train_0.jpg', 'region 0', 'kind']),
    'via-two-attributes': ('via', change_region(region_attributes=dict(kind='disk', color='red')),
                           'data.ambiguous', ['kind, color', 'class']),
    'via-no-image': ('via', lambda root: (root / 'train/train_0.jpg').unlink(),
                     'data.image-missing', ['via_region_data.json', 'train_0.jpg']),
    'archive': ('coco-label-studio', lambda root: (clear(root), write_text(root / 'a.zip', 'PK')),
                'data.no-annotations', ['a.zip', 'unzip']),
    'images': ('coco-label-studio', clear, 'data.no-annotations', ['images/', 'labelme']),
}
# fmt: on


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_not_read_is_refused_with_the_remedy(name, tmp_path):
    kind, spoil, code, parts = REFUSED[name]
    root = tmp_path / 'set'
    KINDS[kind].make(root)
    spoil(root)
    division = Division(0.4) if len(KINDS[kind].splits) == 1 else None
    with refuses(code, root, *parts):
        read_folder(DataRequest(root, division=division), 'coco')


@pytest.mark.parametrize(
    ('labels', 'line'),
    [
        ('training/label_2', 'Car 0.00 0 -1.57 {0}.0 {1}.0 {2}.0 {3}.0 1 1 1 1 1 9 -1.5'),
        ('VisDrone2019-DET-train/annotations', '{0},{1},{4},{5},1,4,0,0'),
    ],
)
def test_the_command_that_a_message_names_writes_the_boxes(labels, line, tmp_path):
    suffix = 'png' if 'label_2' in labels else 'jpg'
    shots = make_truth(['train'])['train']
    for shot in shots:
        draw_image(tmp_path / labels.partition('/')[0] / 'images' / f'{shot.name}.{suffix}', shot)
        rows = [(x, y, x + w, y + h, w, h) for _, (x, y, w, h), _ in shot.marks]
        text = ''.join(line.format(*row) + '\n' for row in rows)
        write_text(tmp_path / labels / f'{shot.name}.txt', text)
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path, 'coco')
    command = re.search(r'(for s in [^;]*; do )?[(]echo .*(?=[.] It holds)', str(caught.value))
    assert command
    subprocess.run(['bash', '-c', command[0]], stderr=subprocess.DEVNULL)
    for path in tmp_path.glob('labels_val.csv'):
        path.unlink()  # there is no such part
    folder = read_folder(DataRequest(tmp_path, division=Division(0.4)), 'coco')
    boxes = []
    for part in folder.splits.values():
        table = json.loads((folder.root / part.annotations).read_text())
        boxes += [tuple(row['bbox']) for row in table['annotations']]
    assert sorted(boxes) == sorted(mark.box for shot in shots for mark in shot.marks)


def test_a_file_is_refused_with_its_folder(tmp_path):
    KINDS['yolo'].make(tmp_path / 'set')
    with refuses('data.not-a-folder', f'--data {tmp_path / "set"}'):
        read_folder(tmp_path / 'set' / 'data.yaml', 'coco')


def test_folders_of_classes_are_no_boxes(tmp_path):
    for number, shot in enumerate(make_truth(['train'])['train']):
        draw_image(tmp_path / 'set' / 'train' / CLASSES[number % 2] / f'{shot.name}.jpg', shot)
    with refuses('data.no-annotations', 'classification', CLASSES[0]):
        read_folder(tmp_path / 'set', 'coco')


def test_a_root_category_that_an_object_has_is_a_class(tmp_path):
    root = tmp_path / 'set'
    KINDS['coco-roboflow'].make(root)
    move_root_category(root)
    set_json('annotations/val.json', lambda table: table['annotations'][0].update(category_id=0))(
        root
    )
    assert read_folder(root, 'coco').classes == ('shapes', *CLASSES)


def test_difficult_objects_are_crowds(tmp_path):
    KINDS['voc'].make(tmp_path / 'set')
    replace_in('val_0.xml', ('<difficult>0', '<difficult>1'))(tmp_path / 'set')
    folder = read_folder(tmp_path / 'set', 'coco')
    for split, part in folder.splits.items():
        table = json.loads((folder.root / part.annotations).read_text())
        names = {row['id']: row['file_name'] for row in table['images']}
        crowds = [names[row['image_id']] for row in table['annotations'] if row['iscrowd']]
        assert crowds == (['val_0.jpg'] if split == 'val' else [])


def test_names_of_yaml_are_kept_as_they_are_written(tmp_path):
    KINDS['yolo'].make(tmp_path)
    path = tmp_path / 'data.yaml'
    text = path.read_text().partition('names:')[0]
    for names in ('[no, 010, 2020-01-01]', '{0: no, 1: 010, 2: 2020-01-01}'):
        write_text(path, f'{text}names: {names}\n{path.read_text().partition("tri angle")[2]}')
        assert read_folder(tmp_path, 'coco').classes == ('no', '010', '2020-01-01')
    write_text(path, f'{text}names: [no, ~, cat]\n')
    with refuses('data.yaml', path, 'names'):
        read_folder(tmp_path, 'coco')


def test_classes_that_are_numbers_have_their_order(tmp_path):
    KINDS['csv'].make(tmp_path)
    replace_in('*.csv', ('disk', '10'), ('bar', '2'), ('tri angle', '1'))(tmp_path)
    assert read_folder(tmp_path, 'coco').classes == ('1', '2', '10')


def test_notes_of_a_reading_reach_a_segmentor(tmp_path):
    KINDS['labelme-splits'].make(tmp_path)
    (tmp_path / 'train' / 'train_3.json').unlink()
    replace_in('train_1.json', ('disk', 'Background'))(tmp_path)
    lost, twins = read_folder(tmp_path, 'ade20k').notes
    assert 'train_3.jpg' in lost and "'background' and 'Background'" in twins


def test_classes_that_sound_alike_are_noted(tmp_path):
    KINDS['voc'].make(tmp_path)
    replace_in('train_1.xml', ('disk', 'Disk'))(tmp_path)
    (note,) = read_folder(tmp_path, 'coco').notes
    assert "'Disk' and 'disk'" in note


def test_objects_that_a_coco_file_ignores_are_crowds(tmp_path):
    """Else mmdet does not learn them, and pycocotools counts them as missed."""
    KINDS['coco-roboflow'].make(tmp_path)
    for key, value in (('iscrowd', 0), ('ignore', 1)):
        set_json(
            'valid/_annotations.coco.json',
            lambda table, key=key, value=value: table['annotations'][0].update({key: value}),
        )(tmp_path)
    folder = read_folder(tmp_path, 'coco')
    table = json.loads((folder.root / folder.splits['val'].annotations).read_text())
    assert [row['iscrowd'] for row in table['annotations']] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize('kind', ['coco-cvat', 'voc-flat'])
def test_boxes_that_cvat_turned_are_the_polygons_of_their_corners(kind, tmp_path):
    """CVAT writes the box as it was before it was turned."""
    KINDS[kind].make(tmp_path)
    attribute = '<name>rotation</name><value>90.0</value>'
    for path in tmp_path.rglob('*.xml'):
        text = f'<attributes><attribute>{attribute}</attribute></attributes><bndbox>'
        write_text(path, path.read_text().replace('<bndbox>', text))

    def turn(table):
        for row in table['annotations']:
            row.update(segmentation=[], attributes=dict(occluded=False, rotation=90.0))

    for path in tmp_path.rglob('*.json'):
        set_json(str(path.relative_to(tmp_path)), turn)(tmp_path)
    folder = read_folder(DataRequest(tmp_path, division=Division(0.4)), 'coco')
    found = []
    for part in folder.splits.values():
        table, _ = read_coco_file(folder.root / part.annotations)
        for row in table['annotations']:
            (polygon,) = row['segmentation']
            assert enclose([polygon]) == tuple(row['bbox'])
            found.append(tuple(row['bbox']))
    boxes = [mark.box for shot in make_truth(['train'])['train'] for mark in shot.marks]
    turned = [(x + w / 2 - h / 2, y + h / 2 - w / 2, h, w) for x, y, w, h in boxes]
    assert sorted(found) == sorted(turned)


@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
def test_instance_masks_of_voc_are_read_to_the_pixel(tmp_path):
    root = tmp_path / 'set'
    make_voc_objects(root)
    folder = read_folder(root, 'coco')
    assert folder.classes == CLASSES
    assert folder.has_masks and folder.coded_masks
    for split, shots in make_truth(['train', 'val']).items():
        table = json.loads((folder.root / folder.splits[split].annotations).read_text())
        rows = {Path(row['file_name']).stem: row for row in table['images']}
        assert set(rows) == {shot.name for shot in shots}
        for shot in shots:
            ours = [one for one in table['annotations'] if one['image_id'] == rows[shot.name]['id']]
            assert len(ours) == len(shot.marks)
            truth = draw_truth(shot)
            for one in ours:
                mask = decode_mask(one['segmentation'], *truth.shape)
                assert (truth[mask] == one['category_id']).all()
                assert mask.sum() == one['area'] == (truth == one['category_id']).sum()
    KINDS['voc'].make(root)
    boxes = read_folder(root, 'coco')
    assert boxes.format == 'Pascal VOC'
    assert '--format voc-objects' in boxes.maskless
    assert read_folder(DataRequest(root, format='voc-objects'), 'coco').has_masks


def test_an_object_of_two_classes_is_refused(tmp_path):
    make_voc_objects(tmp_path / 'set')
    path = next((tmp_path / 'set' / 'SegmentationObject').glob('train_2.png'))
    shot = make_truth(['train'])['train'][2]
    save_mask(path, (draw_truth(shot) % 255 > 0).astype(np.uint8))
    with refuses('data.not-exact', path):
        read_folder(tmp_path / 'set', 'coco')


POLYGON = '<polygon label="bar" points="{}" group_id="{}"/>'


def test_cvat_s_own_file_is_read(tmp_path):
    make_cvat_xml(tmp_path / 'set')
    folder = read_folder(tmp_path / 'set', 'coco')
    assert (folder.format, folder.classes) == ('CVAT', CLASSES)
    assert {name: one.object_count for name, one in folder.splits.items()} == TWO
    extra = POLYGON.format('1,1;5,1;5,6', 2) + POLYGON.format('11,1;15,1;15,6', 2)
    extra += '<box label="disk" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90.0"/>'
    make_cvat_xml(tmp_path / 'other', extra)
    folder = read_folder(tmp_path / 'other', 'coco')
    table = json.loads((folder.root / folder.splits['val'].annotations).read_text())
    grouped, turned = [row for row in table['annotations'] if row.get('segmentation')][:2]
    assert (grouped['bbox'], len(grouped['segmentation'])) == ([1, 1, 14, 5], 2)
    assert turned['bbox'] == [13, 7, 4, 10]


@pytest.mark.parametrize(
    'extra, code, part',
    [
        ('<ellipse label="bar" cx="3"/>', 'data.shape', 'ellipse'),
        ('<box label="bar" xtl="1" ytl="x" xbr="2" ybr="2"/>', 'data.label-line', 'x'),
        ('<box label="bar" xtl="3" ytl="1" xbr="2" ybr="2"/>', 'data.label-line', '3,1,2,2'),
        ('<box xtl="1" ytl="1" xbr="2" ybr="2"/>', 'data.label-line', 'label'),
        ('<box label="cat" xtl="1" ytl="1" xbr="2" ybr="2"/>', 'data.class-index', 'cat'),
        (POLYGON.format('1,1;2,2', 0), 'data.mask-points', '2 points'),
        ('</image><track/><image name="x.jpg">', 'data.shape', 'track'),
        ('</image><image name="x.jpg">', 'data.image-missing', 'x.jpg'),
    ],
)
def test_what_cvat_s_file_must_not_have(extra, code, part, tmp_path):
    make_cvat_xml(tmp_path / 'set', extra)
    with refuses(code, 'annotations.xml:', part):
        read_folder(tmp_path / 'set', 'coco')


def test_yolo_in_a_flat_folder_of_labelimg(tmp_path):
    """Names such as ``train_0.txt`` are labels, no lists of a split."""
    put_yolo(tmp_path / 'set', tmp_path / 'set', make_truth(['train'])['train'])
    write_text(tmp_path / 'set' / 'classes.txt', '\n'.join(CLASSES))
    folder = read_folder(DataRequest(tmp_path / 'set', division=Division(0.4)), 'coco')
    assert sum(one.object_count for one in folder.splits.values()) == 7


@pytest.mark.parametrize(
    ('images', 'labels'),
    [
        ('JPEGImages/{split}', 'Annotations/{split}'),
        ('images/{split}', 'labels/{split}'),
        ('{split}/images', '{split}/labels'),
        ('{split}', '{split}'),
    ],
)
@pytest.mark.parametrize('kind', ['voc', 'labelme'])
def test_a_label_is_of_the_image_in_the_folder_like_its_own(kind, images, labels, tmp_path):
    """Each split numbers its images anew: the names alone do not say which one is meant."""
    for split, shots in make_truth(('train', 'val')).items():
        for shot in shots:
            name = shot.name.removeprefix(f'{split}_')
            draw_image(tmp_path / images.format(split=split) / f'{name}.jpg', shot)
            label = tmp_path / labels.format(split=split) / name
            if kind == 'voc':
                write_text(label.with_suffix('.xml'), spell_voc(shot, f'{name}.jpg'))
            else:
                label.parent.mkdir(parents=True, exist_ok=True)
                write_json(label.with_suffix('.json'), spell_labelme(shot, f'{name}.jpg', True))
    folder = read_folder(DataRequest(tmp_path), 'coco')
    for split, shots in make_truth(('train', 'val')).items():
        part = folder.split(split)
        rows = json.loads((folder.root / part.annotations).read_text())['images']
        read = [(folder.root / part.images / row['file_name']).resolve() for row in rows]
        assert read == [
            (tmp_path / images.format(split=split) / shot.name[-1]).with_suffix('.jpg').resolve()
            for shot in shots
        ]
        assert part.object_count == sum(len(shot.marks) for shot in shots)
    assert not folder.notes


def test_a_label_of_two_images_is_refused(tmp_path):
    for folder in ('day', 'night'):
        for shot in make_truth()['val' if folder == 'day' else 'test'][:2]:
            draw_image(tmp_path / folder / f'{shot.name[-1]}.jpg', shot._replace(size=(64, 48)))
    for shot in make_truth()['val'][:2]:
        write_text(
            tmp_path / 'xml' / f'{shot.name[-1]}.xml',
            spell_voc(shot._replace(size=(64, 48)), f'{shot.name[-1]}.jpg'),
        )
    with refuses('data.ambiguous', tmp_path, 'xml/0.xml', 'day/0.jpg', 'night/0.jpg'):
        read_folder(DataRequest(tmp_path, division=Division(0.5)), 'coco')
    for path in (tmp_path / 'day').iterdir():  # the same image twice is no question
        shutil.copy(path, tmp_path / 'night' / path.name)
    folder = read_folder(DataRequest(tmp_path, division=Division(0.5)), 'coco')
    assert folder.counts == dict(train=1, val=1)


def test_a_name_with_a_folder_means_no_image_of_another(tmp_path):
    shots = make_truth(['train'])['train']
    header = 'filename,class,xmin,ymin,xmax,ymax\n'
    lines = [f'{folder}\\{at}.jpg,disk,1,2,10,20\n' for folder in ('day', 'night') for at in (0, 1)]
    for number, line in enumerate(lines):
        name = line.partition(',')[0].replace('\\', '/')
        draw_image(tmp_path / 'images' / name, shots[number]._replace(name=f'n{number}'))
    write_text(tmp_path / 'labels.csv', header + ''.join(lines))
    folder = read_folder(DataRequest(tmp_path, division=Division(0.5)), 'coco')
    found = set()
    for part in folder.splits.values():
        table = json.loads((folder.root / part.annotations).read_text())
        found |= {(folder.root / part.images / row['file_name']) for row in table['images']}
    assert found == {
        tmp_path / 'images' / d / f'{at}.jpg' for d in ('day', 'night') for at in (0, 1)
    }
    (tmp_path / 'images/night/1.jpg').rename(tmp_path / 'images/night/2.jpg')
    with refuses('data.image-missing', 'labels.csv:5', 'night'):  # not that of the day
        read_folder(DataRequest(tmp_path, division=Division(0.5)), 'coco')


def test_images_of_cvat_s_subsets_have_names_of_their_own(tmp_path):
    shots, rows = make_truth(['train'])['train'], []
    for number, (subset, name) in enumerate(
        [(s, n) for s in ('Train', 'Validation') for n in '01']
    ):
        draw_image(tmp_path / 'images' / subset / f'{name}.jpg', shots[number])
        width, height = shots[number].size
        rows.append(
            f'<image id="{number}" name="{name}.jpg" subset="{subset}" width="{width}" '
            f'height="{height}"><box label="disk" xtl="1" ytl="2" xbr="9" ybr="9"/></image>'
        )
    write_text(tmp_path / 'annotations.xml', f'<annotations>{"".join(rows)}</annotations>')
    folder = read_folder(tmp_path, 'coco')
    for split, subset in (('train', 'Train'), ('val', 'Validation')):
        part = folder.split(split)
        table = json.loads((folder.root / part.annotations).read_text())
        read = [folder.root / part.images / row['file_name'] for row in table['images']]
        assert read == [tmp_path / 'images' / subset / f'{name}.jpg' for name in '01']


def test_folders_above_the_data_say_no_split(tmp_path):
    """Data may lie in a folder called ``train``: two images of one name are told apart below it."""
    root = tmp_path / 'train' / 'photos'
    for split in ('train', 'val'):
        draw_image(root / split / 'a.png', make_truth(['train'])['train'][0])
    index = ImageIndex(root)
    both = index.find_named('a.png')
    assert both == [root / 'train' / 'a.png', root / 'val' / 'a.png']
    assert index.prefer_split(both, 'train') == both[:1]
    assert index.prefer_split(both, 'val') == both[1:]
    assert index.prefer_split(both, 'test') == index.prefer_split(both, WHOLE) == both
