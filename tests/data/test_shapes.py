"""The embedded data set: the same everywhere, true to its pictures, and never half there."""

import hashlib
import json
import os

import numpy as np
import pytest
from helpers.errors import refuses

from mmresnest.data.shapes import dataset, drawing
from mmresnest.errors import UserError

cv2 = pytest.importorskip('cv2')


@pytest.fixture(scope='module')
def many():
    return [drawing.draw_sample(3, 'val', index) for index in range(30)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('drawn') / 'shapes'
    return dataset.draw_dataset(
        root, seed=3, train=3, val=4, test=1, size=(224, 160), progress=False
    )


def listing(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def small(root, **changes):
    arguments = {
        'train': 2,
        'val': 1,
        'test': 0,
        'size': (96, 96),
        'layouts': ('coco',),
        'progress': False,
    }
    return dataset.draw_dataset(root, **{**arguments, **changes})


# --------------------------------------------------------------------------------- what is drawn


def same(one, two):
    return all(np.array_equal(left, right) for left, right in zip(one, two, strict=True))


def test_a_picture_depends_on_its_arguments_and_on_nothing_else():
    first = drawing.draw_sample(1, 'train', 5, (128, 96))
    np.random.seed(7)
    drawing.draw_sample(9, 'test', 0, (64, 64))
    assert same(first, drawing.draw_sample(1, 'train', 5, (128, 96)))
    for other in ((2, 'train', 5), (1, 'val', 5), (1, 'train', 6)):
        assert not np.array_equal(first.image, drawing.draw_sample(*other, (128, 96)).image)


def test_the_pixels_of_this_version():
    """A change of the drawing has to raise VERSION, or folders of two drawings would be mixed."""
    digest = hashlib.sha256()
    for split in dataset.SPLITS:
        for part in drawing.draw_sample(0, split, 1, (160, 128)):
            digest.update(np.ascontiguousarray(part).tobytes())
    assert (dataset.VERSION, digest.hexdigest()[:16]) == (2, '7010e27c203e204b')


def test_shapes_and_types():
    drawn = drawing.draw_sample(0, 'train', 0, (200, 120))
    count = len(drawn.labels)
    assert drawn.image.shape == (120, 200, 3) and drawn.image.dtype == np.uint8
    assert drawn.masks.shape == (count, 120, 200) and drawn.masks.dtype == bool
    assert drawn.boxes.shape == (count, 4) and count >= 1
    assert drawn.semantic.shape == (120, 200) and drawn.semantic.dtype == np.uint8


def test_truth_is_true(many):
    for drawn in many:
        assert drawn.masks.sum(0).max() == 1  # visible parts exclude each other
        semantic = np.zeros_like(drawn.semantic)
        for mask, label, (x0, y0, x1, y1) in zip(
            drawn.masks, drawn.labels, drawn.boxes, strict=True
        ):
            rows, columns = np.nonzero(mask)
            assert (x0, y0, x1, y1) == (
                columns.min(),
                rows.min(),
                columns.max() + 1,
                rows.max() + 1,
            )
            assert min(x1 - x0, y1 - y0) >= drawing.MIN_EXTENT
            semantic[mask] = label + 1
        assert np.array_equal(semantic, drawn.semantic)


def test_every_class_and_every_size_range(many):
    labels = np.concatenate([drawn.labels for drawn in many])
    areas = np.concatenate([drawn.masks.sum((1, 2)) for drawn in many])
    assert set(labels) == set(range(len(drawing.classes()))) and len(drawing.classes()) >= 5
    shares = [
        np.mean(areas < 32**2),
        np.mean((areas >= 32**2) & (areas <= 96**2)),
        np.mean(areas > 96**2),
    ]
    assert min(shares) > 0.03 and shares[1] > 0.4
    assert 4 <= len(labels) / len(many) <= 8


def test_objects_stand_out_from_what_is_around(many):
    """Seen from inside and outside its outline, an object differs clearly in colour."""
    differences = []
    for drawn in many:
        for mask in drawn.masks:
            grown = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))) > 0
            image = drawn.image.astype(float)
            differences.append(np.abs(image[mask].mean(0) - image[grown & ~mask].mean(0)).sum())
    assert np.quantile(differences, 0.05) > 40


def test_objects_overlap_in_measure(many):
    overlaps = 0
    for drawn in many:
        for number, one in enumerate(drawn.boxes):
            for two in drawn.boxes[:number]:
                iou = drawing._box_iou(tuple(one), tuple(two))
                assert iou <= drawing.MAX_BOX_IOU
                overlaps += iou > 0
    assert overlaps > len(many) / 2


@pytest.mark.parametrize(('hidden', 'kept'), [(0.1, True), (0.5, False), (1.0, False)])
def test_nothing_is_hidden_too_far(hidden, kept):
    canvas = drawing._Canvas(np.zeros((100, 100, 3), np.int16), np.zeros(3, np.int16))
    assert canvas.add_object((slice(10, 60), slice(10, 60)), np.ones((50, 50), bool))
    before = canvas.owner.copy()
    # A broad bar from the left, so that only visibility can forbid it and not the overlap of boxes.
    bar = np.ones((100, 10 + round(50 * hidden)), bool)
    assert canvas.add_object((slice(0, 100), slice(0, bar.shape[1])), bar) is kept
    if kept:
        assert canvas.visible[0] == 50 * 45 and canvas.boxes[0] == (15, 10, 60, 60)
        assert canvas.owner[30, 12] == 2
    else:
        assert np.array_equal(canvas.owner, before) and len(canvas.full) == 1


@pytest.mark.parametrize('name', drawing.CLASSES)
def test_outlines_fill_their_square_and_differ(name):
    axis = (np.arange(200) + 0.5) / 100 - 1
    u, v = np.meshgrid(axis, axis)
    masks = {other: drawing._inside_shape(other, u, v) for other in drawing.CLASSES}
    x0, y0, x1, y1 = drawing.tight_box(masks[name])
    assert min(x1 - x0, y1 - y0) >= 180
    for other, mask in masks.items():
        if other != name:
            assert (mask & masks[name]).sum() / (mask | masks[name]).sum() < 0.85


# --------------------------------------------------------------------------------- what is written


# pycocotools 2.0.11 under NumPy 2
@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
def test_coco(folder):
    coco = pytest.importorskip('pycocotools.coco')
    for split, count in (('train', 3), ('val', 4), ('test', 1)):
        data = coco.COCO(str(folder / f'{split}.json'))
        assert [each['name'] for each in data.loadCats(data.getCatIds())] == list(drawing.classes())
        assert len(data.imgs) == count
        for image in data.imgs.values():
            path = folder / split / image['file_name']
            assert (
                cv2.imread(str(path)).shape == (image['height'], image['width'], 3) == (160, 224, 3)
            )
            drawn = drawing.draw_sample(3, split, image['id'] - 1, (224, 160))
            annotations = data.loadAnns(data.getAnnIds(image['id']))
            assert len(annotations) == len(drawn.labels)
            for annotation, mask, label in zip(annotations, drawn.masks, drawn.labels, strict=True):
                decoded = data.annToMask(annotation).astype(bool)
                assert np.array_equal(decoded, mask)
                x0, y0, x1, y1 = drawing.tight_box(decoded)
                assert annotation['bbox'] == [x0, y0, x1 - x0, y1 - y0]
                assert annotation['area'] == decoded.sum() and annotation['iscrowd'] == 0
                assert annotation['category_id'] == label + 1


def test_coco_scores_its_own_truth_perfectly(folder, capsys):
    coco = pytest.importorskip('pycocotools.coco')
    from pycocotools.cocoeval import COCOeval

    truth = coco.COCO(str(folder / 'val.json'))
    said = truth.loadRes(
        [
            {**{key: each[key] for key in ('image_id', 'category_id', 'bbox')}, 'score': 0.9}
            for each in truth.anns.values()
        ]
    )
    evaluation = COCOeval(truth, said, 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_panoptic(folder):
    names = [*drawing.classes(), 'background']
    for split, count in (('train', 3), ('val', 4), ('test', 1)):
        data = json.loads((folder / f'panoptic_{split}.json').read_text())
        boxes = json.loads((folder / f'{split}.json').read_text())
        assert data['images'] == boxes['images'] and len(data['annotations']) == count
        assert [(one['id'], one['name'], one['isthing']) for one in data['categories']] == [
            (number, name, int(name != 'background')) for number, name in enumerate(names, 1)
        ]
        for image, annotation in zip(data['images'], data['annotations'], strict=True):
            assert annotation['image_id'] == image['id']
            assert annotation['file_name'] == image['file_name'].replace('.jpg', '.png')
            mask = cv2.imread(str(folder / f'panoptic_{split}' / annotation['file_name']))
            blue, green, numbers = (mask[:, :, channel] for channel in range(3))
            assert not blue.any() and not green.any()
            segments = {one['id']: one for one in annotation['segments_info']}
            # Every pixel is of exactly one segment, and every segment has pixels.
            assert set(np.unique(numbers)) == set(segments)
            assert len(segments) == len(annotation['segments_info'])
            drawn = drawing.draw_sample(3, split, image['id'] - 1, (224, 160))
            for number, one in segments.items():
                pixels = numbers == number
                x0, y0, x1, y1 = drawing.tight_box(pixels)
                assert one['area'] == pixels.sum() and one['iscrowd'] == 0
                assert one['bbox'] == [x0, y0, x1 - x0, y1 - y0]
                truth, label = ~drawn.masks.any(0), len(drawing.CLASSES)
                if number > 1:
                    truth, label = drawn.masks[number - 2], drawn.labels[number - 2]
                assert np.array_equal(pixels, truth) and one['category_id'] == label + 1


def test_a_picture_without_background(tmp_path):
    """A segment has pixels, so that a background that is hidden altogether is none."""
    mask = np.ones((1, 64, 64), bool)
    whole = drawing.Sample(
        image=np.zeros((64, 64, 3), np.uint8),
        masks=mask,
        labels=np.array([2]),
        boxes=np.array([[0, 0, 64, 64]]),
        semantic=np.full((64, 64), 3, np.uint8),
    )
    split = dataset._Split(tmp_path, 'val', ['panoptic'])
    split.add_sample(0, whole)
    assert [one['id'] for one in split.segments[0]['segments_info']] == [2]


def test_layouts_agree(folder):
    names = (folder / 'classes.txt').read_text().split()
    assert names == ['background', *drawing.classes()]
    for split, count in (('train', 3), ('val', 4), ('test', 1)):
        for index in range(count):
            drawn = drawing.draw_sample(3, split, index, (224, 160))
            city = f'shapes_{index:06d}_000000'
            masks = [
                folder / 'annotations' / split / f'{index:06d}.png',
                folder / 'gtFine' / split / 'shapes' / f'{city}_gtFine_labelTrainIds.png',
            ]
            for path in masks:
                mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                assert mask.dtype == np.uint8 and np.array_equal(mask, drawn.semantic)
            photo = folder / split / f'{index:06d}.jpg'
            assert photo.read_bytes() == (folder / 'images' / split / photo.name).read_bytes()
            exact = cv2.imread(
                str(folder / 'leftImg8bit' / split / 'shapes' / f'{city}_leftImg8bit.png')
            )
            assert np.array_equal(exact[:, :, ::-1], drawn.image)
            assert np.abs(cv2.imread(str(photo)).astype(int) - exact).mean() < 6
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_files_repeat_and_do_not_depend_on_how_many(tmp_path):
    one, two = small(tmp_path / 'one'), small(tmp_path / 'two')
    assert listing(one) == listing(two)
    more = listing(small(tmp_path / 'more', train=3, layouts=dataset.LAYOUTS))
    pictures = {name: digest for name, digest in listing(one).items() if name.endswith('.jpg')}
    assert len(pictures) == 3 and pictures.items() <= more.items()


def test_one_layout_alone(tmp_path):
    ade = small(tmp_path / 'ade', layouts='ade20k')
    assert sorted(path.name for path in ade.iterdir()) == [
        'annotations',
        'classes.txt',
        'images',
        'shapes.json',
    ]
    city = small(tmp_path / 'city', layouts=['cityscapes'])
    assert sorted(path.name for path in city.iterdir()) == [
        'classes.txt',
        'gtFine',
        'leftImg8bit',
        'shapes.json',
    ]
    assert not (ade / 'images' / 'test').exists()
    panoptic = small(tmp_path / 'panoptic', layouts='panoptic')
    assert sorted(path.name for path in panoptic.iterdir()) == [
        'panoptic_train',
        'panoptic_train.json',
        'panoptic_val',
        'panoptic_val.json',
        'shapes.json',
        'train',
        'val',
    ]


# --------------------------------------------------------------------------------- folders


def test_a_finished_folder_is_used_again(tmp_path, monkeypatch):
    root = small(tmp_path / 'set', layouts=('coco', 'ade20k'))
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    monkeypatch.setattr(dataset, 'draw_sample', None)  # drawing anything would fail
    assert small(root, layouts=('coco', 'ade20k')) == root
    assert small(str(root), layouts=('coco',)) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'seed': 1}, 'seed=0, not 1'),
        ({'train': 3}, 'train=2, not 3'),
        ({'size': (96, 100)}, 'size=[96, 96], not [96, 100]'),
        ({'layouts': ('coco', 'ade20k')}, "layouts=['coco'], not ['coco', 'ade20k']"),
        ({'layouts': 'panoptic'}, "layouts=['coco'], not ['panoptic']"),
    ],
)
def test_a_folder_of_other_parameters_is_refused(tmp_path, changes, told):
    root = small(tmp_path / 'set')
    before = listing(root)
    with refuses('shapes.folder-taken', root, told):
        small(root, **changes)
    assert listing(root) == before


def test_a_folder_of_another_version_is_refused(tmp_path, monkeypatch):
    root = small(tmp_path / 'set')
    monkeypatch.setattr(dataset, 'VERSION', dataset.VERSION + 1)
    with refuses('shapes.folder-taken', 'version'):
        small(root)


def test_foreign_content_is_refused_and_kept(tmp_path):
    (tmp_path / 'holiday.jpg').write_bytes(b'precious')
    with refuses('shapes.folder-taken', tmp_path) as caught:
        small(tmp_path)
    assert dataset.STAMP not in str(caught.value)
    (tmp_path / 'holiday.jpg').rename(tmp_path / dataset.STAMP)
    with refuses('shapes.folder-taken', tmp_path, f' {dataset.STAMP} '):
        small(tmp_path)
    assert (tmp_path / dataset.STAMP).read_bytes() == b'precious'
    with refuses('shapes.folder-taken', tmp_path / dataset.STAMP):
        small(tmp_path / dataset.STAMP)


@pytest.mark.parametrize(
    ('layout', 'lost', 'told'),
    [
        ('coco', 'train/000001.jpg', ' train holds 1 of 2'),
        ('coco', 'val.json', ' val.json'),
        ('panoptic', 'train/000001.jpg', ' train holds 1 of 2'),
        ('panoptic', 'panoptic_train/000000.png', 'panoptic_train holds 1 of 2'),
        ('panoptic', 'panoptic_val.json', ' panoptic_val.json'),
    ],
)
def test_a_folder_that_lost_files_is_refused(tmp_path, layout, lost, told):
    root = small(tmp_path / 'set', layouts=layout)
    (root / lost).unlink()
    with refuses('shapes.folder-taken', root, told):
        small(root, layouts=layout)


def test_an_empty_folder_is_filled(tmp_path):
    assert (small(tmp_path) / 'train.json').is_file()


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch, error):
    drawn = []

    def interrupted(*arguments):
        drawn.append(arguments)
        if len(drawn) == 3:
            raise error('stop')
        return sample(*arguments)

    sample = drawing.draw_sample
    monkeypatch.setattr(dataset, 'draw_sample', interrupted)
    with pytest.raises(UserError if error is OSError else error):
        small(tmp_path / 'set')
    assert len(drawn) == 3 and os.listdir(tmp_path) == []
    monkeypatch.undo()
    assert json.loads((small(tmp_path / 'set') / dataset.STAMP).read_text())['train'] == 2


def test_two_processes_may_draw_at_once(tmp_path, monkeypatch):
    """What the ranks of one run do: the slower one takes what the faster one drew."""
    fill, inside = dataset._fill_folder, []

    def slow(*arguments):
        fill(*arguments)
        if not inside:
            inside.append(True)
            small(tmp_path / 'set')

    monkeypatch.setattr(dataset, '_fill_folder', slow)
    assert small(tmp_path / 'set') == tmp_path / 'set'
    assert inside and os.listdir(tmp_path) == ['set']


@pytest.mark.parametrize(
    ('changes', 'code', 'parts'),
    [
        ({'seed': -1}, 'option.value', ('seed', -1)),
        ({'seed': 2**32}, 'option.value', ('seed', 2**32)),
        ({'seed': 1.5}, 'option.value', ('seed', 1.5)),
        ({'train': -2}, 'option.value', ('train', -2)),
        ({'val': True}, 'option.value', ('val', True)),
        ({'train': 0, 'val': 0}, 'option.value', ('train', 'val', 'test', 0)),
        ({'size': 96}, 'option.value', ('size', '(width, height)', 96)),
        ({'size': (96,)}, 'option.value', ('size', '(width, height)', '(96,)')),
        ({'size': (8, 96)}, 'option.value', ('size', 64, 2048, '8 x 96')),
        ({'size': (96, 99999)}, 'option.value', ('size', 64, 2048, '96 x 99999')),
        ({'layouts': ('voc',)}, 'option.unknown', ("'voc'", 'legal: coco')),
        ({'layouts': 'cocoa'}, 'option.unknown', ("'cocoa'", 'nearest: coco')),
        ({'layouts': ()}, 'option.value', ('layouts', 'legal: coco')),
    ],
)
def test_bad_arguments_are_told(tmp_path, changes, code, parts):
    with refuses(code, *parts):
        small(tmp_path / 'set', **changes)
    assert os.listdir(tmp_path) == []


def test_an_unknown_split_is_told():
    with refuses('option.unknown', 'nearest: val'):
        drawing.draw_sample(0, 'vall', 0)
