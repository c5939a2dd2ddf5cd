"""Pictures of a run: what is drawn where, what the log says, and no half-written file."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import refuses

from mmresnest.utils import boxes as drawing_boxes
from mmresnest.utils import run_logs
from mmresnest.visualization import canvas, pictures


def read(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def near(image, colour, tolerance=0.06):
    """Where an image has a colour."""
    return (np.abs(image - np.array(colour)) < tolerance).all(-1)


def wrong():
    from matplotlib.colors import to_rgb

    return to_rgb(canvas.WRONG)


def objects(*boxes, scores=None, masks=None):
    """Objects from x0 y0 x1 y1 label."""
    found = {'boxes': [box[:4] for box in boxes], 'labels': [box[4] for box in boxes]}
    if scores is not None:
        found['scores'] = scores
    if masks is not None:
        found['masks'] = masks
    return found


GREY = np.full((80, 120, 3), 128, np.uint8)
NAMES = ('cat', 'dog', 'newt')


# --------------------------------------------------------------------------------- matching


def test_boxes_are_matched_as_coco_does():
    truth = objects((0, 0, 10, 10, 0), (20, 0, 30, 10, 1), (40, 0, 50, 10, 2))
    said = objects(
        (0, 0, 10, 9, 0),  # right, though not the best score
        (0, 0, 10, 10, 0),  # right, and it takes the object
        (20, 0, 30, 10, 2),  # wrong class
        (46, 0, 56, 10, 2),  # too far off
        scores=[0.8, 0.9, 0.9, 0.9],
    )
    found, right = pictures.match_objects(truth, said)
    assert found.tolist() == [True, False, False]
    assert right.tolist() == [False, True, False, False]
    assert pictures.match_objects(truth, said, iou=0.2).right.tolist() == [False, True, False, True]


def test_overlap_of_boxes():
    ious = drawing_boxes.box_ious(
        np.array([[0, 0, 4, 4], [0, 0, 0, 0]], float), np.array([[2, 0, 6, 4], [8, 8, 9, 9]], float)
    )
    assert ious == pytest.approx(np.array([[1 / 3, 0], [0, 0]]))


@pytest.mark.parametrize('truth', [(), ((0, 0, 5, 5, 0),)])
@pytest.mark.parametrize('said', [(), ((0, 0, 5, 5, 0),)])
def test_matching_nothing(truth, said):
    found, right = pictures.match_objects(objects(*truth), objects(*said, scores=[0.5] * len(said)))
    assert (found.shape, right.shape) == ((len(truth),), (len(said),))
    assert found.sum() == right.sum() == (1 if truth and said else 0)


# --------------------------------------------------------------------------------- detection


def panels(path, images=1):
    """The picture cut in halves: truth at the left, predictions at the right; no legend."""
    image = read(path)
    tall = int(image.shape[0] * 0.8)
    half = image.shape[1] // 2
    return image[:tall, :half], image[:tall, half:]


def test_right_ones_have_the_colour_of_their_class_on_both_sides(tmp_path):
    truth = objects((30, 20, 90, 60, 1))
    said = objects((31, 20, 90, 61, 1), scores=[0.9])
    out = pictures.draw_detections(tmp_path / 'a.png', [GREY], [truth], [said], NAMES)
    for side in panels(out):
        assert near(side, canvas.class_color(1)).sum() > 100
        assert not near(side, canvas.class_color(0)).any()
        assert not near(side, wrong()).any()


def test_missed_and_false_ones_are_flagged_on_their_own_side(tmp_path):
    truth, said = objects((30, 20, 90, 60, 1)), objects((30, 20, 90, 60, 0), scores=[0.9])
    nothing = objects(scores=[])
    left, right = panels(
        pictures.draw_detections(tmp_path / 'a.png', [GREY], [truth], [nothing], NAMES)
    )
    assert near(left, wrong()).sum() > 100 and not near(right, wrong()).any()
    left, right = panels(
        pictures.draw_detections(tmp_path / 'a.png', [GREY], [nothing], [said], NAMES)
    )
    assert near(right, wrong()).sum() > 100 and not near(left, wrong()).any()


def test_boxes_lie_where_they_should(tmp_path):
    """The left edge of a box is at the same share of the width in the panel and in the image."""
    truth, said = objects((60, 20, 114, 70, 1)), objects((12, 40, 90, 70, 1), scores=[0.9])
    out = pictures.draw_detections(tmp_path / 'a.png', [GREY], [truth], [said], NAMES, iou=0.01)
    for side, share in zip(panels(out), (60 / 120, 12 / 120), strict=True):
        picture = np.flatnonzero(near(side, (128 / 255,) * 3).any(0))
        columns = np.flatnonzero(near(side, canvas.class_color(1)).sum(0) > 60)
        at = (columns[0] - picture[0]) / (picture[-1] - picture[0])
        assert at == pytest.approx(share, abs=0.02)


def test_low_scores_are_left_out(tmp_path):
    said = objects((30, 20, 90, 60, 0), scores=[0.2])
    empty = objects()
    for score, drawn in ((0.3, False), (0.1, True)):
        out = pictures.draw_detections(
            tmp_path / 'a.png', [GREY], [empty], [said], NAMES, score=score
        )
        assert near(panels(out)[1], wrong()).any() == drawn


def test_masks_tint_what_they_cover(tmp_path):
    mask = np.zeros((1, 80, 120), bool)
    mask[0, 30:60, 40:80] = True
    truth = objects((40, 30, 80, 60, 2), masks=mask)
    out = pictures.draw_detections(
        tmp_path / 'a.png', [GREY], [truth], [objects((40, 30, 80, 60, 2), scores=[1])], NAMES
    )
    tint = (np.array(canvas.class_color(2)) + 128 / 255) / 2
    left, right = panels(out)
    assert near(left, tint, 0.02).sum() > 1000 and not near(right, tint, 0.02).any()


def test_only_the_best_of_many_predictions_are_drawn(tmp_path, monkeypatch):
    for module in (canvas, pictures):
        monkeypatch.setattr(module, 'MAX_BOXES', 1)
    truth = objects((10, 10, 40, 70, 1), (70, 10, 110, 70, 2))
    said = objects((10, 10, 40, 70, 1), (70, 10, 110, 70, 2), scores=[0.6, 0.9])
    out = pictures.draw_detections(tmp_path / 'a.png', [GREY], [truth], [said], NAMES)
    left, right = panels(out)
    assert near(left, canvas.class_color(1)).any() and not near(left, wrong()).any()
    assert near(right, canvas.class_color(2)).any()
    assert not near(right, canvas.class_color(1)).any()


@pytest.mark.parametrize('count', [1, 2, 5])
def test_every_count_and_mixed_sizes(tmp_path, count):
    images = [np.full((40 + 30 * n, 90, 3), 10 * n, np.uint8) for n in range(count)]
    nothing = [objects()] * count
    out = pictures.draw_detections(tmp_path / 'a.png', images, nothing, nothing, NAMES)
    height, width = read(out).shape[:2]
    rows = count if count < 3 else 3
    assert width > 2 * canvas.PANEL * canvas.DPI * (1 if count < 3 else 2)
    assert height > rows * canvas.PANEL * canvas.DPI * 40 / 90


def test_grey_deep_and_tall_images(tmp_path):
    images = [np.zeros((20, 200), np.uint8), np.arange(6000, dtype=np.uint16).reshape(300, 20)]
    nothing = [objects()] * 2
    out = pictures.draw_detections(tmp_path / 'a.png', images, nothing, nothing, NAMES)
    assert read(out).shape[0] < (0.1 + canvas.TALLEST + 0.6) * canvas.PANEL * canvas.DPI


def test_awkward_names_and_labels(tmp_path):
    names = ['$a^', '_hidden', 'b%{', '\u7d30\u80de', 'x' * 60]
    boxes = [(5 * n, 5 * n, 5 * n + 30, 5 * n + 30, n) for n in range(6)]  # the last has no name
    out = pictures.draw_detections(
        tmp_path / 'a.png',
        [GREY],
        [objects(*boxes)],
        [objects(*boxes, scores=[1] * 6)],
        names,
        title='$title_',
    )
    assert near(read(out), canvas.class_color(1)).any()


def test_colours_are_stable_and_distinct():
    colours = [canvas.class_color(label) for label in range(80)]
    assert colours == [canvas.class_color(label) for label in range(80)]
    assert len({tuple(np.round(colour, 3)) for colour in colours}) == 80
    assert all(0 <= part <= 1 for colour in colours for part in colour)


@pytest.mark.slow
def test_vast_images_are_drawn_at_the_size_of_their_panel(tmp_path, monkeypatch):
    """What is worked on is small, and lies where it lay; figures are of all pixels."""
    shown = []
    show = canvas.show_image
    for module in (canvas, pictures):
        monkeypatch.setattr(
            module, 'show_image', lambda axes, image: shown.append(image.shape) or show(axes, image)
        )
    image = np.full((3000, 6000, 3), 128, np.uint8)
    box = (1500, 750, 4500, 2250, 0)
    mask = np.zeros((1, 3000, 6000), bool)
    mask[0, 750:2250, 1500:4500] = True
    small = [part[::50, ::50] for part in (image, mask[0])]
    vast, plain = (
        pictures.draw_detections(tmp_path / f'{name}.png', [picture], [truth], [said], NAMES)
        for name, picture, truth, said in (
            ('vast', image, objects(box, masks=mask), objects(box, scores=[0.9], masks=mask)),
            (
                'plain',
                small[0],
                objects([side / 50 for side in box[:4]] + [0], masks=small[1][None]),
                objects([side / 50 for side in box[:4]] + [0], scores=[0.9], masks=small[1][None]),
            ),
        )
    )
    assert max(shown[0]) == canvas.SHARP and shown[-1] == small[0].shape
    assert np.abs(read(vast) - read(plain)).mean() < 0.02
    shown.clear()
    truth = mask[0].astype(int)
    said = truth.copy()
    said[:30] = 1  # 1 % of all pixels
    titles = []
    monkeypatch.setattr(pictures, 'write_title', lambda axes, text: titles.append(text))
    pictures.draw_segmentations(tmp_path / 'maps.png', [image], [truth], [said], NAMES)
    assert {max(shape) for shape in shown} == {canvas.SHARP} and 'wrong pixels: 1.0%' in titles


def test_lists_of_different_length_and_no_picture(tmp_path):
    with pytest.raises(ValueError, match=r'\[1, 0, 1\]'):
        pictures.draw_detections(tmp_path / 'a.png', [GREY], [], [objects()], NAMES)
    with pytest.raises(ValueError, match='no picture'):
        pictures.draw_detections(tmp_path / 'a.png', [], [], [], NAMES)
    with pytest.raises(ValueError, match='1 boxes, 1 labels and 2 scores'):
        pictures.draw_detections(
            tmp_path / 'a.png',
            [GREY],
            [objects()],
            [objects((0, 0, 1, 1, 0), scores=[1, 1])],
            NAMES,
        )
    assert os.listdir(tmp_path) == []


# --------------------------------------------------------------------------------- segmentation


def test_segmentation(tmp_path):
    truth = np.zeros((80, 120), np.uint8)
    truth[20:60, 30:90] = 1
    truth[:10] = canvas.IGNORED
    said = np.zeros((80, 120), np.int64)
    said[20:60, 30:60] = 1
    said[:10] = 2
    names = ('background', 'cat', 'dog')
    image = read(pictures.draw_segmentations(tmp_path / 'a.png', [GREY], [truth], [said], names))
    image = image[: int(image.shape[0] * 0.8)]
    left, middle, right = np.array_split(image, 3, axis=1)
    area = left.shape[0] * left.shape[1]
    tint = 0.6 * np.array(canvas.class_color(1)) + 0.4 * 128 / 255
    shares = [near(panel, tint, 0.02).mean() for panel in (left, middle, right)]
    assert shares[0] > 1.8 * shares[1] > 0.1 and shares[2] == 0
    # The wrong half of the object is red, and what is not counted is neither right nor wrong.
    assert near(right, wrong(), 0.02).sum() / area == pytest.approx(shares[0] - shares[1], abs=0.02)
    assert not near(left, wrong(), 0.02).any()


def test_a_perfect_segmentation_has_nothing_wrong(tmp_path):
    mask = np.arange(80 * 120).reshape(80, 120) % 3
    image = read(pictures.draw_segmentations(tmp_path / 'a.png', [GREY], [mask], [mask], NAMES))
    assert not near(image[: int(image.shape[0] * 0.8)], wrong(), 0.02).any()
    counted = np.ones_like(mask, bool)
    assert pictures._mean_iou(mask, mask, counted) == 1
    assert pictures._mean_iou(
        np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), counted.ravel()[:4]
    ) == (pytest.approx((1 / 2 + 2 / 3) / 2))


def test_sizes_that_differ(tmp_path):
    mask = np.zeros((80, 120), int)
    with pytest.raises(ValueError, match=r'\(80, 120\).*\(79, 120\)'):
        pictures.draw_segmentations(tmp_path / 'a.png', [GREY], [mask], [mask[1:]], NAMES)


# --------------------------------------------------------------------------------- curves


def log(folder, records):
    folder = folder / 'vis_data'
    folder.mkdir(parents=True)
    text = ''.join(json.dumps(record) + '\n' for record in records)
    (folder / 'scalars.json').write_text(text + '{"loss": 0.')  # as a crash leaves it
    return folder / 'scalars.json'


def training(iterations, start=0, epoch_length=None, value=lambda n: 2 / (1 + n / 50)):
    """Lines as mmengine writes them: in a run by epoch, scores are filed under the epoch."""
    for n in range(start + 10, start + iterations + 1, 10):
        yield {
            'lr': 0.01,
            'data_time': 0.1,
            'loss': value(n),
            'loss_cls': value(n) / 2,
            'acc': 90.0,
            'time': 0.4,
            'iter': n,
            'step': n,
            **({'epoch': 1} if epoch_length else {}),
        }
        if n % (epoch_length or 50) == 0:
            step = n // epoch_length if epoch_length else n
            yield {
                'coco/bbox_mAP': n / 1000,
                'coco/bbox_mAP_s': -1.0,
                'data_time': 0.1,
                'time': 0.1,
                'step': step,
            }


@pytest.mark.parametrize('epoch_length', [None, 50])
def test_scalars_of_a_run(tmp_path, epoch_length):
    path = log(tmp_path / '20250101_000000', training(200, epoch_length=epoch_length))
    for source in (path, str(tmp_path), tmp_path / '20250101_000000', path.parent):
        losses, scores = run_logs.read_scalars(source)
        assert set(losses) == {'loss', 'loss_cls'} and losses['loss'][0] == list(range(10, 201, 10))
        assert losses['loss'][1][4] == 1.0
        assert scores == {'coco/bbox_mAP': ([50, 100, 150, 200], [0.05, 0.1, 0.15, 0.2])}


def test_a_resumed_run_is_joined_and_a_fresh_one_replaces(tmp_path):
    log(tmp_path / '20250101_000000', training(100))
    log(tmp_path / '20250102_000000', training(100, start=80, value=lambda n: 0.5))
    losses, _ = run_logs.read_scalars(tmp_path)
    assert losses['loss'][0] == list(range(10, 181, 10))
    assert losses['loss'][1][8:] == [0.5] * 10 and losses['loss'][1][7] != 0.5
    log(tmp_path / '20250103_000000', [{'coco/bbox_mAP': 0.9, 'step': 0}])  # only scored
    assert run_logs.read_scalars(tmp_path).losses == losses
    log(tmp_path / '20250104_000000', training(30))
    assert run_logs.read_scalars(tmp_path).losses['loss'][0] == [10, 20, 30]


def test_without_scalars_the_other_log_is_read(tmp_path):
    path = log(tmp_path / '20250101_000000', training(50))
    path.rename(path.with_name('20250101_000000.json'))
    assert run_logs.read_scalars(tmp_path).losses['loss'][0] == [10, 20, 30, 40, 50]


PARTS = {
    'both': list(training(100)),
    'losses': [{'loss': 1.0, 'loss_a': float('nan'), 'step': 1}],
    'scores': [{'mIoU': 34.5, 'aAcc': 80.0, 'step': 5}],
    'terms': [
        {'decode.loss_ce': 1.5, 'aux.loss_ce': 0.4, 'decode.acc_seg': 30.0, 'step': n}
        for n in (1, 2)
    ],
    'two evaluators': [{'coco/bbox_mAP': 0.5, 'mIoU': 40.0, 'step': 3}],
}


@pytest.mark.parametrize('part', PARTS)
def test_curves_of_parts(tmp_path, part):
    log(tmp_path / 'run', PARTS[part])
    losses, scores = run_logs.read_scalars(tmp_path)
    out = pictures.plot_curves(tmp_path, tmp_path / 'curves.png', title='$run_')
    image = read(out)
    panels_ = bool(losses) + len({key.rpartition('/')[0] for key in scores})
    assert image.shape[1] / canvas.DPI == pytest.approx(6.4 * panels_, abs=0.1)
    assert (image < 0.9).any(-1).mean() > 0.005
    assert 'decode.acc_seg' not in losses


def test_the_total_is_black_and_a_term_is_not(tmp_path):
    log(tmp_path / 'run', [{'loss': 2.0, 'loss_cls': 1.0, 'step': n} for n in range(100)])
    image = read(pictures.plot_curves(tmp_path, tmp_path / 'curves.png'))
    inner = image[60:-90, 100:-250]  # within the axes, without the legend
    total = np.flatnonzero((near(inner, (0, 0, 0))).sum(1) > inner.shape[1] * 0.8)
    term = np.flatnonzero(near(inner, canvas.class_color(0)).sum(1) > inner.shape[1] * 0.8)
    assert len(total) and len(term) and total.max() < term.min()


@pytest.mark.parametrize('name', ['empty', 'absent'])
def test_no_log_is_told(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    with refuses('report.nothing'):
        pictures.plot_curves(tmp_path / name, tmp_path / 'curves.png')


# --------------------------------------------------------------------------------- files


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    out = tmp_path / 'deep' / 'a.png'
    arguments = (out, [GREY], [objects()], [objects()], NAMES)
    assert pictures.draw_detections(*arguments) == out
    before = out.read_bytes()

    def fail(figure, name, **_):
        name.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, 'savefig', fail)
    with pytest.raises(KeyboardInterrupt):
        pictures.draw_detections(*arguments)
    assert out.read_bytes() == before and os.listdir(out.parent) == ['a.png']


def test_no_global_state_of_matplotlib_and_no_heavy_import(tmp_path):
    code = f"""
import sys
import numpy as np
from mmresnest.visualization.pictures import draw_detections
print([name for name in ('torch', 'mmengine', 'matplotlib') if name in sys.modules])
nothing = dict(boxes=[], labels=[])
image = np.zeros((9, 9, 3), np.uint8)
draw_detections({str(tmp_path / 'a.png')!r}, [image], [nothing], [nothing], [])
print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'MPLBACKEND': 'tkagg'},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout.split()) == (0, ['[]', '[]']), done.stderr
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


# --------------------------------------------------------------------------------- a model


class Data:
    """A test data set as mmdet's and mmseg's look from outside."""

    metainfo = {'classes': NAMES}

    def __init__(self, infos):
        self.infos = infos

    def __len__(self):
        return len(self.infos)

    def __getitem__(self, index):
        return {'inputs': index, 'data_samples': self.infos[index]}

    def get_data_info(self, index):
        return self.infos[index]


@pytest.fixture(scope='module')
def structures():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what mmengine and torch say of each other on import
        pytest.importorskip('mmengine.model')
        return pytest.importorskip('mmengine.structures')


@pytest.fixture
def photo(tmp_path):
    cv2 = pytest.importorskip('cv2')
    path = str(tmp_path / 'photo.png')
    assert cv2.imwrite(path, np.full((80, 120, 3), (255, 128, 0), np.uint8))  # blue, in BGR
    return path


def model_of(torch, make):
    class Model(torch.nn.Module):
        asked = []

        def test_step(self, data):
            assert not self.training and not torch.is_grad_enabled()
            self.asked += data['inputs']
            return [make(index) for index in data['inputs']]

    return Model()


class Config:
    def __init__(self, work_dir):
        self.work_dir = str(work_dir)


# pycocotools 2.0.11 under NumPy 2
@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
def test_write_pictures_of_a_detector(tmp_path, photo, structures, monkeypatch):
    torch = pytest.importorskip('torch')
    seen = {}
    monkeypatch.setattr(
        pictures, 'draw_detections', lambda out, *lists, **_: seen.update(lists=lists) or out
    )

    def said(index):
        found = structures.InstanceData(
            bboxes=torch.tensor([[1.0, 2, 3, 4]]),
            labels=torch.tensor([index % 3]),
            scores=torch.tensor([0.75]),
            masks=torch.ones(1, 80, 120, dtype=torch.bool),
        )
        return structures.BaseDataElement(pred_instances=found)

    square = [[10, 10, 20, 10, 20, 20, 10, 20]]
    runs = {'size': [80, 120], 'counts': [0, 80, 80 * 119]}
    instances = [
        {'bbox': [10, 10, 20, 20], 'bbox_label': 1, 'ignore_flag': 0, 'mask': square},
        {'bbox': [0, 0, 1, 80], 'bbox_label': 2, 'ignore_flag': 0, 'mask': runs},
        {'bbox': [0, 0, 9, 9], 'bbox_label': 0, 'ignore_flag': 1, 'mask': square},
    ]
    data = Data([{'img_path': photo, 'instances': instances}] * 9)
    log(tmp_path / 'work' / '20250101_000000', training(50))
    model = model_of(torch, said).train()
    written = pictures.write_pictures(Config(tmp_path / 'work'), model, data, tmp_path / 'out', 3)
    assert [path.name for path in written] == ['predictions.png', 'curves.png']
    assert model.asked == [0, 3, 6] and model.training
    images, truths, predictions, names = seen['lists']
    assert len(images) == len(truths) == len(predictions) == 3 and tuple(names) == NAMES
    assert images[0].shape == (80, 120, 3) and images[0][0, 0].tolist() == [0, 128, 255]
    assert truths[0]['boxes'].tolist() == [[10, 10, 20, 20], [0, 0, 1, 80]]
    assert truths[0]['labels'].tolist() == [1, 2]
    assert [int(mask.sum()) for mask in truths[0]['masks']] == [100, 80]
    assert predictions[0]['boxes'].tolist() == [[1, 2, 3, 4]] and predictions[0]['masks'].all()


def test_write_pictures_of_a_segmentor(tmp_path, photo, structures, monkeypatch):
    torch = pytest.importorskip('torch')
    seen = {}
    monkeypatch.setattr(
        pictures, 'draw_segmentations', lambda out, *lists, **_: seen.update(lists=lists) or out
    )
    truth = torch.arange(40 * 60).reshape(1, 40, 60) % 3  # at half the size of the picture

    def said(index):
        pixels = {'pred_sem_seg': structures.PixelData(data=torch.full((1, 80, 120), 2))}
        if index == 0:
            pixels['gt_sem_seg'] = structures.PixelData(data=truth)
        return structures.BaseDataElement(**pixels)

    data = Data([{'img_path': photo}] * 2)
    written = pictures.write_pictures(
        Config(tmp_path), model_of(torch, said), data, tmp_path / 'out'
    )
    assert [path.name for path in written] == ['predictions.png']  # nothing was logged
    _, truths, predictions, names = seen['lists']
    assert tuple(names) == NAMES and (predictions[0] == 2).all()
    assert np.array_equal(truths[0][::2, ::2], truth[0]) and truths[0].shape == (80, 120)
    assert (truths[1] == canvas.IGNORED).all()


def test_panoptic_segments_become_classes(tmp_path, structures):
    cv2 = pytest.importorskip('cv2')
    torch = pytest.importorskip('torch')
    numbers = np.zeros((2, 3, 3), np.uint8)
    numbers[0, 0] = (1, 0, 0)  # BGR: 65536
    numbers[1, 2] = (0, 1, 2)  # 256 + 2
    path = str(tmp_path / 'segments.png')
    assert cv2.imwrite(path, numbers)
    info = {
        'seg_map_path': path,
        'segments_info': [{'id': 65536, 'category': 1}, {'id': 258, 'category': 2}],
    }
    image = np.zeros((2, 3, 3), np.uint8)
    no = canvas.IGNORED
    assert canvas.panoptic_classes(info, image).tolist() == [[1, no, no], [no, no, 2]]
    coded = structures.PixelData(sem_seg=torch.tensor([[[1, 1001, 2], [5002, 3, 255]]]))
    assert pictures._panoptic_label_map(coded, image, 3).tolist() == [[1, 1, 2], [2, no, no]]


@pytest.mark.parametrize(
    ('length', 'count', 'indices'),
    [(100, 4, [0, 25, 50, 75]), (3, 8, [0, 1, 2]), (5, 0, []), (0, 4, [])],
)
def test_pictures_are_spread_over_the_data(length, count, indices):
    assert pictures.spread_indices(length, count) == indices
