"""Large images in tiles: ``--slice``."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.blobs import BlobFinder, paint, use_blobs
from helpers.errors import check_refused, refuses

from mmresnest.cli.main import main
from mmresnest.inference import output_checks, slicing
from mmresnest.inference.images import BadImage
from mmresnest.inference.rescale import best_classes, resize_logits
from mmresnest.inference.slicing import SlicedPredictor, View, find_cut, list_tiles, suppress_copies


def make_scene(generator, size, count, side):
    """A picture of blobs on a lattice, in whole pixels and apart from each other."""
    step = 2 * side
    places = [
        (y, x) for y in range(0, size[0] - step, step) for x in range(0, size[1] - step, step)
    ]
    chosen = generator.permutation(len(places))[:count]
    blobs = []
    for at in chosen:
        y, x = np.array(places[at]) + generator.integers(0, side, 2)
        blobs.append((int(generator.integers(3)), int(x), int(y), int(x) + side, int(y) + side))
    return paint(size, *blobs), blobs


def as_rows(found):
    return sorted(
        (int(label), *map(float, np.round(box)))
        for label, box in zip(found.labels, found.boxes, strict=True)
    )


@pytest.mark.parametrize('overlap', [0.0, 0.2, 0.5, 0.93])
def test_tiles_cover_an_image(overlap):
    """Every pixel, and every box no larger than the overlap lies in one tile."""
    for size in ((100, 333), (64, 64), (65, 63), (10, 500), (129, 128)):
        tiles = list_tiles(size, 64, overlap)
        seen = np.zeros(size, int)
        for tile in tiles:
            assert seen[tile.slices].shape == tuple(min(64, side) for side in size)
            seen[tile.slices] += 1
        assert seen.min() >= 1
        least = int(64 * overlap)
        starts = sorted({tile.x0 for tile in tiles})
        assert all(b - a <= 64 - least for a, b in zip(starts, starts[1:], strict=False))
    assert list_tiles((64, 64), 64, overlap) == [View(0, 0, 64, 64)]


def test_too_many_tiles(monkeypatch):
    with refuses('image.too-large', '5000 x 5000', 2745649, 4096, '--slice') as refused:
        list_tiles((5000, 5000), 32, 0.9)
    assert refused.type is BadImage
    told = []
    images = enumerate([np.zeros((5000, 5000, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)])
    sliced = SlicedPredictor(BlobFinder(), 32, 0.9)
    found = dict(sliced.stream(images, 1, lambda *bad: told.append(bad)))
    assert list(found) == [1] and told[0][0] == 0
    with refuses('image.too-large'):
        sliced(np.zeros((5000, 5000, 3), np.uint8))
    monkeypatch.setattr(output_checks, 'MAX_BYTES', 100)
    semantic = SlicedPredictor(BlobFinder('semantic'), 32)
    images = enumerate([np.zeros((64, 64, 3), np.uint8)] * 2)
    assert not list(semantic.stream(images, 3, lambda *bad: told.append(bad)))
    assert [key for key, _ in told] == [0, 0, 1]


@pytest.mark.parametrize('task', ['detection', 'instance', 'semantic'])
@pytest.mark.parametrize('batch_size', [1, 3])
def test_tiles_find_what_the_whole_does(task, batch_size):
    """With a model that loses nothing: sizes mixed, objects at every border, none twice."""
    generator = np.random.default_rng(0)
    images = [make_scene(generator, size, 30, 12)[0] for size in ((200, 300), (90, 400), (40, 50))]
    finder = BlobFinder(task)
    whole = finder(images)
    sliced = SlicedPredictor(BlobFinder(task), 64, 0.25)(images, batch_size)
    for one, two in zip(whole, sliced, strict=True):
        assert one.size == two.size
        if task == 'semantic':
            assert np.array_equal(one.labels, two.labels)
            continue
        assert as_rows(one) == as_rows(two)
        assert (np.diff(two.scores) <= 0).all()
        if task == 'instance':
            assert np.array_equal(one.masks.sum(0), two.masks.sum(0))
            for box, mask in zip(two.boxes.astype(int), two.masks, strict=True):
                assert mask[box[1] : box[3], box[0] : box[2]].all()


@pytest.mark.parametrize('task', ['detection', 'instance', 'semantic'])
def test_one_tile_is_the_whole(task):
    image = make_scene(np.random.default_rng(1), (100, 120), 9, 12)[0]
    one, two = BlobFinder(task)(image), SlicedPredictor(BlobFinder(task), 120)(image)
    for name in ('labels',) if task == 'semantic' else ('boxes', 'scores', 'labels'):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_small_objects_that_the_whole_loses():
    image, blobs = make_scene(np.random.default_rng(2), (400, 600), 25, 12)
    finder = BlobFinder(side=150)  # 12 pixels are 3 then, and 4 are needed
    assert len(finder(image)) == 0
    found = SlicedPredictor(finder, 150)(image)
    assert len(found) == len(blobs)


def test_an_object_larger_than_a_tile_is_one():
    """The whole image has it; pieces of it go, whatever their scores, and what it hides stays."""
    image = paint((300, 300), (0, 20, 20, 280, 280), (1, 100, 100, 110, 110))
    image[20:40, 20:40, 0] = 0  # so that the whole has the lower score
    found = SlicedPredictor(BlobFinder(), 64)(image)
    assert as_rows(found) == [(0, 20, 20, 280, 280), (1, 100, 100, 110, 110)]


def test_a_tile_smaller_than_every_object(tmp_path, monkeypatch):
    """Refused by the first image with objects, before anything is written; later ones may be so."""
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    large = paint((300, 300), (0, 20, 20, 280, 270), (1, 10, 280, 290, 299))
    cv2.imwrite('empty.png', paint((300, 300)))
    cv2.imwrite('large.png', large)
    cv2.imwrite('small.png', paint((300, 300), (1, 100, 100, 110, 110)))
    line = ['predict', '--model', 'a.onnx', '--slice', '64', '--no-vis']
    images = ['empty.png', 'large.png', 'small.png']
    check_refused([*line, *images], 'option.value', '--slice 64', '260 pixels', '--slice 520')
    assert not (tmp_path / 'predictions').exists()
    assert main([*line, 'small.png', 'large.png']) == 0
    with refuses('option.value', '--slice 64'):
        SlicedPredictor(BlobFinder(), 64)(large)


def test_suppression():
    def kept(boxes, scores, views, cut, labels=None):
        labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
        return suppress_copies(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores),
            labels,
            np.array(views, int),
            np.array(cut, bool),
        ).tolist()

    one, shifted, inside = [0, 0, 10, 10], [2, 0, 12, 10], [0, 0, 5, 5]
    assert kept([one, shifted], [0.5, 0.9], [0, 1], [0, 0]) == [1]
    assert kept([one, shifted], [0.5, 0.9], [0, 0], [0, 0]) == [1, 0], 'the model kept both'
    assert sorted(kept([one, shifted], [0.5, 0.9], [0, 1], [0, 0], [0, 1])) == [0, 1]
    assert kept([one, inside], [0.5, 0.9], [0, 1], [0, 0]) == [1, 0], 'a small one before a large'
    assert kept([one, inside], [0.5, 0.9], [0, 1], [0, 1]) == [0], 'a piece of it'
    assert kept([], [], [], []) == []
    size = (100, 200)
    view = View(0, 50, 100, 150)
    boxes = np.array([[60, 0, 90, 100], [50, 5, 90, 9], [60, 5, 150, 9], [53, 5, 147, 9]])
    assert find_cut(boxes, view, size).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    'more, code, said',
    [
        (['--slice', '16'], 'option.value', '--slice 16'),
        (['--slice', '-5'], 'option.value', '--slice -5'),
        (['--slice', '64', '--overlap', '1'], 'option.value', '--overlap 1'),
        (['--slice', '64', '--overlap', '-0.1'], 'option.value', '--overlap -0.1'),
        (['--slice', '64', '--overlap', 'nan'], 'option.value', '--overlap nan'),
        (['--overlap', '0.2'], 'option.needed', '--slice'),
    ],
)
def test_refused(tmp_path, monkeypatch, capsys, more, code, said):
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    cv2.imwrite('a.png', paint((80, 80)))
    check_refused(['predict', '--model', 'a.onnx', 'a.png', *more], code, said)
    assert capsys.readouterr().err.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_a_panoptic_model_is_refused():
    finder = BlobFinder()
    finder.task = 'panoptic'
    with refuses('option.conflict', 'panoptic'):
        SlicedPredictor(finder, 64)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch, side=150)
    image, blobs = make_scene(np.random.default_rng(2), (400, 600), 25, 12)
    cv2.imwrite('a.png', image[:, :, ::-1])
    line = ['predict', '--model', 'a.onnx', 'a.png', '--slice', '150', '--no-vis']
    assert main([*line, '--batch-size', '4']) == 0
    rows = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    assert len(rows) == len(blobs)
    assert slicing.OVERLAP == 0.2, 'as the help says'


@pytest.mark.parametrize('align_corners', [False, True])
def test_scores_of_exported_files(align_corners):
    """Scaled to the tile as torch does, and of the classes that a prediction alone has."""
    logits = np.random.default_rng(0).normal(size=(5, 9, 13)).astype(np.float32)
    for size in ((30, 41), (7, 6), (9, 13)):
        mine = resize_logits(logits, size, align_corners)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None], size, mode='bilinear', align_corners=align_corners
        )
        np.testing.assert_allclose(mine, theirs[0].numpy(), atol=1e-5)
        assert np.array_equal(mine.argmax(0), best_classes(logits, size, align_corners))
