"""Folders of other tools are recognized, and read for what they are."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from helpers.errors import refuses
from helpers.folders import CLASSES, KINDS, make_truth
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmresnest.data.folder import read_folder
from mmresnest.data.formats.split import Division, choose_images
from mmresnest.data.formats.table import FORMATS
from mmresnest.data.request import DataRequest

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mmresnest'


def list_files(root):
    """Map each file of a folder to its bytes and time."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def read_tables(folder):
    """Return the table of each split, and check that each image is there in the size it says."""
    tables = {}
    for name, split in folder.splits.items():
        table = json.loads((folder.root / split.annotations).read_text())
        for row in table['images']:
            with Image.open(folder.root / split.images / row['file_name']) as image:
                assert image.size == (row['width'], row['height'])
        tables[name] = table
    return tables


def list_objects(table, masks=False):
    """Return image stem -> its objects: class, box and polygon."""
    names = {row['id']: row['name'] for row in table['categories']}
    images = {row['id']: Path(row['file_name'].replace('\\', '/')).stem for row in table['images']}
    found = {stem.rpartition('-')[2]: [] for stem in images.values()}
    for row in table['annotations']:
        what = (names[row['category_id']], tuple(row['bbox']))
        if masks:
            (polygon,) = row['segmentation']
            what += (tuple(polygon),)
        found[images[row['image_id']].rpartition('-')[2]].append(what)
    return {stem: sorted(rows) for stem, rows in found.items()}


def list_truth(kind, split):
    return {
        shot.name: sorted(tuple(mark)[: 3 if kind.polygons else 2] for mark in shot.marks)
        for shot in make_truth()[split]
        if shot.marks or kind.negatives
    }


@pytest.mark.parametrize('name', KINDS)
def test_a_folder_is_read_for_what_it_is(name, tmp_path):
    kind, root = KINDS[name], tmp_path / 'set'
    kind.make(root)
    before = list_files(root)
    division = Division(0.4) if len(kind.splits) == 1 else None
    folder = read_folder(DataRequest(root, division=division), 'coco')
    tables = read_tables(folder)
    assert folder.format == (FORMATS[kind.format].title if kind.format else '')
    assert sorted(folder.classes) == sorted(CLASSES)
    assert folder.has_masks == kind.polygons
    if division is None:
        assert set(tables) == set(kind.splits)
        for split, table in tables.items():
            assert list_objects(table, kind.polygons) == list_truth(kind, split)
    else:
        both = {split: list_objects(table, kind.polygons) for split, table in tables.items()}
        assert {**both['train'], **both['val']} == list_truth(kind, 'train')
        assert (len(both['train']), len(both['val'])) == (3, 2)
    assert list_files(root) == before, 'the original is never touched'
    assert read_folder(DataRequest(root, division=division), 'coco') == folder


@pytest.mark.parametrize('name', [name for name, kind in KINDS.items() if len(kind.splits) == 1])
def test_without_a_validation_part_the_message_names_the_option(name, tmp_path):
    KINDS[name].make(tmp_path / 'set')
    with refuses('data.no-split', '--split 0.2', tmp_path / 'set'):
        read_folder(tmp_path / 'set', 'coco')


@pytest.mark.parametrize('name', KINDS)
def test_annotations_as_predictions_score_one(name, tmp_path):
    kind = KINDS[name]
    kind.make(tmp_path / 'set')
    division = Division(0.4) if len(kind.splits) == 1 else None
    folder = read_folder(DataRequest(tmp_path / 'set', division=division), 'coco')
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder.root / folder.split('val').annotations))
        rows = [{**row, 'score': 1.0} for row in truth.dataset['annotations']]
        for number, row in enumerate(truth.dataset['annotations'], start=1):
            row['id'] = number  # pycocotools takes 0 for no match
        truth.createIndex()
        for metric in ('bbox', 'segm') if kind.polygons else ('bbox',):
            scores = COCOeval(truth, truth.loadRes(rows), metric)
            scores.evaluate()
            scores.accumulate()
            scores.summarize()
            assert scores.stats[0] == pytest.approx(1, abs=1e-9)


def test_a_division_has_all_classes_and_keeps_duplicates_together(tmp_path):
    """Ten copies of an image are one; the share of each class is that of the images."""
    paths, contents = [], []
    for number in range(60):
        path = tmp_path / f'{number:02}.jpg'
        path.write_bytes(b'same' if number < 10 else str(number).encode())
        paths.append(path)
        contents.append({'often': 3, **({'rare': 1} if number % 12 == 11 else {})})
    chosen = choose_images(paths, contents, Division(0.2))
    assert len({number < 10 for number in chosen if number < 10}) == 0 or set(range(10)) <= set(
        chosen
    )
    assert 10 <= len(chosen) <= 20
    assert 1 <= sum('rare' in contents[at] for at in chosen) <= 4
    assert choose_images(paths, contents, Division(0.2)) == chosen
    assert choose_images(paths, contents, Division(0.2, seed=1)) != chosen
