"""Bad input: configs that contradict their data stop before the first step, good ones pass."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from helpers.leaves import LEAVES, SEMANTIC, annotations_of, each_set, leaves, options, pointed, put
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmresnest.config import checks
from mmresnest.config.checks.classes import check_heads, list_class_counts
from mmresnest.config.checks.part import Names
from mmresnest.config.inspect import LOADERS, dataset_configs, import_packages
from mmresnest.config.load import load_config
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.data.shapes.drawing import CLASSES
from mmresnest.engine.prepare import prepare
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]


@pytest.fixture
def data(shapes, tmp_path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(shapes, tmp_path / 'data'))


def heads(count):
    def change(cfg):
        cfg.model.roi_head.bbox_head.num_classes = count

    return change


def both(*changes):
    return lambda cfg: [change(cfg) for change in changes]


def bare(cfg):
    for leaf in leaves(cfg):
        leaf.pop('metainfo')


def table(name, spoil):
    """Changes what a json file holds; ``{split}`` in the name is that which is read."""

    def change(root, split):
        path = root / name.format(split=split)
        rows = json.loads(path.read_text())
        spoil(rows)
        path.write_text(json.dumps(rows))

    return change


def without(name, field):
    def spoil(rows):
        rows[name][1].pop(field, None)

    return spoil


def lose(pattern, keep=0):
    """Removes files."""

    def change(root, split):
        paths = sorted(root.glob(pattern.format(split=split)))
        assert len(paths) > keep
        for path in paths[keep:]:
            path.unlink()

    return change


def write(name, text):
    return lambda root, split: (root / name.format(split=split)).write_bytes(text)


def cut(name):
    def change(root, split):
        path = root / name.format(split=split)
        path.write_bytes(path.read_bytes()[:-200])

    return change


def mask(value, dtype=np.uint8, mode=None):
    """Puts a value into a mask."""

    def change(root, split):
        path = sorted((root / 'annotations' / split).iterdir())[1]
        pixels = np.asarray(Image.open(path)).astype(dtype)
        pixels[5, 5] = value
        if mode is not None:
            image = Image.fromarray(pixels)
            image.putpalette(list(range(256)) * 3)
            image.convert(mode).save(path)
        else:
            Image.fromarray(pixels).save(path)

    return change


def copy_over(source, target):
    return lambda root, split: shutil.copyfile(
        root / source.format(split=split), root / target.format(split=split)
    )


def boxes_only(root, split):
    """Plain COCO under a panoptic name, with the categories of both."""
    boxes = json.loads((root / f'{split}.json').read_text())['annotations']
    table(PANOPTIC, lambda rows: rows.update(annotations=boxes))(root, split)


JSON, PANOPTIC = '{split}.json', 'panoptic_{split}.json'
HEAD = 'model.roi_head.bbox_head'
LINE = f'metainfo=dict(classes={CLASSES})'
MISSPELT = ('disc', *CLASSES[1:])
MEND = ['metainfo=dict(classes=(', '--data DIR']

BAD = [
    # numbers of classes: heads, metainfo and file
    (
        'detection',
        None,
        put(f'{HEAD}.num_classes', 80),
        'head-classes',
        [
            JSON,
            '6 categories',
            '{config}, {split}_dataloader.dataset',
            f'{HEAD}.num_classes is 80, and must be 6',
            *MEND,
        ],
    ),
    (
        'cascade',
        None,
        put(f'{HEAD}.1.num_classes', 7),
        'head-classes',
        [JSON, f'{HEAD}[1].num_classes is 7, and must be 6', *MEND],
    ),
    (
        'instance',
        None,
        put('model.roi_head.mask_head.num_classes', 5),
        'head-classes',
        [JSON, 'model.roi_head.mask_head.num_classes is 5, and must be 6', *MEND],
    ),
    (
        'panoptic',
        None,
        put('model.semantic_head.num_stuff_classes', 53),
        'head-classes',
        [PANOPTIC, 'model.semantic_head.num_stuff_classes is 53, and must be 1', *MEND],
    ),
    (
        'panoptic',
        None,
        put('model.panoptic_fusion_head.num_things_classes', 80),
        'head-classes',
        [PANOPTIC, 'model.panoptic_fusion_head.num_things_classes is 80, and must be 6', *MEND],
    ),
    (
        'panoptic',
        None,
        put(f'{HEAD}.num_classes', 7),
        'head-classes',
        [f'{HEAD}.num_classes is 7, and must be 6'],
    ),
    (
        'semantic',
        None,
        put('model.decode_head.num_classes', 150),
        'head-classes',
        [
            'model.decode_head.num_classes is 150, and must be 7',
            '{split}_dataloader.dataset reads 7',
            *MEND,
        ],
    ),
    (
        'semantic',
        None,
        put('model.auxiliary_head.num_classes', 6),
        'head-classes',
        ['model.auxiliary_head.num_classes is 6, and must be 7'],
    ),
    (
        'detection',
        None,
        each_set(classes=CLASSES[:4]),
        'head-classes',
        [JSON, '6 categories', 'reads 4', f'{HEAD}.num_classes is 6, and must be 4', *MEND],
    ),
    (
        'detection',
        None,
        each_set(classes=(*CLASSES, 'blob')),
        'class-missing',
        [JSON, '6 categories (disk, ', '7 classes (', '1 class (blob)', *MEND],
    ),
    (
        'detection',
        None,
        bare,
        'class-misspelt',
        [
            JSON,
            '6 categories (disk, ring, square, triangle, star, ...)',
            '80 classes (person, ',
            'lacks 80 classes',
            *MEND,
        ],
    ),
    (
        'panoptic',
        None,
        bare,
        'class-misspelt',
        [PANOPTIC, '7 categories (disk,', '133 classes (person, '],
    ),
    (
        'panoptic',
        None,
        each_set(thing_classes=CLASSES[:5]),
        'thing-classes',
        [PANOPTIC, 'metainfo.thing_classes', '5 classes', 'isthing', '6 classes'],
    ),
    (
        'panoptic',
        table(PANOPTIC, lambda rows: rows['categories'].reverse()),
        None,
        'thing-order',
        [PANOPTIC, "'background'", "'disk'", 'isthing'],
    ),
    # names of classes
    (
        'detection',
        None,
        each_set(classes=MISSPELT),
        'class-misspelt',
        [JSON, '1 class (disc)', 'nearest: disk', "'disc' is 'disk'", LINE, *MEND],
    ),
    (
        'panoptic',
        None,
        each_set(classes=(*MISSPELT, 'background')),
        'class-misspelt',
        [PANOPTIC, 'nearest: disk'],
    ),
    (
        'detection',
        None,
        each_set(classes=('disc', 'ring', 'squares')),
        'class-misspelt',
        [
            '2 classes (disc, squares)',
            "'squares' is 'square'",
            "metainfo=dict(classes=('disk', 'ring', 'square'))",
            'num_classes=3',
        ],
    ),
    # orders of classes: labels would follow the file, and names the config
    (
        'detection',
        None,
        each_set(classes=CLASSES[::-1]),
        'class-order',
        [JSON, "'disk' would be called 'cross'", LINE, *MEND],
    ),
    (
        'instance',
        None,
        each_set(classes=('ring', 'disk', *CLASSES[2:])),
        'class-order',
        [JSON, "'disk' would be called 'ring'", LINE, *MEND],
    ),
    (
        'panoptic',
        None,
        each_set(classes=('background', *CLASSES)),
        'class-order',
        [PANOPTIC, "'disk' would be called 'background'", *MEND],
    ),
    (
        'detection',
        None,
        both(each_set(classes=CLASSES[3:0:-1]), heads(3)),
        'class-order',
        [f'metainfo=dict(classes={CLASSES[1:4]})'],
    ),
    (
        'semantic',
        None,
        each_set(type='ADE20KDataset', classes=('wal', 'tree')),
        'class-unknown',
        [
            'metainfo.classes',
            '1 class (wal)',
            'ADE20KDataset',
            '150 classes (wall',
            'nearest: wall',
            'BaseSegDataset',
        ],
    ),
    *(
        (
            kind,
            None,
            each_set(classes='disk'),
            'class-list',
            ['metainfo.classes', "'disk'", "'d', 'i', 's'", "('disk',)"],
        )
        for kind in ('detection', 'instance', 'panoptic', 'semantic')
    ),
    (
        'detection',
        None,
        each_set(classes=(*CLASSES[:5], 'disk')),
        'class-twice',
        ['metainfo.classes', '1 class (disk)'],
    ),
    (
        'semantic',
        None,
        each_set(palette=[(0, 0, 0)] * 3),
        'dataset-settings',
        ['{split}_dataloader.dataset', 'palette'],
    ),
    # files that are there and empty
    *(
        (
            kind,
            table(name, lambda rows, part=part: rows.update({part: []})),
            None,
            'list-missing',
            [name, f"'{part}'", 'ann_file'],
        )
        for kind, name in (('detection', JSON), ('panoptic', PANOPTIC))
        for part in ('images', 'categories')
    ),
    (
        'instance',
        table(JSON, lambda rows: rows.pop('images')),
        None,
        'list-missing',
        [JSON, "'images'"],
    ),
    (
        'detection',
        lose('{split}/*.jpg'),
        None,
        'image-missing',
        [JSON, '{count} of {count}', '{split}/000000.jpg', 'data_prefix'],
    ),
    (
        'instance',
        lose('{split}/*.jpg', keep=1),
        None,
        'image-missing',
        [JSON, '{split}/000001.jpg'],
    ),
    ('panoptic', lose('{split}/*.jpg'), None, 'image-missing', [PANOPTIC, '{split}/000000.jpg']),
    (
        'panoptic',
        lose('panoptic_{split}/*.png', keep=1),
        None,
        'label-missing',
        [PANOPTIC, 'panoptic_{split}/000001.png'],
    ),
    (
        'semantic',
        lose('images/{split}/*.jpg'),
        None,
        'images-none',
        ['images/{split}', "'.jpg'", 'img_suffix', '--data'],
    ),
    (
        'semantic',
        lose('annotations/{split}/*.png', keep=1),
        None,
        'label-missing',
        ['annotations/{split}/000001.png', 'seg_map_suffix'],
    ),
    (
        'cityscapes',
        lose('gtFine/{split}/shapes/*.png'),
        None,
        'label-missing',
        ['gtFine/{split}/shapes/shapes_000000_000000_gtFine_labelTrainIds.png'],
    ),
    (
        'semantic',
        write('list.txt', b'000000\nnone\n'),
        each_set(ann_file='list.txt'),
        'image-missing',
        ['1 of 2 images', 'images/{split}/none.jpg', 'ann_file'],
    ),
    # files that are damaged
    ('detection', cut(JSON), None, 'json', [JSON, 'line 1, column ']),
    ('panoptic', cut(PANOPTIC), None, 'json', [PANOPTIC, 'line 1, column ']),
    ('detection', write(JSON, b'[]'), None, 'json', [JSON, ' list']),
    ('detection', write(JSON, b''), None, 'json', [JSON, 'line 1, column 1;']),
    ('instance', write(JSON, b'{"images": "\xff'), None, 'encoding', [JSON, 'UTF-8']),
    (
        'detection',
        table(JSON, lambda rows: rows['annotations'][0].pop('category_id')),
        None,
        'field-missing',
        [JSON, '1 of ', ' annotations ', "'category_id'"],
    ),
    (
        'detection',
        table(JSON, without('images', 'width')),
        None,
        'field-missing',
        [JSON, '1 of {count} images', "'width'"],
    ),
    (
        'panoptic',
        table(PANOPTIC, without('categories', 'isthing')),
        None,
        'field-missing',
        [PANOPTIC, "'isthing'"],
    ),
    (
        'panoptic',
        table(PANOPTIC, without('annotations', 'segments_info')),
        None,
        'field-missing',
        [PANOPTIC, '1 of {count} annotations', "'segments_info'"],
    ),
    # data of another kind
    (
        'instance',
        table(JSON, without('annotations', 'segmentation')),
        None,
        'mask-missing',
        [JSON, '1 of ', '"segmentation"', 'such as 2', 'faster_rcnn_resnest50_fpn'],
    ),
    (
        'detection',
        copy_over(PANOPTIC, JSON),
        None,
        'annotation-kind',
        [JSON, '("segments_info")', 'ann_file', 'panoptic_fpn_resnest50_fpn'],
    ),
    (
        'panoptic',
        boxes_only,
        None,
        'field-missing',
        [PANOPTIC, "'segments_info'", 'COCO', 'mask_rcnn_resnest50_fpn'],
    ),
    # values of masks
    (
        'semantic',
        mask(7),
        None,
        'label-value',
        [
            'annotations/{split}/000001.png',
            'value 7,',
            'decode_head.num_classes is 7',
            'from 0 to 6',
            '255',
            'reduce_zero_label',
            *MEND,
        ],
    ),
    ('semantic', mask(254), None, 'label-value', ['value 254,']),
    (
        'semantic',
        mask(8),
        each_set(reduce_zero_label=True),
        'label-value',
        ['value 8,', 'label 7,', 'from 0 to 6'],
    ),
    ('semantic', mask(300, np.uint16), None, 'label-value', ['value 300,', 'label 44,']),
    ('semantic', mask(258, np.uint16), None, 'label-value', ['value 258,', 'label 2,']),
    ('semantic', mask(9, mode='P'), None, 'label-value', ['value 9,']),
    (
        'semantic',
        mask(1, mode='RGB'),
        None,
        'label-colours',
        ['annotations/{split}/000001.png', '(mode RGB)', '--mask-values'],
    ),
    (
        'semantic',
        write('annotations/{split}/000000.png', b'junk'),
        None,
        'label-unreadable',
        ['annotations/{split}/000000.png'],
    ),
    (
        'semantic',
        None,
        lambda cfg: [step.update(reduce_zero_label=True) for step in annotations_of(cfg)],
        'label-reduce',
        ['reduce_zero_label is False', 'True in LoadAnnotations'],
    ),
]


RUNS = [
    pytest.param(run, *row, id=f'{run}-{row[0]}-{row[3]}')
    for row in BAD
    for run in ('train', 'test', 'train, peeking')
    if run != 'train, peeking' or row[0] not in SEMANTIC
]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(1))), path)
    return path


@pytest.mark.parametrize('run, kind, spoil, change, finding, parts', RUNS)
def test_bad_input_stops_before_the_first_step(
    data, weights, tmp_path, monkeypatch, run, kind, spoil, change, finding, parts
):
    if run == 'train, peeking':
        monkeypatch.setattr(checks, 'SMALL', 0)
    split, work = run.partition(',')[0], tmp_path / 'work'
    if spoil is not None:
        spoil(data, split)
    cfg = pointed(kind, data, change)
    count = 4 if split == 'train' else 2
    named = [
        part
        if part.startswith('metainfo=')
        else part.format(split=split, count=count, config=cfg.filename)
        for part in parts
    ]
    with refuses(f'data.{finding}', *named) as caught:
        if split == 'train':
            train(cfg, work_dir=work)
        else:
            score(cfg, weights, work_dir=work)
    assert str(data) in str(caught.value) or cfg.filename in str(caught.value)
    assert not work.exists()


@pytest.mark.parametrize('kind, name', [('detection', JSON), ('panoptic', PANOPTIC)])
def test_no_annotations(data, kind, name):
    """Nothing to learn from, and nothing wrong with a test set to be sent elsewhere."""
    for split in ('train', 'test'):
        table(name, lambda rows: rows.update(annotations=[]))(data, split)
    cfg = pointed(kind, data)
    with refuses('data.list-missing', 'train.json', "'annotations'", 'train_dataloader.dataset'):
        prepare(cfg, splits=('train',), work_dir=data / 'work')
    prepare(cfg, splits=('test',), work_dir=data / 'work')


@pytest.mark.parametrize('how', ['--data', 'data_root'])
@pytest.mark.parametrize(
    'kind, layout, parts',
    [
        ('detection', 'ade20k', ['ADE20K', 'deeplabv3_resnest50_ade20k']),
        ('instance', 'ade20k', ['ADE20K', 'deeplabv3_resnest50_ade20k']),
        ('semantic', 'coco', ['COCO', 'faster_rcnn_resnest50_fpn']),
        ('semantic', 'panoptic', ['images/train']),
        ('panoptic', 'coco', ['panoptic_train.json']),
    ],
)
def test_data_for_another_task(tmp_path, how, kind, layout, parts):
    root = draw_dataset(
        tmp_path / 'data', train=1, val=1, test=0, size=(64, 64), layouts=layout, progress=False
    )
    cfg, work = pointed(kind, root), tmp_path / 'work'
    if (how, kind, layout) == ('--data', 'semantic', 'coco'):  # its masks are drawn as classes
        prepare(cfg, data=root, work_dir=work)
        return
    code = 'data.no-annotations' if how == '--data' else 'data.missing'
    with refuses(code, root, *parts):
        train(cfg, data=root if how == '--data' else None, work_dir=work)
    assert not work.exists()


def test_options_after_data_and_demo(shapes, tmp_path, monkeypatch):
    """They can contradict data that were read, and are held against them too."""
    wrong = {f'{HEAD}.num_classes': 80}
    with refuses('data.head-classes', f'{HEAD}.num_classes', 80, 'num_classes=6', 'train.json'):
        train(LEAVES['detection'], data=shapes, cfg_options=wrong, work_dir=tmp_path / 'work')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'shapes').symlink_to(shapes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmresnest.engine.prepare.draw_embedded_data', lambda *_: shapes)
    with refuses('data.head-classes', f'{HEAD}.num_classes', 80, 'num_classes=6', 'train.json'):
        train(LEAVES['detection'], demo=True, cfg_options=wrong, work_dir=tmp_path / 'work')
    assert not (tmp_path / 'work').exists()


def wrapped(kind):
    def change(cfg):
        inner = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = (
            dict(type='RepeatDataset', times=2, dataset=inner)
            if kind == 'repeat'
            else dict(type='ConcatDataset', datasets=[inner, inner.to_dict()])
        )

    return change


def for_submission(cfg):
    """Images without masks, as a test server wants them."""
    cfg.test_dataloader.dataset.pipeline = [
        step for step in cfg.test_dataloader.dataset.pipeline if step['type'] != 'LoadAnnotations'
    ]
    cfg.test_dataloader.dataset.data_prefix.pop('seg_map_path')


def listed(root, split):
    (root / 'names.txt').write_text('\n'.join(CLASSES))


GOOD = [
    *((kind, None, None) for kind in LEAVES),
    *(
        (kind, None, wrapped(how))
        for kind in ('detection', 'panoptic', 'semantic')
        for how in ('repeat', 'concatenate')
    ),
    ('detection', None, both(each_set(classes=CLASSES[1:4]), heads(3))),
    ('detection', None, each_set(type='mmdet.CocoDataset', classes=list(CLASSES))),
    (
        'detection',
        listed,
        lambda cfg: each_set(classes=f'{Path(leaves(cfg)[0].data_root)}/names.txt')(cfg),
    ),
    ('detection', table(JSON, without('annotations', 'segmentation')), None),
    ('detection', table('train.json', without('annotations', 'iscrowd')), None),
    ('panoptic', None, lambda cfg: [leaf.metainfo.pop('thing_classes') for leaf in leaves(cfg)]),
    ('semantic', mask(255), None),
    ('semantic', mask(65535, np.uint16), None),
    ('semantic', mask(3, np.uint16), None),
    ('semantic', mask(3, mode='P'), None),
    ('semantic', mask(7), each_set(reduce_zero_label=True)),
    ('semantic', mask(7), put('model.decode_head.ignore_index', 7)),
    (
        'semantic',
        lambda root, split: split == 'test' and lose('annotations/test/*')(root, split),
        for_submission,
    ),
    # 4 and 5 are wall and building there, the rest is left out
    (
        'semantic',
        mask(149),
        both(
            each_set(type='ADE20KDataset', classes=('tree', 'sky')),
            put('model.decode_head.num_classes', 2),
            put('model.auxiliary_head.num_classes', 2),
        ),
    ),
]


@pytest.mark.parametrize(
    'run, kind, spoil, change',
    [
        pytest.param(run, *row, id=f'{run}-{row[0]}-{number}')
        for number, row in enumerate(GOOD)
        for run in ('whole', 'peeking')
        if run == 'whole' or row[0] not in SEMANTIC
    ],
)
def test_good_input_passes(data, tmp_path, monkeypatch, run, kind, spoil, change):
    if run == 'peeking':
        monkeypatch.setattr(checks, 'SMALL', 0)
        monkeypatch.setattr(checks, 'read_coco_file', None)  # no second look is needed
    for split in ('train', 'test') if spoil is not None else ():
        spoil(data, split)
    cfg = prepare(
        pointed(kind, data, change), splits=('train', 'val', 'test'), work_dir=tmp_path / 'work'
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for leaf in leaves(cfg):
            leaf.serialize_data = False  # collects garbage for a second
        for name in LOADERS:
            assert len(DATASETS.build(cfg[name].dataset))


def test_labels_follow_the_file(shapes):
    """Why classes in another order are refused: mmdet numbers them as the file does."""
    cfg = pointed('detection', shapes, each_set(classes=CLASSES[::-1]))
    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == CLASSES[::-1] and dataset.cat_ids == [1, 2, 3, 4, 5, 6]
    rows = json.loads((shapes / 'train.json').read_text())
    names = {row['id']: row['name'] for row in rows['categories']}
    first = dataset.get_data_info(0)
    meant = [
        names[row['category_id']]
        for row in rows['annotations']
        if row['image_id'] == first['img_id']
    ]
    shown = [dataset.metainfo['classes'][one['bbox_label']] for one in first['instances']]
    assert len(meant) == len(shown) and shown == [
        CLASSES[::-1][CLASSES.index(name)] for name in meant
    ]


def test_masks_that_the_pipeline_passes_over(shapes, tmp_path):
    """Run lengths under poly2mask=False: mmdet ignores such objects, so that nothing is learnt."""
    cfg = pointed(
        'instance',
        shapes,
        lambda cfg: [step.update(poly2mask=False) for step in annotations_of(cfg)],
    )
    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        sample = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples']
    assert not len(sample.gt_instances) and len(sample.ignored_instances)
    with refuses('data.mask-form', '4 of 4', 'poly2mask=False', 'poly2mask=True'):
        prepare(cfg, splits=('train',), work_dir=tmp_path)
    cfg = prepare(LEAVES['instance'], splits=('train',), data=shapes, work_dir=tmp_path)
    assert [step.poly2mask for step in annotations_of(cfg) if 'poly2mask' in step] == [True]


def test_splits_in_different_orders(data, tmp_path):
    """Each agrees with its own file, and what is learnt as a disk would be scored as a cross."""
    table('val.json', lambda rows: rows['categories'].reverse())(data, 'val')
    cfg = pointed('detection', data)
    cfg.val_dataloader.dataset.metainfo.classes = CLASSES[::-1]
    prepare(cfg, splits=('val',), work_dir=tmp_path)
    with refuses(
        'data.split-order',
        "val_dataloader.dataset reads 'cross'",
        'label 0',
        "train_dataloader.dataset 'disk'",
        'metainfo',
    ):
        prepare(cfg, splits=('train', 'val'), work_dir=tmp_path)


def test_what_is_passed_over_is_told(data, tmp_path, monkeypatch):
    """Boxes that mmdet leaves out stop no run, and are not left out in silence."""
    said = []
    monkeypatch.setattr(checks, 'print_log', lambda *arguments: said.append(arguments))
    prepare(pointed('detection', data), splits=('train',), work_dir=tmp_path)
    assert not said
    table('train.json', lambda rows: rows['annotations'][1]['bbox'].__setitem__(2, 0))(data, '')
    prepare(pointed('detection', data), splits=('train',), work_dir=tmp_path)
    ((text, _, level),) = said
    assert level == logging.WARNING and '1 of ' in text and 'without area' in text
    assert 'mmresnest check-data' in text and '--fix' in text


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'instance', 'panoptic', 'semantic'])
def test_plain_options_train_and_test(shapes, tmp_path, kind):
    """What the checks let through does run: training, score of it, and a test."""
    path, given = tiny.write(tmp_path, kind), options(kind, shapes)
    if kind == 'semantic':
        given.update(
            {
                f'{split}_dataloader.dataset.pipeline.{index}.reduce_zero_label': None
                for split, index in (('train', 1), ('val', 2), ('test', 2))
            }
        )
    result = train(path, cfg_options=given, work_dir=tmp_path / 'work', seed=0)
    main = {
        'semantic': 'mIoU',
        'panoptic': 'coco_panoptic/PQ',
        'instance': 'coco/segm_mAP',
        'detection': 'coco/bbox_mAP',
    }[kind]
    assert main in result.metrics
    assert main in score(path, result.checkpoint, cfg_options=given, work_dir=tmp_path).metrics


@pytest.mark.parametrize(
    'name, held',
    [
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 6),  # its semantic branch has classes of its own
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 4),
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 4),
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', 1),
        ('mmdet::glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py', 0),  # texts
        ('mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', 3),  # one head tells borders
        ('mmseg::ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py', 2),
        ('mmseg::san/san-vit-b16_voc12aug-640x640.py', 0),
    ],
)
def test_heads_of_other_models(name, held):
    """Those of upstream's configs agree with their data, and are looked at where they should be."""
    cfg = load_config(name)
    import_packages(cfg)
    leaf = dataset_configs(cfg.train_dataloader.dataset)[0]
    count = len(Names.read(cfg, leaf).classes)
    things = 80 if count == 133 else count
    assert not list(check_heads(cfg, count, things, '', ''))
    refused = 0
    for head, key, number in list(list_class_counts(cfg.model, 'model')):
        spoilt = Config(cfg.to_dict())
        spoilt.merge_from_dict({f'{head}.{key}'.replace('[', '.').replace(']', ''): number + 1})
        for found in check_heads(spoilt, count, things, '', ''):
            assert f'{head}.{key} is {number + 1}, and must be {number}' in found.said
            assert found.stops
            refused += 1
    assert refused == held
