"""Sheets of images as pipelines deliver them."""

import hashlib

import numpy as np
import pytest
from helpers.errors import check_refused, refuses
from helpers.leaves import annotations_of, pointed
from PIL import Image

from mmresnest.analysis import browse_data as browsing
from mmresnest.analysis.browse_data import browse_data
from mmresnest.cli import main

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]


def delivered(monkeypatch, cfg, **more):
    """What reaches the drawing."""
    seen = {}
    monkeypatch.setattr(
        'mmresnest.visualization.contact_sheet.draw_contact_sheet',
        lambda out, *given: (
            seen.update(zip(('images', 'objects', 'labels', 'classes', 'heads', 'title'), given))
            or out
        ),
    )
    browse_data(cfg, out='a.png', **more)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize('task', ['detection', 'instance', 'panoptic', 'semantic'])
def test_a_sheet_is_drawn_the_same_each_time(shapes, tmp_path, task):
    drawn = [
        browse_data(pointed(task, shapes), out=tmp_path / f'{number}.png', number=2, seed=seed)
        for number, seed in enumerate((0, 0, 7))
    ]
    one, same, other = (hashlib.sha256(path.read_bytes()).hexdigest() for path in drawn)
    assert one == same != other
    with Image.open(drawn[0]) as image:
        assert image.format == 'PNG' and image.width > 2 * 300


def test_images_are_in_rgb_and_boxes_where_the_objects_are(shapes, monkeypatch):
    cfg = pointed('detection', shapes)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs'),
    ]
    seen = delivered(monkeypatch, cfg)
    assert len(seen['images']) == 4 and seen['heads'][0] == '000000.jpg: 64 x 64'
    plain = np.asarray(Image.open(shapes / 'train' / '000000.jpg'), int)
    assert np.abs(seen['images'][0] - plain).mean() < 3
    assert all(
        one['boxes'].max() <= 64 and not one['ignored'].any() and len(one['labels'])
        for one in seen['objects']
    )
    assert '4 of 4 images of train' in seen['title'] and seen['classes'][0] == 'disk'


def test_objects_that_no_loss_counts_are_told_apart(shapes, monkeypatch):
    cfg = pointed(
        'instance',
        shapes,
        lambda cfg: [step.update(poly2mask=False) for step in annotations_of(cfg)],
    )
    monkeypatch.setattr(browsing, 'check_annotations', lambda *_: None)
    assert all(one['ignored'].all() for one in delivered(monkeypatch, cfg)['objects'])
    seen = delivered(monkeypatch, pointed('instance', shapes))
    assert all(
        one['masks'].any((1, 2)).all() and one['masks'].shape[1:] == image.shape[:2]
        for one, image in zip(seen['objects'], seen['images'])
    )


@pytest.mark.parametrize('task', ['detection', 'instance', 'panoptic'])
def test_annotations_behind_the_resizing_are_in_the_frame_of_the_file(shapes, monkeypatch, task):
    seen = delivered(monkeypatch, pointed(task, shapes), split='val')
    for image, one, head in zip(seen['images'], seen['objects'], seen['heads']):
        assert image.shape == (64, 64, 3) and '800 x 800' in head
        assert 8 < one['boxes'].max() <= 64


def test_label_images(shapes, monkeypatch):
    seen = delivered(monkeypatch, pointed('semantic', shapes), split='val', number=1)
    assert '512 x 512' in seen['heads'][0]
    assert seen['labels'][0].shape == seen['images'][0].shape[:2]
    assert set(np.unique(seen['labels'][0])) <= {*range(7), 255}
    assert not len(seen['objects'][0]['labels'])


def test_the_command(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ['browse-data', 'faster_rcnn_resnest50_fpn', '--data', str(shapes), '--num-images', '1']
    assert main.main([*line, '--split', 'val']) == 0
    assert 'written: faster_rcnn_resnest50_fpn_val.png' in capsys.readouterr().out
    assert (tmp_path / 'faster_rcnn_resnest50_fpn_val.png').is_file()
    for more, code, *parts in (
        (['--split', 'tarin'], 'option.unknown', 'tarin', 'train, val, test'),
        (['--num-images', '0'], 'option.value', '--num-images 0'),
        (['--out', 'a.jpg'], 'option.suffix', '--out a.jpg', '.png'),
    ):
        check_refused([*line, *more], code, *parts)


@pytest.mark.parametrize(
    'change, code, parts',
    [
        (
            lambda cfg: cfg.train_dataloader.dataset.pipeline.pop(),
            'config.pipeline',
            ('PackDetInputs', 'PackSegInputs'),
        ),
        (
            lambda cfg: cfg.train_dataloader.dataset.filter_cfg.update(min_size=999),
            'data.no-images',
            ('train.json',),
        ),
    ],
)
def test_pipelines_that_cannot_be_drawn(shapes, tmp_path, change, code, parts):
    cfg = pointed('detection', shapes)
    change(cfg)
    with refuses(code, *parts):
        browse_data(cfg, out=tmp_path / 'a.png')
