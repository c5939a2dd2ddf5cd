"""Objects that are followed through films: ``--track``."""

import json
import sys

import cv2
import numpy as np
import pytest
from helpers.blobs import NAMES, paint, use_blobs
from helpers.errors import check_refused

from mmresnest.cli.main import main
from mmresnest.inference.option_checks import needed_score
from mmresnest.inference.options import ExportedOptions
from mmresnest.inference.results import Detections
from mmresnest.inference.writer import ResultWriter
from mmresnest.visualization.canvas import class_color

FRAMES = 40
HIDDEN = range(18, 23)


def list_blobs(frame):
    """Red and green pass through each other, blue stands still and is hidden for a while."""
    blobs = [
        (0, 10 + 5 * frame, 30, 50 + 5 * frame, 70),
        (1, 210 - 5 * frame, 52, 250 - 5 * frame, 92),
    ]
    return blobs if frame in HIDDEN else [*blobs, (2, 20, 100, 60, 140)]


def write_film(path, frames=FRAMES):
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 20, (256, 160))
    for frame in range(frames):
        film.write(paint((160, 256), *list_blobs(frame))[:, :, ::-1])
    film.release()


def test_identities_last(tmp_path, monkeypatch):
    """Through a crossing and while hidden; of two films each has its own."""
    pytest.importorskip('trackers')
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    for name in ('one.avi', 'two.avi'):
        write_film(tmp_path / name)
    line = ['predict', '--model', 'a.onnx', 'one.avi', 'two.avi', '--track', '--no-vis']
    assert main([*line, '--batch-size', '3']) == 0
    rows = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    for film in ('one.avi', 'two.avi'):
        seen = {}
        for row in rows:
            if row['file_name'] == film:
                assert ('track_id' in row) == (row['frame'] > 0), 'from the second frame on'
                if row['frame']:
                    seen.setdefault(row['category_id'], []).append(row['track_id'])
        assert sorted(map(len, seen.values())) == [FRAMES - 1 - len(HIDDEN), FRAMES - 1, FRAMES - 1]
        assert all(len(set(ids)) == 1 for ids in seen.values()), 'none is mistaken for another'
        assert {ids[0] for ids in seen.values()} == {1, 2, 3}


def make_objects(scores, ids=None):
    count = len(scores)
    boxes = [[40 * at, 0, 40 * at + 30, 30] for at in range(count)]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.zeros(count, np.int64),
        NAMES,
        None,
        (60, 160),
        ids,
    )


def test_a_low_score_continues_and_begins_nothing():
    pytest.importorskip('trackers')
    from mmresnest.inference.inputs import Item, Source
    from mmresnest.inference.tracking import follow_objects

    frames = [[0.9, 0.2], [0.9, 0.2], [0.2, 0.2], [0.9, 0.2], [0.9, 0.5], [0.9, 0.5], []]
    source = Source('a.avi', 'a', True)
    items = [(Item(at + 1, source, at, None), make_objects(one)) for at, one in enumerate(frames)]
    found = [result for _, result in follow_objects(items, lambda _: 25.0, 0.3)]
    assert [one.ids.tolist() for one in found] == [[-1], [1], [], [1], [1, -1], [1, 2], []]
    assert needed_score(ExportedOptions(track=True)) == 0.1
    assert needed_score(ExportedOptions(track=True, score_thr=0.05)) == 0.05
    assert needed_score(ExportedOptions()) == 0.3


def test_a_film_that_changes_its_size_stays_in_order(tmp_path, monkeypatch):
    """Whatever waits for a batch: an identity is that of one frame after the other."""
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    write_film(tmp_path / 'a.avi', 1)
    sizes = [(40, 80), (60, 80), (60, 80), (40, 80), (40, 80), (60, 80)]
    frames = [(at, paint(size, (0, 10, 10, 30, 30))) for at, size in enumerate(sizes)]
    monkeypatch.setattr('mmresnest.inference.predict.iter_frames', lambda *_: iter(frames))
    seen, add = [], ResultWriter.add_result
    monkeypatch.setattr(
        ResultWriter,
        'add_result',
        lambda self, item, result: (seen.append(item.frame), add(self, item, result)),
    )
    assert main(['predict', '--model', 'a.onnx', 'a.avi', '--batch-size', '4', '--no-vis']) == 0
    assert seen == list(range(6))


def test_of_two_classes_at_one_place_the_better_is_followed():
    """Whichever of them that is, the identity is one."""
    pytest.importorskip('trackers')
    from mmresnest.inference.tracking import FilmTracker

    tracker, boxes = FilmTracker(25.0, 0.3), np.array([[0, 0, 30, 30], [1, 0, 31, 30]], np.float32)
    found = []
    for scores in ([0.9, 0.4], [0.9, 0.4], [0.4, 0.9], [0.9, 0.4]):
        labels = np.array([0, 1])
        objects = Detections(boxes, np.array(scores), labels, NAMES, None, (60, 60))
        found.append(tracker.follow(objects).ids.tolist())
    assert found == [[-1, -1], [1, -1], [-1, 1], [1, -1]]


def test_an_identity_has_its_color():
    image = np.full((60, 160, 3), 128, np.uint8)
    plain = make_objects([0.9, 0.8]).draw(image)
    drawn = make_objects([0.9, 0.8], np.array([4, -1])).draw(image)
    assert (drawn[:, :140] != plain[:, :140]).any(), 'the first has the color and number of 4'
    assert np.array_equal(drawn[:, 150:], plain[:, 150:]), 'the second that of its class'
    color = np.round(255 * np.array(class_color(3)))
    assert (abs(drawn - color).max(2) < 3).sum() > 100
    rows = make_objects([0.9, 0.8], np.array([4, -1])).to_coco(1)
    assert rows[0]['track_id'] == 4 and 'track_id' not in rows[1]


@pytest.mark.parametrize(
    'task, words, missing, code, part',
    [
        ('detection', ['a.avi', 'a.png'], False, 'option.conflict', 'a.png'),
        ('detection', ['a.avi', '--score-thr', '5'], False, 'option.value', 'score_thr 5'),
        ('semantic', ['a.avi'], False, 'option.conflict', 'semantic segmentation'),
        ('detection', ['a.avi'], True, 'package.missing', 'pip install "mmresnest[track]"'),
    ],
)
def test_refused_by_name(tmp_path, monkeypatch, capsys, task, words, missing, code, part):
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch, task=task)
    if missing:
        monkeypatch.setitem(sys.modules, 'trackers', None)
    else:
        pytest.importorskip('trackers')
    write_film(tmp_path / 'a.avi', 2)
    cv2.imwrite('a.png', paint((160, 256)))
    check_refused(['predict', '--model', 'a.onnx', *words, '--track'], code, part)
    assert capsys.readouterr().err.count('\n') == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.avi', 'a.png']


def test_supervision_gets_the_identities():
    pytest.importorskip('supervision')
    found = make_objects([0.9, 0.8], np.array([4, -1])).to_supervision()
    assert found.tracker_id.tolist() == [4, -1]
