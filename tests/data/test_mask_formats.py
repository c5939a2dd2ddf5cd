"""Folders of masks of other tools are recognized, and read for what they are."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import refuses
from helpers.folders import CLASSES, KINDS, make_truth, write_text
from helpers.mask_folders import COLORS, MASK_KINDS, NAMES, draw_truth, paint, save_mask
from PIL import Image

from mmresnest.data.folder import read_folder
from mmresnest.data.formats.split import Division
from mmresnest.data.formats.table import FORMATS
from mmresnest.data.mask_mapping import MaskMapping
from mmresnest.data.request import DataRequest
from mmresnest.errors import UserError

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
        stem = image.stem.removesuffix('_leftImg8bit')
        shot = truth.pop(re.sub('^img_|_image$|_sat$', '', stem))
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


def rename_folders(images: str, masks: str, tail: str = '') -> Callable[[Path], None]:
    """Return what calls the folders of the splits otherwise, and has a tail in names of masks."""

    def change(root: Path) -> None:
        for split in ('train', 'val'):
            for path in (root / split / 'masks').iterdir():
                path.rename(path.with_stem(path.stem + tail))
            (root / split).rename(root / f'{split}.old')
            for old, new in (('images', images), ('masks', masks)):
                place = root / new.format(split=split)
                place.parent.mkdir(exist_ok=True)
                (root / f'{split}.old' / old).rename(place)

    return change


def rename_files(image: str, mask: str) -> Callable[[Path], None]:
    """Return what gives images and masks names of their own."""

    def change(root: Path) -> None:
        for form, folder in ((image, 'images'), (mask, 'masks')):
            for path in root.rglob(f'{folder}/*.png'):
                path.rename(path.with_stem(form.format(path.stem)))

    return change


def put_beside(root: Path) -> None:
    """Have images and masks in one folder, as DeepGlobe has."""
    rename_files('{}_sat', '{}_mask')(root)
    for path in root.rglob('*/*/*.png'):
        path.rename(path.parents[1] / path.name)


def write_roboflow_list(root: Path) -> None:
    (root / 'classes.txt').unlink()
    lines = [f'{at}, {name}' for at, name in enumerate(NAMES)]
    for split in ('train', 'val'):
        write_text(root / split / '_classes.csv', '\n'.join(['Pixel Value, Class', *lines]))


def write_color_list(root: Path) -> None:
    """Have masks in colors, and ``class_dict.csv``."""
    (root / 'classes.txt').unlink()
    for path in root.rglob('masks/*.png'):
        save_mask(path, paint(np.asarray(Image.open(path))))
    lines = [f'{name},{",".join(map(str, color))}' for name, color in zip(NAMES, COLORS)]
    lines.append('ignore,255,255,255')
    write_text(root / 'class_dict.csv', '\n'.join(['name,r,g,b', *lines]) + '\n')


def write_camvid(root: Path) -> None:
    """Have CVAT's CamVid: ``Train``, ``Trainannot`` and a list of colors before names."""
    write_color_list(root)
    rename_folders('{split}.images', '{split}.imagesannot')(root)
    for split in ('train', 'val'):
        (root / f'{split}.images').rename(root / split.capitalize())
        (root / f'{split}.imagesannot').rename(root / f'{split.capitalize()}annot')
    lines = (root / 'class_dict.csv').read_text().splitlines()[1:]
    (root / 'class_dict.csv').unlink()
    rows = [line.split(',') for line in lines]
    write_text(root / 'label_colors.txt', '\n'.join(' '.join([*row[1:], row[0]]) for row in rows))


def add_dummy_test(root: Path) -> None:
    """Add the test split of Cityscapes, whose masks hold no class."""
    for folder, tail in (('leftImg8bit', 'leftImg8bit'), ('gtFine', 'gtFine_labelIds')):
        pixels = np.full((64, 48), 3, np.uint8)
        save_mask(root / folder / 'test' / 'berlin' / f'berlin_0_{tail}.png', pixels)


ODD_MASKS = {
    'capitals': ('mask-folders', rename_folders('{split}/Images', '{split}/Masks')),
    'siblings': ('mask-folders', rename_folders('{split}', '{split}_masks', '_mask')),
    'siblings-of-images': ('mask-folders', rename_folders('{split}_images', '{split}_masks')),
    'camvid': ('mask-folders', rename_folders('{split}', '{split}annot')),
    'camvid-of-kaggle': ('mask-folders', rename_folders('{split}', '{split}_labels', '_L')),
    'ground-truth': ('mask-folders', rename_folders('{split}/image', '{split}/ground_truth')),
    'words-before': ('mask-folders', rename_files('img_{}', 'mask_{}')),
    'words-behind': ('mask-folders', rename_files('{}_image', '{}_label')),
    'words-beside': ('mask-folders', put_beside),
    'roboflow-list': ('mask-folders', write_roboflow_list),
    'color-list': ('mask-folders', write_color_list),
    'camvid-of-cvat': ('mask-folders', write_camvid),
    'label-train-ids': ('mask-folders', rename_files('{}', '{}_labelTrainIds')),
    'labelme2voc-list': (
        'voc-masks',
        lambda root: (root / 'classes.txt').rename(root / 'class_names.txt'),
    ),
    'cityscapes-test': ('cityscapes-ids', add_dummy_test),
}


@pytest.mark.parametrize('name', ODD_MASKS)
def test_what_has_one_meaning_is_read(name, tmp_path):
    kind, change = ODD_MASKS[name]
    MASK_KINDS[kind].make(tmp_path)
    change(tmp_path)
    folder = read_folder(tmp_path, 'ade20k')
    assert folder.classes == MASK_KINDS[kind].names
    pairs = list_pairs(folder)
    assert list(pairs) == ['train', 'val']
    for split, some in pairs.items():
        check_masks(some, make_truth()[split], MASK_KINDS[kind].change)


@pytest.mark.parametrize('names', [(), NAMES, tuple(f'name {at}' for at in range(200))])
def test_gray_levels_of_rare_objects_are_no_classes(names, tmp_path):
    """Four values far apart, one of them rare; they are where a list has a name for each."""
    levels = np.arange(256)
    levels[:4] = 0, 60, 120, 180
    MASK_KINDS['mask-folders'].make(tmp_path)
    for path in tmp_path.rglob('masks/*.png'):
        pixels = np.asarray(Image.open(path)) % 255
        save_mask(path, levels[pixels].astype(np.uint8))
    (tmp_path / 'classes.txt').unlink()
    if names:
        write_text(tmp_path / 'classes.txt', '\n'.join(names))
    if len(names) == 200:
        assert read_folder(tmp_path, 'ade20k').classes == names
        return
    with refuses('data.label-pattern', '0=', '60=', '120=', '180='):
        read_folder(tmp_path, 'ade20k')


@pytest.mark.parametrize('mixed', [False, True])
def test_two_values_beside_a_list_of_two_classes_are_refused(mixed, tmp_path):
    """255 is ignored: a model would learn the background alone."""
    MASK_KINDS['mask-two-values'].make(tmp_path)
    if mixed:  # suffixes, so that masks are written anew
        path = tmp_path / 'images' / 'train_0.jpg'
        path.rename(path.with_suffix('.png'))
    write_text(tmp_path / 'classes.txt', 'ground\nthing\n')
    with refuses('data.label-pattern', '--mask-values 0=ground,255=thing'):
        read_folder(DataRequest(tmp_path, division=Division(0.4)), 'ade20k')


def test_a_value_beyond_the_classes_is_refused(tmp_path):
    MASK_KINDS['mask-mixed-suffixes'].make(tmp_path)
    write_text(tmp_path / 'classes.txt', '\n'.join(NAMES[:3]))
    with refuses('data.label-value', '3 classes', 'train_2', 'label 3'):
        read_folder(DataRequest(tmp_path, division=Division(0.4)), 'ade20k')


def test_lists_of_classes_that_contradict_are_refused(tmp_path):
    MASK_KINDS['mask-folders'].make(tmp_path)
    write_roboflow_list(tmp_path)
    path = tmp_path / 'val' / '_classes.csv'
    text = path.read_text()
    write_text(path, text.replace('disk', 'other'))
    with refuses('data.ambiguous', path, 'train/_classes.csv', 'classes.txt'):
        read_folder(tmp_path, 'ade20k')
    write_text(path, text.replace('1, disk', '7, disk'))
    with refuses('data.label-line', path):
        read_folder(tmp_path, 'ade20k')


def test_two_folders_of_a_split_are_refused(tmp_path):
    """None of them is left out without a word."""
    MASK_KINDS['mask-folders'].make(tmp_path)
    (tmp_path / 'train').rename(tmp_path / 'train_1')
    shutil.copytree(tmp_path / 'train_1', tmp_path / 'train_2')
    with refuses('data.ambiguous', 'train_1', 'train_2'):
        read_folder(tmp_path, 'ade20k')


def test_several_masks_of_an_image_are_refused(tmp_path):
    MASK_KINDS['mask-beside'].make(tmp_path)
    more = tmp_path / 'train_0_mask_1.png'
    more.write_bytes((tmp_path / 'train_0_mask.png').read_bytes())
    with refuses('data.ambiguous', more):
        read_folder(DataRequest(tmp_path, division=Division(0.4)), 'ade20k')


def test_folders_of_masks_under_other_names_are_no_classes(tmp_path):
    MASK_KINDS['mask-folders'].make(tmp_path)
    rename_folders('{split}/images', '{split}/1st_manual')(tmp_path)
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path, 'ade20k')
    assert 'classification' not in str(caught.value)


def test_masks_as_jpeg_are_named(tmp_path):
    root = tmp_path / 'set'
    MASK_KINDS['mask-folders'].make(root)
    for mask in sorted(root.rglob('masks/*.png')):
        Image.open(mask).save(mask.with_suffix('.jpg'))
        mask.unlink()
    with refuses('data.no-annotations', root, 'masks/train_0.jpg', 'JPEG', 'PNG'):
        read_folder(root, 'ade20k')
