"""Masks to the pixel, holes and all: CVAT's and labelme's brush, and Kaggle's run lengths."""

import base64
import io
import json

import numpy as np
import pytest
from helpers.errors import refuses
from helpers.folders import (
    CLASSES,
    draw_image,
    make_cvat_xml,
    make_truth,
    spell_labelme,
    write_json,
    write_text,
)
from PIL import Image

from mmresnest.data.folder import read_folder
from mmresnest.data.formats.split import Division
from mmresnest.data.request import DataRequest
from mmresnest.utils.masks import decode_mask

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]
HALF = Division(0.4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def draw_mask(shot, mark):
    """Return the mask of an object, H W: a rectangle with a hole and a corner less."""
    mask = np.zeros(shot.size[::-1], bool)
    x, y, w, h = mark.box
    mask[y : y + h, x : x + w] = True
    mask[y, x] = False
    mask[y + 1 : y + 3, x + 1 : x + 3] = False
    return mask


def walk_runs(flat):
    """Return the runs of flags one by one, the first of zeros."""
    runs, last = [0], False
    for flag in flat:
        if flag != last:
            runs.append(0)
            last = flag
        runs[-1] += 1
    return runs


def make_cvat(root, spell=str):
    """CVAT's masks: runs along the lines of a rectangle."""
    lines = ['<annotations><meta><task><labels>']
    lines += [f'<label><name>{name}</name></label>' for name in CLASSES]
    lines.append('</labels></task></meta>')
    for shot in make_truth(['train'])['train']:
        draw_image(root / 'images' / f'{shot.name}.jpg', shot)
        width, height = shot.size
        lines.append(f'<image name="{shot.name}.jpg" width="{width}" height="{height}">')
        for mark in shot.marks:
            x, y, w, h = mark.box
            runs = walk_runs(draw_mask(shot, mark)[y : y + h, x : x + w].ravel().tolist())
            rle = ', '.join(map(str, runs))
            lines.append(
                spell(
                    f'<mask label="{mark.name}" source="manual" occluded="0" rle="{rle}" '
                    f'left="{x}" top="{y}" width="{w}" height="{h}" z_order="0"></mask>'
                )
            )
        lines.append('<tag label="disk"/></image>')
    write_text(root / 'annotations.xml', '\n'.join([*lines, '</annotations>']))


def make_labelme(root, **fields):
    """Labelme's masks: images for the rectangle of two points, both in it."""
    for shot in make_truth(['train'])['train']:
        draw_image(root / f'{shot.name}.jpg', shot)
        table = spell_labelme(shot, f'{shot.name}.jpg', False)
        for shape, mark in zip(table['shapes'], shot.marks):
            x, y, w, h = mark.box
            data = io.BytesIO()
            part = draw_mask(shot, mark)[y : y + h, x : x + w]
            Image.fromarray(part.astype(np.uint8) * 255).save(data, format='PNG')
            shape.update(
                shape_type='mask',
                points=[[x, y], [x + w - 1, y + h - 1]],
                mask=base64.b64encode(data.getvalue()).decode(),
            )
            shape.update(fields)
        write_json(root / f'{shot.name}.json', table)


def spell_runs(mask):
    """Return Kaggle's runs: from 1, down the columns."""
    at, words = 0, []
    for number, run in enumerate(walk_runs(mask.T.ravel().tolist())):
        if number % 2:
            words += [at + 1, run]
        at += run
    return ' '.join(map(str, words))


def make_table(root, head, line, empty=''):
    """Kaggle's table, with a made-up one beside it."""
    rows = []
    for shot in make_truth(['train'])['train']:
        draw_image(root / 'train_images' / f'{shot.name}.jpg', shot)
        rows += [
            line.format(shot.name, CLASSES.index(mark.name) + 1, spell_runs(draw_mask(shot, mark)))
            for mark in shot.marks
        ]
        if not shot.marks and empty:
            rows.append(empty.format(shot.name))
    write_text(root / 'train.csv', '\n'.join([head, *rows]) + '\n')
    write_text(root / 'sample_submission.csv', head + '\n')


def make_samples(root, place='stage1_train/{}/images/{}.jpg', masks='stage1_train/{}/masks'):
    """A folder for each image, and an image without masks."""
    for shot in make_truth(['train'])['train']:
        draw_image(root / place.format(shot.name, shot.name), shot)
        (root / masks.format(shot.name)).mkdir(parents=True)
        for at, mark in enumerate(shot.marks):
            path = root / masks.format(shot.name) / f'{shot.name}_{at}.png'
            Image.fromarray(draw_mask(shot, mark).astype(np.uint8) * 255).save(path)
    draw_image(root / place.format('test', 'test'), make_truth(['test'])['test'][0])


def make_mask_folders(root):
    """A folder of masks for each image."""
    make_samples(root, 'images/{1}.jpg', 'masks/{}')


def make_objects(root):
    """A line for each object, as of Airbus."""
    make_table(root, 'ImageId,EncodedPixels', '{0}.jpg,{2}', '{0}.jpg,')


TABLES = {
    'classes': ('ImageId,ClassId,EncodedPixels', '{0}.jpg,{1},{2}', '{0}.jpg,1,'),
    'joined': ('ImageId_ClassId,EncodedPixels', '{0}.jpg_{1},{2}', '{0}.jpg_2,'),
    'stems': ('id,class,rle_mask', '{0},{1},{2}', '{0},3,-1'),
}


MAKERS = [make_cvat, make_labelme, make_objects, make_samples, make_mask_folders]


@pytest.mark.parametrize('make', MAKERS)
def test_masks_are_read_to_the_pixel(make, tmp_path):
    make(tmp_path)
    folder = read_folder(DataRequest(tmp_path, division=HALF), 'coco')
    single = make not in (make_cvat, make_labelme)
    assert folder.has_masks and folder.coded_masks
    assert folder.classes == (
        ('object',) if single else CLASSES if make is make_cvat else tuple(sorted(CLASSES))
    )
    assert any('5 tags' in note for note in folder.notes) == (make is make_cvat)
    samples = make in (make_samples, make_mask_folders)
    assert any('1 of 6 images' in note for note in folder.notes) == samples
    shots = {shot.name: shot for shot in make_truth(['train'])['train']}
    for part in folder.splits.values():
        table = json.loads((folder.root / part.annotations).read_text())
        names = {row['id']: row['name'] for row in table['categories']}
        for image in table['images']:
            shot = shots.pop(image['file_name'].rpartition('/')[2].removesuffix('.jpg'))
            rows = [row for row in table['annotations'] if row['image_id'] == image['id']]
            assert len(rows) == len(shot.marks)
            for row, mark in zip(rows, shot.marks):
                mask = draw_mask(shot, mark)
                assert (decode_mask(row['segmentation'], *mask.shape) == mask).all()
                assert row['bbox'] == list(mark.box) and row['area'] == mask.sum()
                assert names[row['category_id']] == ('object' if single else mark.name)
    assert not shots


@pytest.mark.parametrize('name', TABLES)
def test_run_lengths_of_classes_serve_a_segmentor_alone(name, tmp_path):
    make_table(tmp_path, *TABLES[name])
    folder = read_folder(DataRequest(tmp_path, division=HALF), 'ade20k')
    assert folder.classes == ('background', '1', '2', '3')
    assert folder.counts == dict(train=3, val=2)
    shots = {shot.name: shot for shot in make_truth(['train'])['train']}
    for part in folder.splits.values():
        for mask in sorted((folder.root / part.annotations).glob('*.png')):
            shot = shots[mask.name.partition('.')[0]]
            truth = np.zeros(shot.size[::-1], np.uint8)
            for mark in shot.marks:
                truth[draw_mask(shot, mark)] = CLASSES.index(mark.name) + 1
            assert (np.asarray(Image.open(mask)) == truth).all()
    for _ in range(2):  # from the table, and from the cache
        with refuses('data.no-annotations', tmp_path, 'segmentor'):
            read_folder(DataRequest(tmp_path, division=HALF), 'coco')


@pytest.mark.parametrize('make', [make_samples, make_mask_folders])
@pytest.mark.parametrize(
    ('change', 'code', 'part'),
    [
        (lambda mask: mask.point(lambda value: 0), 'data.label-values', 'values 0,'),
        (lambda mask: mask.rotate(30, Image.Resampling.BILINEAR), 'data.label-values', '...'),
        (lambda mask: mask.resize((9, 9), Image.Resampling.NEAREST), 'data.image-size', '9 x 9'),
        (None, 'data.label-unreadable', 'train_1_0.png'),
    ],
)
def test_masks_of_objects_that_cannot_be_read(make, change, code, part, tmp_path):
    make(tmp_path)
    (path,) = tmp_path.rglob('train_1_0.png')
    if change is None:
        path.write_bytes(path.read_bytes()[:50])
    else:
        change(Image.open(path)).save(path)
    with refuses(code, path.parent, part):
        read_folder(DataRequest(tmp_path, division=HALF), 'coco')


def test_masks_of_objects_serve_a_segmentor(tmp_path):
    make_mask_folders(tmp_path)
    folder = read_folder(DataRequest(tmp_path, division=HALF), 'ade20k')
    assert (folder.classes, folder.counts) == (('background', 'object'), dict(train=3, val=2))
    draw_image(tmp_path / 'images' / 'train_1.png', make_truth(['train'])['train'][0])
    with refuses('data.ambiguous', 'train_1.png', 'train_1.jpg'):
        read_folder(DataRequest(tmp_path, division=HALF), 'ade20k')


def test_run_lengths_of_classes_in_several_lines_are_objects(tmp_path):
    make_table(tmp_path, *TABLES['classes'])
    path = tmp_path / 'train.csv'
    write_text(path, path.read_text() + 'train_0.jpg,1,1 1\n')
    folder = read_folder(DataRequest(tmp_path, division=HALF), 'coco')
    assert sum(part.object_count for part in folder.splits.values()) == 8


@pytest.mark.parametrize(
    ('line', 'code', 'part'),
    [
        ('train_0.jpg,1 2 3', 'data.mask-rle', 'train.csv:10'),
        ('train_0.jpg,1 x', 'data.mask-rle', 'train.csv:10'),
        ('train_0.jpg,5 2 1 2', 'data.mask-rle', 'follow'),
        ('train_0.jpg,0 2', 'data.mask-rle', 'from 1'),
        ('train_0.jpg,7680 2', 'data.mask-rle', '80 x 96'),
        (f'train_0.jpg,{10**30} 2', 'data.mask-rle', 'pairs'),
        ('other.jpg,1 2', 'data.image-missing', 'other.jpg'),
        (',1 2', 'data.label-line', 'train.csv:10'),
    ],
)
def test_run_lengths_that_cannot_be_read(line, code, part, tmp_path):
    make_objects(tmp_path)
    path = tmp_path / 'train.csv'
    write_text(path, path.read_text() + line + '\n')
    with refuses(code, path, part):
        read_folder(DataRequest(tmp_path, division=HALF), 'coco')


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('rle="', 'rle="7, '),
        ('left="', 'left="9'),
        ('rle="', 'rle="-1, 1, '),
        ('width="', 'width="1'),
    ],
)
def test_masks_of_cvat_that_cannot_be_read(old, new, tmp_path):
    make_cvat(tmp_path, lambda line: line.replace(old, new))
    with refuses('data.mask-rle', 'annotations.xml:7'):
        read_folder(DataRequest(tmp_path, division=HALF), 'coco')


def test_an_ellipse_of_cvat_is_refused(tmp_path):
    make_cvat_xml(tmp_path, '<ellipse label="bar" cx="3" cy="3" rx="1" ry="1"/>')
    with refuses('data.shape', 'annotations.xml:', 'ellipse', '<mask>'):
        read_folder(tmp_path, 'coco')


@pytest.mark.parametrize(
    'fields',
    [dict(mask='?'), dict(mask=None), dict(points=[[1, 1], [2, 2]]), dict(points=[[1, 1]])],
)
def test_masks_of_labelme_that_cannot_be_read(fields, tmp_path):
    make_labelme(tmp_path, **fields)
    with refuses('data.mask-form', 'train_0.json:6', 'disk'):
        read_folder(DataRequest(tmp_path, division=HALF), 'coco')


def test_parts_of_an_object_are_one_mask(tmp_path):
    make_labelme(tmp_path, label='disk', group_id=1)
    folder = read_folder(DataRequest(tmp_path, division=HALF), 'coco')
    shots = {shot.name: shot for shot in make_truth(['train'])['train']}
    for part in folder.splits.values():
        table = json.loads((folder.root / part.annotations).read_text())
        for row in table['annotations']:
            name = next(one for one in table['images'] if one['id'] == row['image_id'])['file_name']
            shot = shots.pop(name.removesuffix('.jpg'))
            whole = np.any([draw_mask(shot, mark) for mark in shot.marks], axis=0)
            assert (decode_mask(row['segmentation'], *whole.shape) == whole).all()
    assert all(not shot.marks for shot in shots.values())
