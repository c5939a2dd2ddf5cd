"""The audit of data: every kind of finding is found, and mended where that can be done."""

import contextlib
import copy
import io
import json
import math
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.errors import check_refused, refuses
from helpers.leaves import CLASSES, LEAVES, each_set, pointed, put
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from pycocotools.coco import COCO

from mmresnest.analysis.check_data import check_data
from mmresnest.cli import main
from mmresnest.config.checks import check_annotations
from mmresnest.config.inspect import import_packages
from mmresnest.data.checks import images
from mmresnest.data.checks.findings import ERROR, KINDS, WARNING
from mmresnest.data.checks.objects import OBJECT_CHECKS, ObjectTable
from mmresnest.data.checks.repair import Context, clip_box, is_repairable
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine.prepare import prepare
from mmresnest.errors import UserError

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]

SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]
TABLES = {'detection': '{}.json', 'instance': '{}.json', 'panoptic': 'panoptic_{}.json'}

OF_FOLDERS = {
    'categories-differ',
    'images-mixed',
    'label-far',
    'label-pattern',
    'label-shifted',
    'label-single',
    'label-suffixes',
    'labels-ignored',
    'labels-none',
    'names-numbered',
    'names-twice',
}
"""Kinds of which tests/data/test_folder.py has the folders."""


class World:
    """A copy of the drawn set that is spoilt, with a config that reads it."""

    def __init__(self, root: Path, task: str) -> None:
        self.root, self.task = root, task
        self.cfg = pointed(task, root)
        self.file = root / TABLES[task].format('train') if task in TABLES else None
        self.table = json.loads(self.file.read_text()) if self.file else {}

    def audit(self, **more):
        if self.file is not None:
            self.file.write_text(json.dumps(self.table))
        return check_data(self.cfg, **{'splits': ('train',), **more})

    def image(self, number=1) -> Path:
        folder = self.root / ('images/train' if self.file is None else 'train')
        return sorted(folder.iterdir())[number]

    def mask(self, number=1) -> Path:
        folder = 'annotations/train' if self.file is None else 'panoptic_train'
        return sorted((self.root / folder).iterdir())[number]


def row(place, number=1, **changes):
    """Changes a row of the train file."""
    return lambda world: world.table[place][number].update(changes)


def rows(**changes):
    """Changes all annotations; a value may be made from a row."""

    def spoil(world):
        for one in world.table['annotations']:
            one.update(
                {key: value(one) if callable(value) else value for key, value in changes.items()}
            )

    return spoil


def ann(**changes):
    return row('annotations', **changes)


def seg(value):
    return ann(segmentation=value, bbox=[10, 10, 10, 10])


def lack(place, key):
    return lambda world: world.table[place][1].pop(key)


def again(place, **changes):
    """Repeats a row."""
    return lambda world: world.table[place].append({**world.table[place][0], **changes})


def config(path, value):
    return lambda world: put(path, value)(world.cfg)


def sets(**settings):
    return lambda world: each_set(**settings)(world.cfg)


def fewer(world):
    config(HEAD, 3)(world)
    sets(classes=CLASSES[:3])(world)


def segment(**changes):
    return lambda world: world.table['annotations'][1]['segments_info'][0].update(changes)


def cut(world, share=0.6):
    data = world.image().read_bytes()
    world.image().write_bytes(data[: int(share * len(data))])


def cut_png(world):
    Image.open(world.image()).save(world.root / 'train' / 'a.png')
    data = (world.root / 'train' / 'a.png').read_bytes()
    (world.root / 'train' / 'a.png').write_bytes(data[: len(data) // 2])
    world.table['images'][1]['file_name'] = 'a.png'


def resize(world):
    Image.new('RGB', (80, 40)).save(world.image())


def turn(world):
    """A picture that lies on its side, annotated as it lies."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 32)).save(world.image(), exif=exif)
    world.table['images'][1].update(width=64, height=32)


def swap_sizes(world):
    resize(world)
    turn(world)
    world.table['images'][1].update(width=64, height=32)


def orient(orientation):
    """A square picture, of which the size tells nothing."""

    def spoil(world):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new('RGB', (64, 64)).save(world.image(), exif=exif)

    return spoil


def deepen(scale):
    """A picture of 8 bits, written with 16."""

    def spoil(world):
        pixels = np.full((64, 64, 3), 255, np.uint16) * scale
        assert cv2.imwrite(str(world.root / 'train' / 'a.png'), pixels)
        world.table['images'][1]['file_name'] = 'a.png'

    return spoil


def paint(mode='L', size=(64, 64), value=0, path=World.mask):
    return lambda world: Image.new(mode, size, value).save(path(world))


def erase(path):
    return lambda world: path(world).unlink()


def write(content, path=World.image):
    return lambda world: path(world).write_bytes(content)


def leak(world):
    shutil.copy(world.image(), world.root / 'val' / world.image().name)


def suffix(world):
    for path in list((world.root / 'annotations' / 'train').iterdir()):
        path.rename(path.with_name(path.stem + '_mask.png'))


def reduce(world):
    for step in world.cfg.train_dataloader.dataset.pipeline:
        if step['type'] == 'LoadAnnotations':
            step['reduce_zero_label'] = True


def no_area(world):
    row('annotations', bbox=[1, 2, 0, 4])(world)
    lack('annotations', 'area')(world)


def flat_polygon(world):
    ann(segmentation=SQUARE[0], bbox=[10, 10, 10, 10], area=100)(world)


def coded_polygons(world):
    for step in world.cfg.train_dataloader.dataset.pipeline:
        if step['type'] == 'LoadAnnotations':
            step['poly2mask'] = False


def empty_folder(world):
    for path in (world.root / 'images' / 'train').iterdir():
        path.unlink()


def corners(one):
    x, y, width, height = one['bbox']
    return [30 + x / 4, 30 + y / 4, 34 + (x + width) / 3, 34 + (y + height) / 3]


def rle(size=(64, 64), counts=(600, 40, 3456)):
    return dict(size=list(size), counts=counts if isinstance(counts, str) else list(counts))


STAYS, MENDED, TOLD = 'refused', 'repaired', 'told'
HEAD = 'model.roi_head.bbox_head.num_classes'
HEAD_OF_MASKS = 'model.decode_head.num_classes'

BAD = [
    # classes of the config
    ('class-list', 'detection', sets(classes='disk'), "string 'disk'", STAYS),
    ('class-twice', 'detection', sets(classes=(*CLASSES, 'disk')), 'more than once', STAYS),
    (
        'class-misspelt',
        'detection',
        sets(classes=('disc', *CLASSES[1:])),
        f"'disc' is 'disk' in the file, write metainfo=dict(classes={CLASSES})",
        STAYS,
    ),
    ('class-misspelt', 'detection', row('categories', 0, name='Disk'), "'disk' is 'Disk'", STAYS),
    ('class-missing', 'detection', sets(classes=(*CLASSES, 'wombat')), '(wombat)', STAYS),
    (
        'class-order',
        'detection',
        sets(classes=CLASSES[::-1]),
        "'disk' would be called 'cross'",
        STAYS,
    ),
    (
        'class-order',
        'panoptic',
        sets(classes=('background', *CLASSES)),
        "called 'background'",
        STAYS,
    ),
    ('class-extra', 'detection', fewer, '(triangle, star, cross)', TOLD),
    (
        'class-unknown',
        'semantic',
        sets(type='ADE20KDataset', classes=('wal',)),
        'nearest: wall',
        STAYS,
    ),
    ('head-classes', 'detection', config(HEAD, 80), f'{HEAD} is 80, and must be 6', STAYS),
    ('head-classes', 'semantic', config('model.decode_head.num_classes', 2), 'must be 7', STAYS),
    ('thing-classes', 'panoptic', sets(thing_classes=CLASSES[:2]), 'names 2 classes', STAYS),
    (
        'thing-order',
        'panoptic',
        row('categories', 0, isthing=0),
        "'disk' stands before 'cross'",
        STAYS,
    ),
    # lists, fields and ids
    ('list-missing', 'detection', lambda world: world.table.pop('images'), "list 'images'", STAYS),
    (
        'list-missing',
        'detection',
        lambda world: world.table.update(annotations={}),
        "list 'annotations'",
        STAYS,
    ),
    ('field-missing', 'detection', lack('annotations', 'bbox'), "lack the field 'bbox'", MENDED),
    ('field-missing', 'detection', lack('annotations', 'image_id'), "field 'image_id'", MENDED),
    (
        'field-missing',
        'detection',
        lambda world: world.table['annotations'].append(7),
        'the first is 7',
        MENDED,
    ),
    ('field-missing', 'detection', lack('images', 'height'), "lack the field 'height'", STAYS),
    ('field-missing', 'detection', lack('categories', 'name'), "lack the field 'name'", STAYS),
    (
        'field-missing',
        'panoptic',
        lambda world: world.table['annotations'][1].pop('segments_info'),
        "'segments_info'",
        STAYS,
    ),
    ('area-missing', 'detection', no_area, "lack the field 'area'", MENDED),
    (
        'iscrowd-missing',
        'panoptic',
        lambda world: world.table['annotations'][1]['segments_info'][0].pop('iscrowd'),
        "lack the field 'iscrowd'",
        STAYS,
    ),
    ('value-mended', 'detection', lack('annotations', 'area'), '"area" that is missing', TOLD),
    ('value-mended', 'val', lack('annotations', 'iscrowd'), '"iscrowd" that is missing', TOLD),
    ('value-mended', 'detection', ann(iscrowd='0'), "that is '0', and is read as 0", TOLD),
    ('value-mended', 'detection', ann(iscrowd=None), 'that is None, and is read as 0', TOLD),
    ('value-mended', 'detection', ann(category_id='3'), "that is '3', and is read as 3", TOLD),
    ('value-mended', 'detection', ann(area=0), 'that is 0, and is read as', TOLD),
    ('value-mended', 'detection', row('images', width='64'), "that is '64', and is read", TOLD),
    ('value-mended', 'instance', flat_polygon, '"segmentation" that is [10, 10, 20', TOLD),
    (
        'objects-none',
        'detection',
        rows(iscrowd=1),
        '"iscrowd" that is not 0; write "iscrowd": 0',
        STAYS,
    ),
    ('objects-none', 'val', rows(iscrowd=1), 'can be scored against', STAYS),
    ('objects-none', 'detection', rows(area=-1), 'have an "area" that is not above 0', STAYS),
    ('objects-none', 'detection', rows(bbox=[1, 1, 0, 3]), 'narrower or lower than', STAYS),
    ('annotation-kind', 'detection', ann(), 'panoptic annotations', STAYS),
    ('id-type', 'detection', ann(id=[1]), 'no number and no text', MENDED),
    ('id-type', 'detection', ann(id=None), 'no number and no text', MENDED),
    ('id-zero', 'detection', ann(id=0), 'takes for no match', MENDED),
    ('id-type', 'detection', row('images', id={}), 'no number and no text', STAYS),
    ('name-type', 'detection', row('images', file_name=3), 'a name that is no text', STAYS),
    ('name-type', 'detection', row('categories', name=[3]), 'a name that is no text', STAYS),
    ('size-type', 'detection', row('images', width='wide'), 'no positive whole number', STAYS),
    ('size-type', 'detection', row('images', height=0), 'no positive whole number', STAYS),
    ('size-type', 'detection', row('images', height=63.5), 'no positive whole number', STAYS),
    ('image-twice', 'detection', again('images'), 'that an image before them has', MENDED),
    (
        'image-id-shared',
        'detection',
        again('images', file_name='000001.jpg'),
        'that is another file',
        STAYS,
    ),
    ('annotation-twice', 'detection', ann(id=1), 'that an annotation before them has', MENDED),
    ('category-twice', 'detection', row('categories', id=1), 'a category before them has', STAYS),
    ('category-name-twice', 'detection', row('categories', name='disk'), 'before them has', STAYS),
    ('file-twice', 'detection', again('images', id=99), '"file_name" that an image', TOLD),
    (
        'name-outside',
        'detection',
        row('images', file_name='../train/000001.jpg'),
        'leads out',
        TOLD,
    ),
    (
        'name-outside',
        'detection',
        lambda world: row('images', file_name=str(world.image()))(world),
        'absolute',
        TOLD,
    ),
    ('image-unknown', 'detection', ann(image_id=99), 'that no image has', MENDED),
    ('link-type', 'detection', ann(image_id=[0]), 'no number and no text', MENDED),
    ('link-type', 'detection', ann(category_id={}), 'no number and no text', MENDED),
    ('link-type', 'panoptic', segment(category_id=None), 'no number and no text', STAYS),
    ('category-unknown', 'detection', ann(category_id=99), 'that no category has', MENDED),
    ('category-gap', 'detection', row('categories', -1, id=90), 'ids are left out', TOLD),
    (
        'set-empty',
        'detection',
        config('train_dataloader.dataset.filter_cfg.min_size', 999),
        'leaves none of 4 images',
        STAYS,
    ),
    ('set-empty', 'detection', rows(category_id=99), 'leaves none of 4 images', STAYS),
    # boxes
    ('box-type', 'detection', ann(bbox=[1, 2, 3]), 'no list of four numbers', MENDED),
    ('box-type', 'detection', ann(bbox='1 2 3 4'), 'no list of four numbers', MENDED),
    ('box-type', 'detection', ann(bbox=[1, 2, '3a', 4]), 'no list of four numbers', MENDED),
    ('box-type', 'detection', ann(bbox=[1, 2, True, 4]), 'no list of four numbers', MENDED),
    ('box-nonfinite', 'detection', ann(bbox=[1, 2, math.nan, 4]), 'not finite', MENDED),
    ('box-nonfinite', 'detection', ann(bbox=[1, 2, 10**400, 4]), 'not finite', MENDED),
    ('box-empty', 'detection', ann(bbox=[1, 2, 0, 4]), 'without area', MENDED),
    ('box-empty', 'detection', ann(bbox=[9, 9, -5, 4]), 'without area', MENDED),
    ('box-small', 'detection', ann(bbox=[9, 9, 0.5, 4]), 'than a pixel', MENDED),
    ('box-repeated', 'detection', again('annotations', id=999), 'once more', MENDED),
    ('box-outside', 'detection', ann(bbox=[70, 9, 10, 4]), 'outside of the image', MENDED),
    ('box-outside', 'detection', ann(bbox=[-20, 9, 10, 4]), 'outside of the image', MENDED),
    ('box-partly', 'detection', ann(bbox=[-4, 50, 10, 20]), 'reaches beyond', MENDED),
    ('box-huge', 'detection', ann(bbox=[1, 2, 640, 40]), 'four times', MENDED),
    (
        'box-normalised',
        'detection',
        rows(bbox=lambda one: [side / 64 for side in one['bbox']]),
        'within 0 and 1',
        STAYS,
    ),
    ('box-corners', 'detection', rows(bbox=corners), 'reads like corners', STAYS),
    ('box-empty', 'panoptic', segment(bbox=[1, 1, 0, 0]), 'segments have a "bbox" without', STAYS),
    ('area-type', 'detection', ann(area='large'), 'no finite number', MENDED),
    ('area-type', 'detection', ann(area=math.inf), 'no finite number', MENDED),
    ('area-negative', 'detection', ann(area=-4), '"area" <= 0', MENDED),
    ('area-large', 'detection', ann(area=9999), 'larger than their "bbox"', TOLD),
    ('iscrowd-value', 'detection', ann(iscrowd=2), 'other than 0 and 1', MENDED),
    ('iscrowd-value', 'detection', ann(iscrowd='maybe'), 'other than 0 and 1', MENDED),
    # instance masks
    ('mask-missing', 'instance', lack('annotations', 'segmentation'), 'no "segmentation"', MENDED),
    ('mask-missing', 'instance', seg([]), 'no "segmentation"', MENDED),
    ('mask-form', 'instance', coded_polygons, 'poly2mask=False', STAYS),
    ('mask-type', 'instance', seg('M 0 0'), 'neither a list of polygons', MENDED),
    ('mask-type', 'instance', seg([1, 2, 3, 4]), 'neither a list of polygons', MENDED),
    ('mask-type', 'detection', seg(5), 'neither a list of polygons', MENDED),
    ('mask-odd', 'instance', seg([[10, 10, 20, 10, 20, 20, 10]]), 'odd number', MENDED),
    ('mask-odd', 'instance', seg([[10, 10, 20, 10, 20, 20, 10], *SQUARE]), 'odd number', MENDED),
    ('mask-points', 'instance', seg([[10, 10, 20, 20]]), 'fewer than three points', MENDED),
    ('mask-missing', 'instance', seg([[]]), 'no "segmentation"', MENDED),
    ('mask-number', 'instance', seg([[10, 10, 20, None, 20, 20]]), 'no finite number', MENDED),
    ('mask-number', 'instance', seg([[10, 10, 20, math.nan, 20, 20]]), 'no finite number', MENDED),
    ('mask-rle', 'instance', seg(rle(counts='no')), 'cannot be read', MENDED),
    ('mask-rle', 'instance', seg(rle(counts=(1, 2, 3))), 'cannot be read', MENDED),
    ('mask-rle', 'instance', seg(rle(counts=(-1, 4097))), 'cannot be read', MENDED),
    ('mask-rle', 'instance', seg(dict(size=[64, 64])), 'cannot be read', MENDED),
    ('mask-rle', 'instance', seg(rle(size=('64', 64))), 'cannot be read', MENDED),
    ('mask-size', 'instance', seg(rle((32, 32), (0, 1024))), 'another size', MENDED),
    ('mask-empty', 'instance', seg(rle(counts=(4096,))), 'without any pixel', MENDED),
    ('mask-empty', 'instance', seg([[10, 10, 20, 20, 15, 15]]), 'without any pixel', MENDED),
    ('mask-far', 'instance', seg([[40, 40, 60, 40, 60, 60]]), 'reaches out', TOLD),
    ('mask-far', 'instance', seg(rle(counts=(3000, 40, 1056))), 'reaches out', TOLD),
    # panoptic segments
    ('id-type', 'panoptic', segment(id={}), 'no number and no text', STAYS),
    ('segments-type', 'panoptic', ann(segments_info='none'), 'that is no list', STAYS),
    ('segment-category', 'panoptic', segment(category_id=99), 'category_id 99', STAYS),
    ('segment-ids', 'panoptic', segment(id=999), 'other colours', STAYS),
    ('label-missing', 'panoptic', erase(World.mask), 'does not exist', STAYS),
    ('label-size', 'panoptic', paint('RGB', (32, 32), (0, 0, 0)), 'is 32 x 32', STAYS),
    ('label-colours', 'panoptic', paint('L'), 'no colours', STAYS),
    # image files
    ('image-missing', 'detection', erase(World.image), 'do not exist', MENDED),
    ('image-empty', 'detection', write(b''), 'no bytes', MENDED),
    ('image-unreadable', 'detection', write(b'junk'), 'cannot be read', MENDED),
    ('image-truncated', 'detection', cut, 'cut off', MENDED),
    ('image-truncated', 'detection', cut_png, 'cut off', MENDED),
    ('image-size', 'detection', resize, 'is 80 x 40, annotated 64 x 64', STAYS),
    ('image-turned', 'detection', turn, 'EXIF', STAYS),
    ('image-turned', 'detection', swap_sizes, 'width and height swapped', STAYS),
    ('image-oriented', 'detection', orient(6), 'carry an EXIF orientation', TOLD),
    ('image-oriented', 'detection', orient(3), 'carry an EXIF orientation', TOLD),
    ('image-oriented', 'semantic', orient(6), 'carry an EXIF orientation', TOLD),
    ('image-dark', 'detection', deepen(16), 'read nearly black', TOLD),
    ('image-dark', 'detection', deepen(1), '(8 bits)', TOLD),
    ('image-truncated', 'semantic', cut, 'cut off', STAYS),
    (
        'image-missing',
        'semantic',
        write(b'none\n', lambda world: world.root / 'list.txt'),
        'do not exist',
        STAYS,
    ),
    # label images
    ('dataset-settings', 'semantic', sets(palette=[(0, 0, 0)] * 3), 'cannot be built', STAYS),
    ('images-none', 'semantic', empty_folder, 'no images in', STAYS),
    ('label-missing', 'semantic', erase(World.mask), '1 of 4 masks', STAYS),
    ('label-suffix', 'semantic', suffix, "seg_map_suffix='_mask.png'", STAYS),
    ('label-reduce', 'semantic', reduce, 'leave it out of the pipeline', STAYS),
    ('label-unreadable', 'semantic', write(b'junk', World.mask), 'cannot be used', STAYS),
    ('label-unreadable', 'semantic', write(b'', World.mask), 'no bytes', STAYS),
    ('label-colours', 'semantic', paint('RGB', value=(1, 1, 1)), 'mode RGB', STAYS),
    ('label-colours', 'semantic', paint('LA', value=(1, 9)), 'mode LA', STAYS),
    ('label-size', 'semantic', paint(size=(32, 64)), 'is 32 x 64, its image 64 x 64', STAYS),
    ('label-value', 'semantic', paint(value=7), 'holds the value 7', STAYS),
    ('label-ignored', 'semantic', paint(value=255), 'nothing but', TOLD),
    # across the splits
    ('leak', 'both', leak, '1 of 4 images of train are also in val', TOLD),
    (
        'split-order',
        'both',
        lambda world: put('val_dataloader.dataset.metainfo.classes', CLASSES[::-1])(world.cfg),
        "reads 'cross' as label 0",
        STAYS,
    ),
]


@pytest.mark.parametrize(
    'kind, task, spoil, said, outcome',
    [pytest.param(*one, id=f'{one[0]}-{number}') for number, one in enumerate(BAD)],
)
def test_kinds(shapes, tmp_path, kind, task, spoil, said, outcome):
    root = Path(shutil.copytree(shapes, tmp_path / 'data'))
    splits = {'both': ('train', 'val'), 'val': ('val',)}.get(task, ('train',))
    world = World(root, task if task not in ('both', 'val') else 'detection')
    if task == 'val':
        world.file = root / 'val.json'
        world.table = json.loads(world.file.read_text())
    spoil(world)
    if kind == 'annotation-kind':
        world.table = json.loads((root / 'panoptic_train.json').read_text())
    if (root / 'list.txt').exists():
        each_set(ann_file='list.txt')(world.cfg)
    report = world.audit(splits=splits)
    found = [one for _, one in report.findings if one.kind == kind]
    assert found and said in found[0].message, report.format_text()
    assert found[0].count >= 1 and found[0].remedy and said in report.format_text()
    if outcome == TOLD:
        assert found[0].severity == WARNING and not report.errors, report.format_text()
    elif outcome == STAYS:
        assert found[0].severity == ERROR
        assert task == 'panoptic' or not is_repairable(found[0])
    else:
        before = {path: path.read_bytes() for path in root.glob('*.json')}
        mended = audit_mended(world, tmp_path / 'out.json', splits)
        assert not mended.errors and kind not in {one.kind for _, one in mended.findings}
        assert before == {path: path.read_bytes() for path in root.glob('*.json')}


def audit_mended(world, out, splits):
    """Mends, and looks over what was written: in mmresnest, pycocotools and mmdet."""
    report = world.audit(splits=splits, fix=out)
    assert report.written == [out] and f'written: {out}' in report.format_text()
    for name in splits:
        world.cfg[f'{name}_dataloader'].dataset.ann_file = str(out)
    world.file = None
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out))
        for one in coco.anns.values():
            if one.get('segmentation'):
                assert coco.annToMask(one).any()
        with DefaultScope.overwrite_default_scope('mmdet'):
            assert len(DATASETS.build(world.cfg[f'{splits[0]}_dataloader'].dataset))
    return world.audit(splits=splits)


def test_every_kind_is_in_the_table():
    assert {one[0] for one in BAD} | OF_FOLDERS == set(KINDS) and len(BAD) >= 60
    outcomes = {(one[0], one[4]) for one in BAD}
    for kind, words in KINDS.items():
        if not words.repair:
            assert (kind, MENDED) not in outcomes
        assert words.severity in (ERROR, WARNING)


@pytest.mark.parametrize('task', ['detection', 'instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize('every', [False, True])
def test_nothing_is_wrong_with_good_data(shapes, task, every):
    report = check_data(pointed(task, shapes), every=every)
    assert not report.findings and report.format_text().endswith(
        f'0 errors, 0 warnings ({pointed(task, shapes).filename})'
    )


def spoilt(shapes, tmp_path, *spoils):
    world = World(Path(shutil.copytree(shapes, tmp_path / 'data')), 'detection')
    for spoil in spoils:
        spoil(world)
    world.audit()
    return world


def test_mending_says_how_many_and_keeps_what_it_does_not_know(shapes, tmp_path):
    world = spoilt(
        shapes,
        tmp_path,
        ann(bbox=[1, 1, 0, 3]),
        row('annotations', 0, note='ours'),
        row('annotations', 2, bbox=[-4, 2, 20, 20], area=400),
        erase(World.image),
    )
    world.table['info'] = {'by': 'Zoë'}
    report = world.audit(fix=tmp_path / 'new' / 'a.json')
    text = report.format_text()
    assert '1 annotations dropped (box-empty)' in text
    assert '1 images dropped (image-missing)' in text
    new = json.loads((tmp_path / 'new' / 'a.json').read_text())
    assert new['info'] == {'by': 'Zoë'} and len(new['images']) == 3
    assert new['annotations'][0]['note'] == 'ours'
    lost = world.table['images'][1]['id']
    assert lost not in {one['image_id'] for one in new['annotations']}
    (clipped,) = (
        one for one in new['annotations'] if one['id'] == world.table['annotations'][2]['id']
    )
    assert clipped['bbox'] == [0, 2, 16, 20] and clipped['area'] == 320


@pytest.mark.parametrize(
    'make, code, part',
    [
        (lambda file, out: out.write_text('mine'), 'option.exists', '--force'),
        (lambda file, out: out.symlink_to(file), 'option.overwrites-input', 'train.json'),
        (lambda file, out: os.link(file, out), 'option.overwrites-input', 'train.json'),
    ],
)
def test_the_original_is_never_written(shapes, tmp_path, make, code, part):
    world = spoilt(shapes, tmp_path, ann(bbox=[1, 1, 0, 3]))
    before, out = world.file.read_bytes(), tmp_path / 'out.json'
    make(world.file, out)
    for force in (False, True):
        if force and code == 'option.exists':
            assert world.audit(fix=out, force=True).written == [out]
            assert json.loads(out.read_text())['images']
        else:
            with refuses(code, f'--fix {out}', part):
                world.audit(fix=out, force=force)
    assert world.file.read_bytes() == before
    with refuses('option.overwrites-input', f'--fix {world.file}'):
        world.audit(fix=world.file, force=True)


def test_several_files_go_into_a_folder(shapes, tmp_path):
    world = spoilt(shapes, tmp_path, ann(bbox=[1, 1, 0, 3]))
    shutil.copy(world.file, world.root / 'val.json')
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(world.root / 'train', world.root / 'val', dirs_exist_ok=True)
    with refuses('option.conflict', '--fix: 2', 'train.json', 'val.json', '--split'):
        world.audit(splits=('train', 'val'), fix=tmp_path / 'out.json')
    report = world.audit(splits=('train', 'val'), fix=tmp_path / 'out')
    assert [path.name for path in report.written] == ['train.json', 'val.json']


def test_a_fixed_folder_is_one_that_data_takes(shapes, tmp_path):
    source, out = shutil.copytree(shapes, tmp_path / 'data'), tmp_path / 'out'
    table = json.loads((source / 'train.json').read_text())
    table['annotations'][0]['bbox'] = [1, 1, 0, 3]
    (source / 'train.json').write_text(json.dumps(table))
    report = check_data(pointed('detection', shapes), data=source, splits=('train',), fix=out)
    assert report.written == [out / 'train.json'] and str(out) in report.format_text()
    assert (out / 'val.json').read_bytes() == (source / 'val.json').read_bytes()
    assert not (out / 'train').is_file() and os.path.samefile(out / 'train', source / 'train')
    assert not check_data(pointed('detection', shapes), data=out).findings
    with refuses('option.exists', out):
        check_data(pointed('detection', shapes), data=source, splits=('train',), fix=out)
    check_data(pointed('detection', shapes), data=source, splits=('train',), fix=out, force=True)
    (out / 'train').unlink()
    (out / 'train').mkdir()
    with refuses('option.exists', out / 'train'):
        check_data(
            pointed('detection', shapes), data=source, splits=('train',), fix=out, force=True
        )


def test_what_cannot_be_mended(shapes, tmp_path):
    with refuses('option.conflict', '--fix'):
        check_data(pointed('semantic', shapes), fix=tmp_path / 'out.json')
    report = check_data(pointed('detection', shapes), fix=tmp_path / 'out.json')
    assert 'nothing that --fix could mend' in report.format_text() and not report.written
    world = spoilt(shapes, tmp_path, rows(bbox=[1, 1, 0, 0]))
    report = world.audit(fix=tmp_path / 'out.json')
    assert report.errors and 'nothing that can be used would be left' in report.format_text()
    assert not (tmp_path / 'out.json').exists()


def test_a_sample_or_all(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr('mmresnest.analysis.check_data.SAMPLED', 2)
    world = spoilt(shapes, tmp_path)
    for path in (world.root / 'train').iterdir():
        path.write_bytes(b'')
    first, second = world.audit(), world.audit()
    assert (
        first.format_text() == second.format_text()
        and '2 of 2 images are files of no bytes' in first.format_text()
    )
    assert '2 of 4 images were read; --all reads all' in first.format_text()
    assert '4 of 4 images are files of no bytes' in world.audit(every=True).format_text()


def test_the_same_bytes_under_another_name_are_found_in_all(shapes, tmp_path):
    world = spoilt(shapes, tmp_path)
    shutil.copy(world.image(2), world.root / 'val' / '000000.jpg')
    assert 'leak' not in world.audit(splits=('train', 'val')).format_text()
    text = world.audit(splits=('train', 'val'), every=True).format_text()
    assert '1 of 4 images of train are also in val, such as' in text and '000002.jpg' in text


def test_other_data_sets_are_left_alone_and_that_is_said(shapes):
    cfg = pointed('detection', shapes)
    cfg.train_dataloader.dataset.type = 'CityscapesDataset'
    cfg.val_dataloader.dataset.backend_args = dict(backend='petrel')
    report = check_data(cfg, splits=('train', 'val'))
    assert not report.findings
    assert report.notes[0].startswith('train: CityscapesDataset is left alone')
    assert report.notes[1].startswith('val: CocoDataset is left alone')


def test_images_that_pil_takes_for_bombs_are_read_as_in_training(shapes, tmp_path, monkeypatch):
    world = spoilt(shapes, tmp_path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(world.image())
    assert not world.audit(every=True).findings
    cut(world)
    assert {one.kind for _, one in world.audit().findings} <= {
        'image-truncated',
        'image-unreadable',
    }
    world = World(Path(shutil.copytree(shapes, tmp_path / 'masks')), 'semantic')
    (found,) = (one for _, one in world.audit().findings if one.kind == 'label-unreadable')
    assert found.count == 4 and 'cut image and mask into tiles' in found.message


def test_masks_that_some_objects_lack_are_found_in_a_folder(shapes, tmp_path):
    world = World(Path(shutil.copytree(shapes, tmp_path / 'data')), 'instance')
    lack('annotations', 'segmentation')(world)
    world.audit()
    report = check_data(
        LEAVES['instance'], data=world.root, fix=tmp_path / 'a.json', splits=('train',)
    )
    (found,) = (one for _, one in report.findings if one.kind == 'mask-missing')
    assert found.count == 1 and report.written == [tmp_path / 'a.json']
    written = json.loads((tmp_path / 'a.json').read_text())['annotations']
    assert len(written) == len(world.table['annotations']) - 1


def test_full_16_bits_are_not_dark(shapes, tmp_path):
    assert not spoilt(shapes, tmp_path, deepen(257)).audit().findings


def test_remedies_do_not_name_the_folder_that_was_given(shapes, tmp_path):
    world = World(Path(shutil.copytree(shapes, tmp_path / 'data')), 'semantic')
    config(HEAD_OF_MASKS, 2)(world)
    cfg, more = world.cfg, dict(options={HEAD_OF_MASKS: 2}, splits=('train',))
    assert '--data DIR' in check_data(cfg, **more).format_text()
    text = check_data(cfg, data=world.root, **more).format_text()
    assert 'num_classes is 2' in text and '--data DIR' not in text


@pytest.mark.parametrize('task, spoil, code', [
    ('detection', turn, 'image-turned'),
    ('detection', lambda world: world.table['images'][1].update(width=32), 'image-size'),
    ('semantic', paint(size=(32, 64)), 'label-size'),
    ('detection', rows(bbox=corners), 'box-corners'),
    ('detection', rows(iscrowd=1), 'objects-none'),
    ('instance', seg(rle(counts=(1, 2, 3))), 'mask-rle'),
])  # fmt: skip
@pytest.mark.parametrize('folder', [False, True])
def test_a_run_refuses_what_spoils_it(shapes, tmp_path, task, spoil, code, folder):
    world = World(Path(shutil.copytree(shapes, tmp_path / 'data')), task)
    spoil(world)
    world.audit()
    given = dict(data=world.root) if folder else {}
    with refuses(f'data.{code}'):
        prepare(world.cfg, splits=('train', 'val'), work_dir=tmp_path / 'work', **given)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('least, shown', [(2, True), (4, False)])
def test_a_bar_for_many(monkeypatch, least, shown):
    asked, show = [], images.show_progress
    monkeypatch.setattr(
        images,
        'show_progress',
        lambda *given, **how: asked.append((*given, how)) or show(*given, **how),
    )
    monkeypatch.setattr(images, '_TRACKED_FROM', least)
    assert list(images.map_files(lambda path: path, [1, 2, 3], 'reading 3 images')) == [1, 2, 3]
    assert asked == [(3, 'reading 3 images', dict(lines=False, shown=shown))]


def test_the_command(shapes, tmp_path, capsys):
    line = ['check-data', 'faster_rcnn_resnest50_fpn', '--split', 'train', '--data']
    assert main.main([*line, str(shapes)]) == 0
    assert 'errors, 0 warnings' in capsys.readouterr().out
    world = spoilt(shapes, tmp_path, ann(bbox=[1, 1, 0, 3]), ann(id=1), lack('images', 'height'))
    saved = tmp_path / 'found.json'
    assert main.main([*line, str(world.root), '--report', str(saved)]) == 1
    found = {one['kind']: one for one in json.loads(saved.read_text())['findings']}
    assert found['box-empty']['count'] == 1 and found['box-empty']['severity'] == 'error'
    assert set(found) >= {'box-empty', 'annotation-twice', 'field-missing'}
    assert main.main([*line, str(world.root), '--report', str(tmp_path / 'a.txt')]) == 1
    assert (tmp_path / 'a.txt').read_text() == capsys.readouterr().out[
        -len((tmp_path / 'a.txt').read_text()) :
    ]
    world.file.write_text('{')
    none = tmp_path / 'none'
    for bad, code, *parts in (
        ([str(world.root)], 'data.json', world.file, 'line 1, column 2'),
        ([str(none)], 'data.missing', none, '--data'),
        ([str(shapes), '--report', str(none / 'a.txt')], 'option.no-folder', '--report', none),
        ([str(shapes), '--split', 'tarin'], 'option.unknown', "'tarin'", 'legal: train, val, test'),
    ):
        check_refused([*line, *bad], code, *parts)


@pytest.mark.parametrize(
    'task, place, spoil',
    [
        (
            'panoptic',
            'panoptic_train.json',
            lambda path: path.write_text(
                json.dumps(
                    {
                        **json.loads(path.read_text()),
                        'images': json.loads(path.read_text())['images'][1:],
                    }
                )
            ),
        ),
        ('semantic', 'annotations/train/000001.png', lambda path: path.write_bytes(b'junk')),
        ('semantic', 'annotations/train/000002.png', lambda path: path.unlink()),
        # of which the ADE20K layout beside it has a copy, where images are looked for as well
        (
            'detection',
            'train/000002.jpg',
            lambda path: (path.unlink(), shutil.rmtree(path.parents[1] / 'images')),
        ),
    ],
)
def test_a_folder_that_training_refuses_can_be_looked_at(shapes, tmp_path, task, place, spoil):
    root = Path(shutil.copytree(shapes, tmp_path / 'data'))
    spoil(root / place)
    report = check_data(pointed(task, shapes), data=root)
    assert report.errors, report.format_text()
    assert all(str(root) in one.message for one in report.errors)


# files nobody meant --------------------------------------------------------------------------

ODD = (
    None,
    True,
    -1,
    0,
    0.5,
    math.nan,
    math.inf,
    -math.inf,
    10**30,
    10**400,
    '',
    'disk',
    'ü\u202e\ud800',
    '1',
    [],
    [[]],
    [None],
    {},
    {'a': [1]},
    [1, 2, 3, 4],
    [[1, 2, 3, 4, 5, 6]],
    {'size': [64, 64], 'counts': 'PPYo0'},
    {'size': [64, 64], 'counts': [4096]},
    '../../a',
    '\0',
    'a' * 5000,
)


def fuzz(count: int, seed: int) -> Counter:
    """Looks over that many spoilt copies of a small file, and mends what can be mended.

    Nothing else than a UserError may come of it, mended files have nothing left to mend, and what
    the look before a run lets pass, mmdet builds.

    Returns:
        what became of them: refused, found, mended or clean.
    """
    chance, seen = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = draw_dataset(
            Path(folder) / 'data',
            train=2,
            val=1,
            test=0,
            size=(64, 64),
            layouts=['coco', 'panoptic'],
            progress=False,
        )
        worlds = [World(root, task) for task in ('detection', 'instance', 'panoptic')]
        good = [world.file.read_text() for world in worlds]
        for number in range(count):
            world = worlds[number % 3]
            world.file.write_bytes(_spoil(good[number % 3], chance))
            try:
                _build_what_passes(world.cfg)
                seen[_look_and_mend(world, root / 'mended.json', number % 7 == 0)] += 1
            except UserError as error:
                assert str(error).strip()
                seen['refused'] += 1
            except Exception as error:
                raise AssertionError(f'seed {seed}, file {number}: {error!r}') from error
    return seen


def _build_what_passes(cfg: Config) -> None:
    import_packages(cfg)
    with contextlib.suppress(UserError):
        check_annotations(cfg, ('train',))
        with (
            contextlib.redirect_stdout(io.StringIO()),
            DefaultScope.overwrite_default_scope('mmdet'),
        ):
            DATASETS.build(
                {**cfg.train_dataloader.dataset, 'pipeline': [], 'serialize_data': False}
            )


def _look_and_mend(world: World, out: Path, as_folder: bool) -> str:
    cfg, coco = world.cfg, world.task != 'panoptic'
    report = check_data(
        cfg,
        splits=('train',),
        fix=out if coco else None,
        force=True,
        data=world.root if as_folder else None,
    )
    json.dumps(report.to_json())
    report.format_text().encode()
    if not report.written:
        return 'found' if report.findings else 'clean'
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    cfg.train_dataloader.dataset.ann_file = str(out)
    again = check_data(cfg, splits=('train',))
    left = [one.message for _, one in again.findings if is_repairable(one)]
    assert not left, left
    if not again.errors:
        with contextlib.redirect_stdout(io.StringIO()):
            COCO(str(out))
    return 'mended'


def _spoil(text: str, chance: random.Random) -> bytes:
    """One to four changes of the values, then sometimes one of the text."""
    table = json.loads(text)
    for _ in range(chance.randint(1, 4)):
        _change(table, chance)
    data = json.dumps(table).encode()
    kind = chance.random()
    if kind < 0.05:
        return data[: chance.randrange(len(data))]
    if kind < 0.1:
        at = chance.randrange(len(data))
        return (
            data[:at] + bytes(chance.choices(range(256), k=chance.randint(1, 4))) + data[at + 1 :]
        )
    if kind < 0.12:
        depth = chance.choice((50, 5000, 200000))
        return data[:-1] + b', "deep": ' + b'[' * depth + b']' * depth + b'}'
    return data


def _change(table: dict, chance: random.Random) -> None:
    """Deletes, replaces, repeats or wraps something, somewhere."""
    node, deeper = table, True
    while deeper:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        deeper = isinstance(node[key], (dict, list)) and chance.random() < 0.85
        if deeper:
            node = node[key]
    how = chance.random()
    if how < 0.2:
        del node[key]
    elif how < 0.8:
        node[key] = copy.deepcopy(chance.choice(ODD))
    elif how < 0.9:
        node[key] = [node[key]]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    else:
        node[f'{key}_'] = node.pop(key)


def test_fuzz():
    count = 10_000 if os.environ.get('MMRESNEST_SOAK') else 300
    seen = fuzz(count, seed=0)
    assert sum(seen.values()) == count
    assert min(seen['refused'], seen['found'], seen['mended']) > count // 100, seen


def test_polygons_and_run_lengths_are_measured_as_pycocotools_does():
    """Extents by which a mask is found to be far, against those that pycocotools decodes."""
    from pycocotools import mask as coco

    from mmresnest.data.checks.masks import unpack_counts

    chance = np.random.default_rng(0)
    for _ in range(20):
        coded = coco.encode(np.asfortranarray(chance.random((30, 20)) < 0.3, np.uint8))
        runs = list(unpack_counts(coded['counts'].decode()))
        plain = np.repeat(np.arange(len(runs)) % 2, runs).reshape(20, 30).T
        assert (plain == coco.decode(coded)).all()


@pytest.mark.parametrize(
    'box, size, clipped',
    [
        ([90, 40, 30, 30], (100, 50), [90, 40, 10, 10]),
        ([90, 40, 30, 30], (50, 100), [90, 40, -40, 30]),  # outside, and dropped in the next round
        ([-5, -4, 20, 20], (100, 50), [0, 0, 15, 16]),
        ([60, 10, 80, 20], (100, 50), [60, 10, 40, 20]),
        ([10, 30, 20, 80], (100, 50), [10, 30, 20, 20]),
    ],
)
def test_boxes_are_clipped_by_the_side_they_leave(box, size, clipped):
    row = {'image_id': 7, 'bbox': box, 'area': box[2] * box[3]}
    mended = clip_box(row, Context({7: size}, next_id=1, needs_masks=False))
    assert mended['bbox'] == clipped and row['bbox'] == box
    assert mended['area'] == min(box[2] * box[3], clipped[2] * clipped[3])


def test_objects_that_are_repeated():
    """Class, box and mask are; whichever stands first is kept."""
    box, mask = [1, 2, 3, 4], [[1, 2, 4, 2, 4, 6]]
    one = dict(image_id=1, category_id=1, bbox=box, segmentation=mask)
    table = dict(
        images=[dict(id=1, width=9, height=9), dict(id=2, width=9, height=9)],
        annotations=[
            one,
            {**one, 'bbox': [1.0, 2.0, 3.0, 4.0]},
            {**one, 'image_id': 2},
            {**one, 'category_id': 2},
            {**one, 'bbox': [1, 2, 3, 5]},
            {**one, 'segmentation': [[1, 2, 4, 2, 4, 5]]},
            dict(image_id=1, category_id=1, bbox=box),
            {**one, 'iscrowd': 1},
            {**one, 'iscrowd': 0, 'id': 7},
            dict(image_id=1, category_id=1, bbox=box),
            dict(image_id=[1], category_id=1, bbox=box),
            dict(image_id=1, category_id=1),
        ],
    )
    found = OBJECT_CHECKS['box-repeated'](ObjectTable(table, table['annotations']))
    assert np.flatnonzero(found).tolist() == [1, 8, 9]
