"""Prediction: the results of a test, whatever the batch, the file or the form of the image."""

import json
import pickle
import subprocess
import sys
import tracemalloc
import types
import zlib
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.errors import check_error, check_refused, refuses, run_refused
from helpers.tiny import save_random
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO

import mmresnest
from mmresnest import Predictor
from mmresnest.cli.main import main
from mmresnest.config import load as configs_load
from mmresnest.config import retarget as configs_retarget
from mmresnest.config.demo import shrink_config
from mmresnest.engine.test import test as score
from mmresnest.inference import base, checkpoint_config, inputs, results, videos, writer
from mmresnest.inference.images import BadImage, read_image, to_rgb_array
from mmresnest.inference.predict import predict
from mmresnest.inference.results import Detections, PanopticSegmentation, Segment, Segmentation
from mmresnest.utils.boxes import class_name
from mmresnest.utils.console import ProgressLines, show_progress
from mmresnest.visualization.annotate import annotate_regions

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [
    pytest.mark.filterwarnings('ignore'),
    pytest.mark.usefixtures('unformatted', 'fresh_logger'),
]

KINDS = ('detection', 'instance', 'panoptic', 'semantic')
SHAPES = ('disk', 'ring', 'square', 'triangle', 'star', 'cross')

# With random weights nothing is certain, and mmdet fuses what is certain only.
SEEN = {
    'panoptic': {
        'model.test_cfg.rcnn.score_thr': 0.05,
        'model.test_cfg.panoptic.stuff_area_limit': 10,
    }
}


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Config and checkpoint of a kind, made once."""
    folder, made = tmp_path_factory.mktemp('models'), {}

    def make(kind):
        if kind not in made:
            path = tiny.write(folder, kind)
            cfg = configs_load.load_config(path)
            configs_retarget.use_data(cfg, shapes)
            made[kind] = str(path), save_random(cfg, folder / f'{kind}.pth')
        return made[kind]

    return make


@pytest.fixture(scope='module')
def ready(trained):
    """A predictor of a kind that sees something, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = Predictor(*trained(kind), 'cpu', 0.0, options=SEEN.get(kind))
        return made[kind]

    return make


@pytest.fixture
def detector(trained, ready, monkeypatch):
    """Config and checkpoint of a model that is not built again."""
    monkeypatch.setattr(
        'mmresnest.inference.predictor.Predictor', lambda *_, **more: ready('detection')
    )
    return trained('detection')


@pytest.fixture
def pictures(shapes):
    return sorted(shapes.glob('test/*.jpg')) + sorted(shapes.glob('val/*.jpg'))


def as_arrays(result):
    """What a result says, for comparison."""
    if isinstance(result, Detections):
        masks = np.zeros(0) if result.masks is None else result.masks
        return dict(boxes=result.boxes, scores=result.scores, labels=result.labels, masks=masks)
    if isinstance(result, Segmentation):
        return dict(labels=result.labels)
    return dict(ids=result.ids, labels=result.labels)


def assert_close(one, two):
    """Equal but for rounding: a mask's edge may turn at a pixel or two."""
    for name, array in as_arrays(one).items():
        other = as_arrays(two)[name]
        assert array.shape == other.shape, name
        if array.dtype.kind == 'f':
            np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-4, err_msg=name)
        else:
            assert (array != other).mean() <= 1e-3 if array.size else True, name


# ---- the results ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_results_are_those_of_a_test(trained, ready, shapes, tmp_path, kind):
    config, checkpoint = trained(kind)
    score(
        config,
        checkpoint,
        data=shapes,
        work_dir=tmp_path,
        out=tmp_path / 'all.pkl',
        cfg_options=SEEN.get(kind),
    )
    tested = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    found = ready(kind)([shapes / 'test' / Path(one['img_path']).name for one in tested])
    for one, mine in zip(tested, found, strict=True):
        assert_close(theirs(one, mine), mine)
        assert kind in ('semantic', 'panoptic') or len(mine) == 5


def theirs(sample, like):
    """A result of a test in our terms."""
    if isinstance(like, Segmentation):
        return Segmentation(sample['pred_sem_seg']['data'][0].numpy(), like.names, like.size)
    if isinstance(like, PanopticSegmentation):
        # mmdet's metric has by then set what says nothing to 0.
        coded = sample['pred_panoptic_seg']['sem_seg'][0].numpy()
        codes = [code for code in np.unique(coded) if code]
        assert {code % 1000 for code in codes} == {one.label for one in like.segments}
        ids = sum(number * (coded == code) for number, code in enumerate(codes, 1))
        return PanopticSegmentation(ids, like.segments, like.names, like.size)
    found = sample['pred_instances']
    masks = None
    if 'masks' in found:
        masks = np.stack([mask.decode(one) for one in found['masks']]).astype(bool)
    return Detections(
        found['bboxes'].numpy(),
        found['scores'].numpy(),
        found['labels'].numpy(),
        like.names,
        masks,
        like.size,
    ).filter_by_score(0)


@pytest.mark.parametrize('kind', KINDS)
def test_results_do_not_depend_on_the_batch(ready, pictures, kind):
    images = [to_rgb_array(path) for path in pictures[:3]]
    images.insert(1, images[0][:48])  # of another size, amid the others
    alone = ready(kind)(images)
    together = ready(kind)(images, batch_size=3)
    again = ready(kind)(images, batch_size=3)
    for one, two, three, image in zip(alone, together, again, images, strict=True):
        assert one.size == two.size == image.shape[:2]
        assert_close(one, two)
        if isinstance(one, Detections):
            np.testing.assert_allclose(one.scores, two.scores, rtol=0, atol=1e-6)
        for name, array in as_arrays(two).items():
            assert np.array_equal(array, as_arrays(three)[name]), 'the same to the bit, twice'


@pytest.mark.parametrize('kind', ['instance', 'semantic'])
def test_fused_or_not(trained, ready, pictures, kind):
    plain = Predictor(*trained(kind), 'cpu', 0.0, fused=False)
    assert ready(kind).fused and not plain.fused
    for one, two in zip(plain(pictures[:2]), ready(kind)(pictures[:2]), strict=True):
        assert_close(one, two)


def test_score_threshold(trained, ready, pictures):
    every = ready('detection')(pictures[0])
    middle = float(every.scores[2])
    some = Predictor(*trained('detection'), score_thr=middle, fused=True)(pictures[0])
    assert len(every) == 5 and 0 < len(some) < 5 and some.scores.min() >= middle
    assert (np.diff(every.scores) <= 0).all()
    with refuses('option.value', '0 to 1'):
        Predictor(*trained('detection'), score_thr=2)


def test_many_sizes_wait_for_others_and_not_for_ever(ready, monkeypatch):
    """No more is held than told, and images of one size come in their order."""
    seen, asked = [], ready('detection')
    monkeypatch.setattr(asked, 'predict_batch', lambda samples: [None] * len(samples))

    def images():
        for number in range(60):
            seen.append(number)
            yield number, np.zeros((32 + number % 20, 64, 3), np.uint8)

    stream = asked.stream(images(), 2)
    assert next(stream)[0] == 0 and len(seen) == 2 * base.MAX_WAITING_BATCHES
    order = [0, *(number for number, _ in stream)]
    assert sorted(order) == list(range(60))
    assert all(order.index(one) < order.index(one + 20) for one in range(40))
    with refuses('option.value', 'batch size 0'):
        list(asked.stream([], 0))


def test_an_image_that_cannot_be_scaled(ready, tmp_path):
    thin, told = np.zeros((1, 9000, 3), np.uint8), []
    with refuses('image.too-narrow', '9000 x 1') as refused:
        ready('detection')(thin)
    assert refused.type is BadImage
    images = enumerate([thin, np.zeros((9, 9, 3), np.uint8)])
    found = list(ready('detection').stream(images, 1, lambda *bad: told.append(bad)))
    assert [key for key, _ in found] == [1] and told[0][0] == 0


# ---- classes and checkpoints ---------------------------------------------------------------------


def test_classes_are_those_of_the_checkpoint(trained, shapes, ready):
    assert ready('detection').names == SHAPES  # without --data: the config is for COCO's
    assert ready('semantic').names == ('background', *SHAPES)
    assert ready('panoptic').names == (*SHAPES, 'background')
    config, checkpoint = trained('detection')
    assert ready('panoptic').num_things == 6
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_config, 'print_log', lambda line, *more: told.append(line))
        content = torch.load(checkpoint)
        content['meta'] = {}
        torch.save(content, checkpoint + '.bare')
        assert Predictor(config, checkpoint + '.bare', data=shapes).names == SHAPES
        content['meta'] = dict(CLASSES=[f'our {name}' for name in SHAPES])  # as mmdet 2 did
        torch.save(content, checkpoint + '.old')
        assert Predictor(config, checkpoint + '.old', data=shapes).names[0] == 'our disk'
    assert any('does not name its classes' in line for line in told)
    assert any('trained on our disk' in line for line in told)
    with refuses('checkpoint.other-shapes', '--data'):
        Predictor(config, checkpoint + '.bare')  # 80 classes, and six in the file


def test_a_checkpoint_of_the_demo(trained, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = trained('instance')[0]
    cfg = configs_load.load_config(config)
    configs_retarget.use_data(cfg, shapes)
    shrink_config(cfg)
    checkpoint = save_random(cfg, tmp_path / 'a.pth')
    found = Predictor(config, checkpoint, score_thr=0, demo=True)(np.zeros((40, 60, 3), np.uint8))
    assert found.masks.shape == (5, 40, 60) and found.names == SHAPES
    assert not Path('data').exists(), 'no data are drawn for it'
    with refuses('checkpoint.other-shapes'):
        Predictor(config, checkpoint)


@pytest.mark.parametrize(
    'text, part',
    [
        ("first = dict(type='LoadMultiChannelImageFromFiles')", 'LoadMultiChannelImageFromFiles'),
        (
            "first = dict(type='LoadImageFromFile', color_type='unchanged')",
            "color_type='unchanged'",
        ),
        ("first = dict(type='Resize', scale=(64, 64))", 'Resize, PackDetInputs'),
    ],
)
def test_pipelines_that_load_something_else(trained, tmp_path, text, part):
    config, checkpoint = trained('detection')
    path = tmp_path / 'config.py'
    path.write_text(
        f"_base_ = '{config}'\n{text}\n"
        'test_dataloader = dict(dataset=dict(pipeline=[first, dict('
        "type='PackDetInputs')]))\n"
    )
    with refuses('config.pipeline', part):
        Predictor(path, checkpoint)


def test_floats_where_the_pipeline_says_so(trained, ready, pictures):
    config, checkpoint = trained('semantic')
    cfg = configs_load.load_config(config)
    cfg.test_dataloader.dataset.pipeline[0].to_float32 = True
    floats = Predictor(cfg, checkpoint, 'cpu')
    assert floats.prepare(to_rgb_array(pictures[0]))[1]['inputs'].dtype == torch.float32
    assert_close(floats(pictures[0]), ready('semantic')(pictures[0]))


# ---- images --------------------------------------------------------------------------------------


def gradient(mode):
    """A picture of a mode of PIL's."""
    image = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    if mode == 'I;16':
        return image
    grey = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    colour = Image.merge('RGB', [grey, grey.rotate(180), grey.point(lambda value: 255 - value)])
    return colour.convert(mode)


@pytest.mark.parametrize(
    'mode, suffix',
    [
        ('RGB', 'png'),
        ('RGB', 'bmp'),
        ('RGB', 'webp'),
        ('RGB', 'gif'),
        ('L', 'png'),
        ('1', 'png'),
        ('I;16', 'png'),
        ('I;16', 'tif'),
        ('P', 'png'),
        ('RGBA', 'png'),
        ('LA', 'png'),
        ('CMYK', 'jpg'),
        ('CMYK', 'tif'),
        ('L', 'jpg'),
        ('RGBA', 'tif'),
    ],
)
def test_images_of_every_kind(ready, tmp_path, mode, suffix):
    path = tmp_path / f'a.{suffix}'
    image = gradient(mode)
    image.save(path, **(dict(quality=95) if suffix == 'jpg' else {}))
    read = to_rgb_array(path)
    assert read.shape == (48, 64, 3) and read.dtype == np.uint8 and np.ptp(read) > 90
    with Image.open(path) as opened:
        given = to_rgb_array(opened)
    far = np.abs(given.astype(int) - read)
    assert far.mean() < (8 if mode == 'CMYK' else 2), 'a file and its PIL image are one'
    if mode == 'RGB' and suffix == 'png':
        assert np.array_equal(read, np.asarray(image)), 'the order is RGB'
        for form in (str(path), image, np.asarray(image)):
            assert_close(ready('detection')(form), ready('detection')(path))


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_are_turned_as_their_camera_says(tmp_path, orientation, suffix):
    """As the reader of training and test turns them, and as Pillow does."""
    path, exif = tmp_path / f'a.{suffix}', Image.Exif()
    exif[0x0112] = orientation
    gradient('RGB').save(path, exif=exif, **(dict(quality=95) if suffix == 'jpg' else {}))
    trained_on = LoadImageFromFile()(dict(img_path=str(path)))['img'][:, :, ::-1]
    assert np.array_equal(to_rgb_array(path), trained_on)
    # which OpenCV 4 leaves as it is
    obeyed = suffix != 'webp' or int(cv2.__version__.partition('.')[0]) > 4
    assert trained_on.shape == ((64, 48, 3) if orientation > 4 and obeyed else (48, 64, 3))
    with Image.open(path) as opened:
        far = np.abs(to_rgb_array(opened).astype(int) - trained_on)
    assert far.mean() < 4


def write_bomb(path, width, height):
    """Write a PNG of a few KiB that claims any number of pixels."""

    def chunk(kind, content):
        checked = kind + content
        return len(content).to_bytes(4, 'big') + checked + zlib.crc32(checked).to_bytes(4, 'big')

    header = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(height * (width // 8 + 1)))
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('width, height', [(12000, 12000), (20000, 20000), (134217729, 1)])
def test_an_image_that_is_too_large_is_named_and_skipped(detector, tmp_path, width, height):
    write_bomb(tmp_path / 'a.png', width, height)
    gradient('RGB').save(tmp_path / 'b.png')
    tracemalloc.start()
    done = predict(*detector, [tmp_path / 'a.png', tmp_path / 'b.png'], out=tmp_path / 'out')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.images == 1 and list(done.bad) == [str(tmp_path / 'a.png')]
    assert 'at most 134 million' in done.bad[str(tmp_path / 'a.png')]
    assert peak < 2**28


@pytest.mark.parametrize(
    'array',
    [
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_image(array):
    with refuses('image.type', 'H W 3', '3 in', 'RGB'):
        to_rgb_array(array)


def test_what_is_no_image_at_all():
    assert to_rgb_array(np.ones((4, 5), np.uint8)).shape == (4, 5, 3)
    with refuses('image.type', ' dict ', 'H W 3'):
        to_rgb_array({})


def spoil(folder):
    """Files that look like images; file -> what is said of it."""
    whole = gradient('RGB')
    said = {
        'missing.jpg': 'does not exist',
        'empty.jpg': 'empty',
        'text.png': 'not an image',
        'cut.jpg': 'cut off',
        'cut.png': 'cut off',
        'cut.bmp': 'damaged',
        'cut.tif': 'damaged',
        'folder.jpg': 'is a folder',
        'depth.tif': 'fractions',
    }
    (folder / 'empty.jpg').touch()
    (folder / 'text.png').write_text('an image, promised')
    (folder / 'folder.jpg').mkdir()
    for name in ('cut.jpg', 'cut.png', 'cut.bmp', 'cut.tif'):
        whole.save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
    Image.fromarray(np.random.default_rng(0).random((9, 9), np.float32)).save(folder / 'depth.tif')
    return said


def test_bad_images_are_named(tmp_path):
    for name, said in spoil(tmp_path).items():
        with pytest.raises(BadImage) as caught:
            read_image(tmp_path / name)
        assert said in caught.value.reason and name in str(caught.value), name


# ---- results -------------------------------------------------------------------------------------


def some_results(size=(20, 30)):
    masks = np.zeros((2, *size), bool)
    masks[0, 2:8, 3:9], masks[1, 10:, 20:] = True, True
    boxes = np.array([[3, 2, 9, 8], [20, 10, 30, 20]], np.float32)
    found = Detections(
        boxes, np.array([0.9, 0.4], np.float32), np.array([1, 0]), ('a', 'b'), masks, size
    )
    ids = masks[0] + 2 * masks[1]
    return (
        found,
        Segmentation(masks[0].astype(int), ('a', 'b'), size),
        PanopticSegmentation(
            ids, (Segment(1, 1, True, 36), Segment(2, 0, False, 100)), ('a', 'b'), size
        ),
    )


def test_coco_rows():
    found, semantic, panoptic = some_results()
    one, two = found.to_coco(7)
    assert (one['image_id'], one['category_id'], one['bbox']) == (7, 2, [3, 2, 6, 6])
    assert mask.area(one['segmentation']) == 36 and two['category_id'] == 1
    assert json.loads(json.dumps(found.to_coco(7))) == [one, two]
    assert [row['category_id'] for row in semantic.to_coco(7)] == [1, 2]
    assert mask.area(semantic.to_coco(7)[1]['segmentation']) == 36
    assert [row['area'] for row in panoptic.to_coco(7)['segments_info']] == [36, 100]
    assert np.array_equal(panoptic.to_rgb_ids()[..., 0], panoptic.ids)
    assert (panoptic.labels == np.array([results.VOID, 1, 0])[panoptic.ids]).all()
    assert found.class_names == ['b', 'a'] and len(found.filter_by_score(0.5)) == 1
    assert semantic.shares == {'a': 564 / 600, 'b': 36 / 600}
    assert class_name((), 3) == 'class 3'


class FakeDetections(types.SimpleNamespace):
    """Takes what supervision's takes."""


def test_supervision(monkeypatch):
    """A stand-in by the same name, or the package where it is installed."""
    if find_spec('supervision') is None:  # an extra that no stack brings
        with refuses('package.missing', 'pip install supervision'):
            some_results()[0].to_supervision()
        monkeypatch.setitem(
            sys.modules, 'supervision', types.SimpleNamespace(Detections=FakeDetections)
        )
    for result in some_results():
        found = result.to_supervision()
        assert found.xyxy.shape == (2, 4) and found.mask.shape == (2, 20, 30)
        assert sorted(found.data['class_name']) == ['a', 'b']
    found = some_results()[2].to_supervision()
    np.testing.assert_array_equal(found.xyxy, some_results()[0].boxes)


def test_drawings():
    image = np.full((20, 30, 3), 200, np.uint8)
    for result in some_results():
        drawn = result.draw(image)
        assert drawn.shape == (426, 640, 3) and drawn.dtype == np.uint8
        assert (drawn != 200).any() and np.array_equal(drawn, result.draw(Image.fromarray(image)))
    # What a panoptic model says nothing of is left as it is.
    drawn = some_results()[2].draw(image)
    assert (drawn[-20:, :20] == 200).all()
    with refuses('image.size', '4 x', '3 pixels'):
        some_results()[0].draw(image[:3, :4])
    large = annotate_regions(np.zeros((801, 1001, 3), np.uint8), np.zeros((801, 1001), int), ())
    assert large.shape == (800, 1000, 3), 'both sides even'
    vast = annotate_regions(np.zeros((30, 9000, 3), np.uint8), np.zeros((30, 9000), int), ())
    assert vast.shape == (14, 4096, 3)
    labels = np.zeros((60, 9000), int)
    labels[:, 4500:] = 1
    vast = annotate_regions(np.full((60, 9000, 3), 200, np.uint8), labels, ('background', 'b'))
    assert (vast[:, :1900] == 200).all() and (vast[:, 2200:] != 200).any(2).mean() > 0.9
    masks = np.zeros((1, 60, 9000), bool)
    masks[:, 10:50, 6000:8000] = True
    long = Detections(
        np.array([[6000, 10, 8000, 50]], np.float32),
        np.ones(1),
        np.zeros(1, int),
        (),
        masks,
        (60, 9000),
    )
    drawn = long.draw(np.full((60, 9000, 3), 200, np.uint8))
    assert drawn.shape == (28, 4096, 3) and (drawn[:, :2500] == 200).all()
    assert (drawn[6:20, 2800:3600] != 200).any(2).mean() > 0.9
    wild = Detections(
        np.array([[-1e30, 2, 1e30, 9], [np.nan, 0, 3, 3]], np.float32),
        np.ones(2, np.float32),
        np.zeros(2, int),
        (),
        None,
        (20, 30),
    )
    assert wild.draw(image).shape == (426, 640, 3)


# ---- files ---------------------------------------------------------------------------------------


def test_names_are_distinct():
    def named(*paths):
        return inputs.distinct_names([Path(path) for path in paths])

    assert named('/x/a.jpg', '/x/b.jpg') == ['a', 'b']
    assert named('/x/a.jpg', '/y/a.jpg', '/x/b.jpg') == ['x_a', 'y_a', 'b']
    assert named('/x/a.jpg', '/x/A.png') == ['a_jpg', 'A_png']
    assert named('/1/x/a.jpg', '/2/x/a.jpg') == ['1_x_a', '2_x_a']
    assert len(set(named('/x/y/a.jpg', '/x_y/a.jpg', '/x/y_a.jpg', '/z/x/y/a.jpg'))) == 4
    many = [f'/{one}/{two}.jpg' for one in range(300) for two in range(30)]
    assert len(set(named(*many))) == len(many)


def test_what_is_found(tmp_path, monkeypatch, shapes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'in/deep').mkdir(parents=True)
    for name in ('in/b.PNG', 'in/a.jpg', 'in/deep/c.jpg', 'in/d[1].jpg'):
        gradient('RGB').save(name)
    (tmp_path / 'in/notes.txt').touch()
    (tmp_path / 'in/._a.jpg').touch()

    def found(*given):
        return [source.path.as_posix() for source in inputs.find_sources(given)]

    assert found('in') == ['in/a.jpg', 'in/b.PNG', 'in/d[1].jpg']
    assert found('in/**/*.jpg') == ['in/a.jpg', 'in/d[1].jpg', 'in/deep/c.jpg']
    assert found('in/a.jpg', 'in', tmp_path / 'in/a.jpg')[0] == 'in/a.jpg'
    assert len(found('in/a.jpg', 'in', tmp_path / 'in/a.jpg')) == 3, 'each once'
    assert found('in/d[1].jpg', 'gone.jpg') == ['in/d[1].jpg', 'gone.jpg']
    (tmp_path / 'in/link.jpg').symlink_to('gone.jpg')  # is named when it cannot be read
    assert found('in') == ['in/a.jpg', 'in/b.PNG', 'in/d[1].jpg', 'in/link.jpg']
    with refuses('image.none'):
        found()
    for given in ('in/*.webp', 'https://a.b/c.jpg', 'gone.mp4'):
        with refuses('image.missing', given):
            found(given)
    (tmp_path / 'out/one').mkdir(parents=True)
    with refuses('image.missing'):
        found('out')
    (tmp_path / 'a.mp4').write_text('a film, promised')
    with refuses('image.unreadable', 'a.mp4'):
        found('a.mp4')


def write_video(path, count=7, rate=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), rate, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.release()


# ---- runs ----------------------------------------------------------------------------------------


def test_predict_on_images_and_a_video(trained, shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_video('film.avi')
    for number, folder in enumerate(('one', 'two')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'a.jpg').write_bytes((shapes / f'test/00000{number}.jpg').read_bytes())
    (tmp_path / 'bad.jpg').write_text('an image, promised')
    config, checkpoint = trained('detection')
    line = [
        'predict',
        config,
        checkpoint,
        'one',
        'bad.jpg',
        'film.avi',
        'two/a.jpg',
        'gone.png',
        '--score-thr',
        '0',
        '--vid-stride',
        '3',
        '--batch-size',
        '2',
        '--out',
        'deep/found',
    ]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert 'predicted: 5 images, 25 objects' in out and 'skipped: 2 images' in out
    assert 'skipped: bad.jpg: it is not an image' in err and 'gone.png: it does not exist' in err
    assert '7 of 7 images' in err

    found = tmp_path / 'deep/found'
    assert sorted(path.relative_to(found).as_posix() for path in found.rglob('*.*')) == [
        'pictures/film.mp4',
        'pictures/one_a.jpg',
        'pictures/two_a.jpg',
        'predictions.images.json',
        'predictions.json',
    ]
    rows = json.loads((found / 'predictions.json').read_text())
    assert [row['frame'] for row in rows if row['file_name'] == 'film.avi'][::5] == [0, 3, 6]
    assert [row['image_id'] for row in rows][::5] == [1, 3, 4, 5, 6]
    coco = COCO(found / 'predictions.images.json')
    assert len(coco.loadRes(rows).anns) == 25 and coco.cats[1]['name'] == 'disk'
    video = cv2.VideoCapture(str(found / 'pictures/film.mp4'))
    frames = [video.read()[1] for _ in range(3)]
    assert frames[0].shape == (480, 640, 3) and not video.read()[0]
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / 3, rel=0.01)
    assert [abs(float(np.median(frame)) - 90 * at) < 12 for at, frame in enumerate(frames)] == (
        3 * [True]
    )

    # The same once more is refused, and with --force replaces.
    before = (found / 'predictions.json').read_bytes()
    check_refused(line, 'option.exists', '--out deep/found', '--force')
    assert main([*line, '--force', '--batch-size', '1', '--no-vis']) == 0
    again = json.loads((found / 'predictions.json').read_text())
    for one, two in zip(json.loads(before), again, strict=True):
        assert {key: one[key] for key in ('image_id', 'category_id', 'file_name')} == {
            key: two[key] for key in ('image_id', 'category_id', 'file_name')
        }
        np.testing.assert_allclose(
            [*one['bbox'], one['score']], [*two['bbox'], two['score']], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize('kind', ['instance', 'semantic', 'panoptic'])
def test_what_each_kind_writes(trained, shapes, tmp_path, kind):
    table = tmp_path / 'table.json'
    write_video(tmp_path / 'film.avi', 2)
    done = predict(
        *trained(kind),
        [shapes / 'test', tmp_path / 'film.avi'],
        out=tmp_path / 'out',
        json=table,
        score_thr=0,
        vis=kind == 'semantic',
        batch_size=2,
        cfg_options=SEEN.get(kind),
    )
    assert done.images == 4 and not done.bad
    written = json.loads(table.read_text())
    if kind == 'instance':
        assert mask.decode(written[0]['segmentation']).shape == (64, 64)
        assert not (tmp_path / 'out').exists(), 'nothing goes there'
        return
    assert [row.get('frame') for row in written['images']] == [None, None, 0, 1]
    if kind == 'semantic':
        assert written['classes'] == ['background', *SHAPES]
        row = written['images'][2]
        labels = cv2.imread(str(tmp_path / row['labels']), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (48, 64) and row['labels'] == 'out/labels/film/000000.png'
        shares = {
            written['classes'][label]: pytest.approx((labels == label).mean())
            for label in np.unique(labels)
        }
        assert row['shares'] == shares
        assert len(list((tmp_path / 'out/pictures').iterdir())) == 3
        return
    for row in written['annotations']:
        coded = cv2.imread(str(tmp_path / 'out/panoptic' / row['file_name']))[:, :, ::-1]
        ids = coded.astype(int) @ (1, 256, 65536)
        areas = {one['id']: one['area'] for one in row['segments_info']}
        assert areas and areas == {number: (ids == number).sum() for number in areas}
    assert [(one['name'], one['isthing']) for one in written['categories']] == [
        *((name, 1) for name in SHAPES),
        ('background', 0),
    ]


@pytest.mark.parametrize(
    'more, code, parts',
    [
        (['good.jpg', '--device', 'gpu'], 'option.unknown', ["'gpu'", 'legal: auto, cpu, cuda']),
        (['good.jpg', '--device', 'cuda:63'], 'device.missing', ['cuda:63']),
        (['good.jpg', '--score-thr', '30'], 'option.value', ['score_thr 30']),
        (['good.jpg', '--batch-size', '0'], 'option.value', ['--batch-size 0']),
        (['good.jpg', '--vid-stride', '0'], 'option.value', ['--vid-stride 0']),
        (['empty'], 'image.missing', ['folder empty', '.jpg']),
        (['none/*.jpg'], 'image.missing', ['none/*.jpg']),
        (['film.mp4'], 'image.unreadable', ['film.mp4']),
        (
            ['good.jpg', '--out', 'text.txt/out'],
            'file.unwritable',
            ['--out text.txt/out', '(text.txt '],
        ),
        (['good.jpg', '--out', '.'], 'option.exists', ['--out .:', '--force']),
        (['good.jpg', '--json', 'a.csv'], 'option.suffix', ['--json a.csv', '.json']),
        (['good.jpg', '--json', 'folder.json', '--force'], 'option.suffix', ['--json folder.json']),
        (['good.jpg', '--json', 'there.json'], 'option.exists', ['--json there.json', '--force']),
        (
            ['predictions/pictures/good.jpg', '--force'],
            'option.overwrites-input',
            ['predictions/pictures/good.jpg', '--out'],
        ),
        (['good.jpg', '--data', 'nowhere'], 'data.missing', ['nowhere', '--data']),
        (['bad.jpg', 'gone.jpg'], 'image.unreadable', ['2 images', 'bad.jpg (', 'gone.jpg (']),
    ],
)
def test_one_message_status_2_and_nothing_left(
    trained, tmp_path, monkeypatch, capsys, more, code, parts
):
    monkeypatch.chdir(tmp_path)
    for name in ('empty', 'folder.json'):
        (tmp_path / name).mkdir()
    for name in ('bad.jpg', 'text.txt', 'film.mp4', 'there.json'):
        (tmp_path / name).write_text('promised')
    gradient('RGB').save('good.jpg')
    if 'predictions/pictures/good.jpg' in more:
        (tmp_path / 'predictions/pictures').mkdir(parents=True)
        gradient('RGB').save('predictions/pictures/good.jpg')
    before = sorted(tmp_path.rglob('*'))
    error = run_refused(['predict', *trained('detection'), *more])
    check_error(error, code, *parts)
    out, err = capsys.readouterr()
    messages = [text for text in err.splitlines() if text.startswith('mmresnest: error: ')]
    assert messages == [f'mmresnest: error: {error}'], err
    assert 'Traceback' not in out + err and sorted(tmp_path.rglob('*')) == before


def test_a_checkpoint_of_another_config(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gradient('RGB').save('good.jpg')
    config, other = trained('detection')[0], trained('semantic')[1]
    check_refused(['predict', config, other, 'good.jpg'], 'checkpoint.other-model', other)
    assert not (tmp_path / 'predictions').exists()


def test_a_disk_that_is_full(detector, tmp_path, monkeypatch):
    def fail(path, write, ready=None):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(writer, 'write_whole', fail)
    write_video(tmp_path / 'film.avi', 2)
    with refuses('file.unwritable', 'predictions.json'):
        predict(*detector, [tmp_path / 'film.avi'], out=tmp_path / 'out')


def test_a_run_that_breaks_off_leaves_no_part_of_a_video(detector, tmp_path, monkeypatch):
    write_video(tmp_path / 'film.avi', 3)
    add_result, seen = writer.ResultWriter.add_result, []

    def broken(self, item, result):
        add_result(self, item, result)
        seen.extend(path.name for path in (tmp_path / 'out').rglob('*.part*'))
        if item.frame == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(writer.ResultWriter, 'add_result', broken)
    with pytest.raises(KeyboardInterrupt):
        predict(*detector, [tmp_path / 'film.avi'], out=tmp_path / 'out')
    assert seen and not (tmp_path / 'out').exists()


def test_no_codec(detector, tmp_path, monkeypatch):
    write_video(tmp_path / 'film.avi', 2)
    monkeypatch.setattr(videos, 'CODECS', (('.mp4', 'none'), ('.avi', 'nono')))
    done = predict(*detector, [tmp_path / 'film.avi'], out=tmp_path / 'out')
    assert done.images == 2 and not list((tmp_path / 'out').rglob('film*'))


# ---- around it -----------------------------------------------------------------------------------


def test_progress_without_a_terminal(capsys, monkeypatch):
    with show_progress(2) as told:
        assert isinstance(told, ProgressLines)
        told.step()
        told.step()
    assert '2 of 2 images' in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    with show_progress(2) as told:
        told.say('[a line]')
        told.step()
    assert '[a line]' in capsys.readouterr().err


@pytest.mark.slow
def test_the_class_is_imported_late():
    code = (
        'import sys, mmresnest; print("Predictor" in dir(mmresnest), "torch" in sys.modules); '
        'mmresnest.Predictor; print("torch" in sys.modules)'
    )
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout.split() == ['True', 'False', 'True'], run.stderr
    assert mmresnest.Predictor is Predictor
