"""What is written in another format is read as the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import refuses
from helpers.folders import KINDS, coco_table, draw_image, make_truth, write_json
from helpers.mask_folders import MASK_KINDS
from PIL import Image

from mmresnest.cli.main import main
from mmresnest.data.folder import convert_folder, read_folder
from mmresnest.data.request import DataRequest

pytestmark = pytest.mark.once
BCCD = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'bccd'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def list_content(folder):
    """Return for each split the images and their objects, by name."""
    found = {}
    for name, split in folder.splits.items():
        table = json.loads((folder.root / split.annotations).read_text())
        classes = {row['id']: row['name'] for row in table['categories']}
        images = {row['id']: row for row in table['images']}
        objects = {Path(row['file_name']).name: [] for row in images.values()}
        for row in table['annotations']:
            image = images[row['image_id']]
            what = (classes[row['category_id']], row['bbox'], row.get('segmentation'))
            objects[Path(image['file_name']).name].append(what)
        sizes = sorted(
            (Path(row['file_name']).name, row['width'], row['height']) for row in images.values()
        )
        found[name] = (sizes, objects)
    return found


@pytest.mark.parametrize('format', ['coco', 'yolo', 'voc'])
@pytest.mark.parametrize('name', ['coco-roboflow', 'voc', 'yolo-polygons'])
def test_objects_come_back(name, format, tmp_path):
    KINDS[name].make(tmp_path / 'set')
    read, written = convert_folder(DataRequest(tmp_path / 'set'), tmp_path / 'out', format)
    assert read.classes == written.classes
    ours, theirs = list_content(read), list_content(written)
    if format == 'voc':  # holds boxes alone
        for _, objects in (*ours.values(), *theirs.values()):
            for image, rows in objects.items():
                objects[image] = [row[:2] for row in rows]
    assert ours == theirs
    with refuses('option.exists', tmp_path / 'out'):
        convert_folder(DataRequest(tmp_path / 'set'), tmp_path / 'out', format)


@pytest.mark.parametrize('name', ['mmseg', 'mask-folders', 'yolo-polygons'])
def test_masks_come_back(name, tmp_path):
    {**KINDS, **MASK_KINDS}[name].make(tmp_path / 'set')
    arguments = ['convert-data', str(tmp_path / 'set'), str(tmp_path / 'out'), '--format', 'ade20k']
    assert main(arguments) == 0
    ours = read_folder(tmp_path / 'set', 'ade20k')
    theirs = read_folder(tmp_path / 'out', 'ade20k')
    assert theirs.classes == ours.classes and theirs.counts == ours.counts
    for split in ours.splits.values():
        for stem in Path(split.listing).read_text().splitlines():
            mask = ours.root / split.annotations / (stem + ours.seg_map_suffix)
            other = tmp_path / 'out' / 'annotations' / split.name / Path(stem).with_suffix('.png')
            assert (np.asarray(Image.open(mask)) == np.asarray(Image.open(other))).all()


@pytest.mark.skipif(not BCCD.is_dir(), reason='the shared data sets are not beside the clone')
@pytest.mark.parametrize('format', ['yolo', 'voc'])
def test_real_cells_come_back_to_the_last_digit(format, tmp_path):
    read, written = convert_folder(DataRequest(BCCD), tmp_path / 'cells', format)
    assert written.classes == read.classes == ('RBC', 'WBC', 'Platelets')
    assert list_content(written) == list_content(read)


@pytest.mark.parametrize('format', ['coco', 'yolo', 'voc'])
def test_names_that_joined_with_their_folders_are_the_same(format, tmp_path):
    """``a_b/c`` and ``a/b_c``: no link is written through, into an image that is read."""
    shots = make_truth(['train'])['train']
    images = {
        tmp_path / 'set' / split / name: shot._replace(name=f'{split}{shot.name}')
        for split in ('train', 'val')
        for name, shot in zip(('a_b/c.jpg', 'a/b_c.jpg', 'a/c.jpg'), shots[1:])
    }
    for split in ('train', 'val'):
        table = coco_table(shots[1:4])
        for row, name in zip(table['images'], ('a_b/c.jpg', 'a/b_c.jpg', 'a/c.jpg')):
            row['file_name'] = name
        write_json(tmp_path / 'set' / f'{split}.json', table)
    for path, shot in images.items():
        draw_image(path, shot)
    before = {path: path.read_bytes() for path in images}
    _, written = convert_folder(DataRequest(tmp_path / 'set'), tmp_path / 'out', format)
    assert {path: path.read_bytes() for path in images} == before
    for split in ('train', 'val'):
        part = written.split(split)
        rows = json.loads((written.root / part.annotations).read_text())['images']
        linked = {(written.root / part.images / row['file_name']).resolve() for row in rows}
        assert linked == {path for path in images if path.parts[-3] == split}


def test_an_image_of_two_splits_in_one_folder_is_refused(tmp_path):
    KINDS['yolo'].make(tmp_path / 'set')
    settings = tmp_path / 'set' / 'data.yaml'
    settings.write_text(settings.read_text().replace('images/val', 'images/train'))
    with refuses('data.not-exact', 'train_0.jpg', '2 times'):
        convert_folder(DataRequest(tmp_path / 'set'), tmp_path / 'out', 'voc')
    assert not (tmp_path / 'out').exists()
    convert_folder(DataRequest(tmp_path / 'set'), tmp_path / 'out', 'coco')
