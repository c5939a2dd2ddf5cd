"""Folders of masks of other tools are recognized, and read for what they are."""

from pathlib import Path

import numpy as np
import pytest
from helpers.errors import refuses
from helpers.folders import CLASSES, KINDS, make_truth
from helpers.mask_folders import MASK_KINDS, draw_truth
from PIL import Image

from mmresnest.data.folder import read_folder
from mmresnest.data.formats.split import Division
from mmresnest.data.formats.table import FORMATS
from mmresnest.data.mask_mapping import MaskMapping
from mmresnest.data.request import DataRequest

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mmresnest'


def list_pairs(folder):
    """Return for each split image -> mask as BaseSegDataset finds them."""
    pairs = {}
    for name, split in folder.splits.items():
        stems = Path(split.listing).read_text().splitlines()
        images, masks = folder.root / split.images, folder.root / split.annotations
        pairs[name] = {
            images / (stem + folder.img_suffix): masks / (stem + folder.seg_map_suffix)
            for stem in stems
        }
        assert len(pairs[name]) == split.image_count
    return pairs


def check_masks(pairs, shots, change=np.asarray):
    """Check that each mask is that of its image, in every pixel."""
    truth = {shot.name: shot for shot in shots}
    for image, mask in pairs.items():
        assert image.is_file()
        shot = truth.pop(image.stem.removesuffix('_leftImg8bit'))
        assert (np.asarray(Image.open(mask)) == change(draw_truth(shot))).all(), mask
    assert not truth


@pytest.mark.parametrize('name', MASK_KINDS)
def test_a_folder_is_read_for_what_it_is(name, tmp_path):
    kind, root = MASK_KINDS[name], tmp_path / 'set'
    kind.make(root)
    before = {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}
    asked = DataRequest(
        root,
        kind.mapping and MaskMapping.parse(kind.mapping),
        division=Division(0.4) if len(kind.splits) == 1 else None,
    )
    folder = read_folder(asked, 'ade20k')
    assert folder.format == FORMATS[kind.format].title
    assert folder.classes == kind.names
    pairs = list_pairs(folder)
    if asked.division:
        assert {split: len(some) for split, some in pairs.items()} == dict(train=3, val=2)
        check_masks({**pairs['train'], **pairs['val']}, make_truth()['train'], kind.change)
    else:
        assert set(pairs) == set(kind.splits)
        for split, some in pairs.items():
            check_masks(some, make_truth()[split], kind.change)
    assert {path: path.read_bytes() for path in root.rglob('*') if path.is_file()} == before
    assert read_folder(asked, 'ade20k') == folder


@pytest.mark.parametrize('name', [name for name, kind in MASK_KINDS.items() if kind.mapping])
def test_masks_of_values_are_refused_with_the_mapping_to_write(name, tmp_path):
    MASK_KINDS[name].make(tmp_path / 'set')
    division = Division(0.4) if len(MASK_KINDS[name].splits) == 1 else None
    code = 'data.label-pattern' if 'values' in name else 'data.label-colours'
    with refuses(code, '--mask-values'):
        read_folder(DataRequest(tmp_path / 'set', division=division), 'ade20k')


@pytest.mark.parametrize('name', ['coco-roboflow', 'yolo-polygons', 'coco-published'])
def test_instance_masks_serve_a_segmentor(name, tmp_path):
    KINDS[name].make(tmp_path / 'set')
    folder = read_folder(tmp_path / 'set', 'ade20k')
    assert folder.classes == ('background', *CLASSES)
    for split, pairs in list_pairs(folder).items():
        shots = {shot.name: shot for shot in make_truth()[split]}
        for image, path in pairs.items():
            mask = np.asarray(Image.open(path))
            shot = shots[image.stem]
            assert mask.shape == shot.size[::-1]
            assert set(np.unique(mask)) - {0} == {1 + CLASSES.index(one.name) for one in shot.marks}
            for mark in shot.marks[::2]:  # whose polygon is the box
                x, y, w, h = mark.box
                inside = mask[y : y + h, x : x + w] == 1 + CLASSES.index(mark.name)
                assert inside.all()


def test_boxes_do_not_serve_a_segmentor(tmp_path):
    KINDS['voc'].make(tmp_path / 'set')
    with refuses('data.no-masks', 'segmentation'):
        read_folder(tmp_path / 'set', 'ade20k')


@pytest.mark.parametrize('name', ['mmseg', 'mask-folders'])
def test_masks_of_classes_do_not_serve_a_detector(name, tmp_path):
    MASK_KINDS[name].make(tmp_path / 'set')
    with refuses('data.no-annotations', 'segmentor'):
        read_folder(tmp_path / 'set', 'coco')


@pytest.mark.parametrize(
    ('name', 'folder'),
    [('mask-folders', 'images'), ('voc-masks', 'JPEGImages'), ('cityscapes', 'leftImg8bit')],
)
def test_two_images_of_one_name_are_refused(name, folder, tmp_path):
    root = tmp_path / 'set'
    MASK_KINDS[name].make(root)
    image = next(path for path in sorted(root.rglob('train_0*')) if folder in path.parts)
    twin = image.with_suffix('.bmp')
    twin.write_bytes(image.read_bytes())
    with refuses('data.ambiguous', image, twin):
        read_folder(root, 'ade20k')
    twin.unlink()
    read_folder(root, 'ade20k')


def test_a_second_mask_of_an_image_is_refused(tmp_path):
    root = tmp_path / 'set'
    MASK_KINDS['mask-folders'].make(root)
    mask = sorted(root.rglob('masks/train_0.png'))[0]
    twin = mask.with_suffix('.bmp')
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(twin)
    with refuses('data.ambiguous', mask, twin):
        read_folder(root, 'ade20k')


def test_masks_as_jpeg_are_named(tmp_path):
    root = tmp_path / 'set'
    MASK_KINDS['mask-folders'].make(root)
    for mask in sorted(root.rglob('masks/*.png')):
        Image.open(mask).save(mask.with_suffix('.jpg'))
        mask.unlink()
    with refuses('data.no-annotations', root, 'masks/train_0.jpg', 'JPEG', 'PNG'):
        read_folder(root, 'ade20k')
