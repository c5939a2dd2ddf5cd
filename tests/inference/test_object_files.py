"""Text files, crops and the choice of classes: ``--save-txt``, ``--save-crops``, ``--classes``."""

import cv2
import numpy as np
import pytest
from helpers.blobs import NAMES, paint, use_blobs
from helpers.errors import check_refused, refuses

from mmresnest.cli.main import main
from mmresnest.data.formats.yolo import read_yolo
from mmresnest.inference.class_filter import filter_by_class, find_labels
from mmresnest.inference.crops import cut_object, name_folder
from mmresnest.inference.predict import predict_exported
from mmresnest.inference.results import Detections, PanopticSegmentation, Segment
from mmresnest.inference.yolo_lines import format_yolo_lines


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[:, :, ::-1])


def make_detections(boxes, size, masks=None):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.arange(count) % 3,
        NAMES,
        masks,
        size,
    )


def test_what_is_written(tmp_path, monkeypatch, capsys):
    """Two pictures of one name, a film, nothing found in one: no file takes another's place."""
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    save(tmp_path / 'one/a.png', paint((40, 80), (0, 8, 10, 28, 20), (2, 40, 0, 60, 40)))
    save(tmp_path / 'two/a.png', paint((40, 80), (1, 0, 0, 80, 40)))
    save(tmp_path / 'none.png', paint((40, 80)))
    film = cv2.VideoWriter('film.avi', cv2.VideoWriter.fourcc(*'MJPG'), 10, (80, 40))
    for _ in range(2):
        film.write(paint((40, 80), (0, 8, 8, 24, 24))[:, :, ::-1])
    film.release()
    line = ['predict', '--model', 'a.onnx', 'one', 'two', 'none.png', 'film.avi', '--save-txt']
    line += ['--save-conf', '--save-crops', '--no-vis', '--out', 'found']
    assert main(line) == 0
    assert 'written: found/labels' in capsys.readouterr().out
    found = tmp_path / 'found'
    assert sorted(path.relative_to(found).as_posix() for path in found.rglob('*.*')) == [
        'classes.txt',
        'crops/blue/one_a_0002.jpg',
        'crops/green/two_a_0001.jpg',
        'crops/red/film/000000_0001.jpg',
        'crops/red/film/000001_0001.jpg',
        'crops/red/one_a_0001.jpg',
        'labels/film/000000.txt',
        'labels/film/000001.txt',
        'labels/none.txt',
        'labels/one_a.txt',
        'labels/two_a.txt',
        'predictions.images.json',
        'predictions.json',
    ]
    assert (found / 'labels/one_a.txt').read_text() == (
        '0 0.225000 0.375000 0.250000 0.250000 1\n2 0.625000 0.500000 0.250000 1.000000 1\n'
    )
    assert (found / 'labels/none.txt').read_text() == ''
    assert (found / 'classes.txt').read_text().split() == list(NAMES)
    assert cv2.imread(str(found / 'crops/red/one_a_0001.jpg')).shape == (10, 20, 3)
    check_refused(line, 'option.exists', '--out found', '--force')
    source = found / 'crops/red/film/000000_0001.jpg'
    read = [*line[:3], str(source), *line[3:], '--force']
    check_refused(read, 'option.overwrites-input', source, '--out')


def test_a_crop_larger_than_a_jpeg_is_told(tmp_path, monkeypatch, capsys):
    """And costs none of the others."""
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    save(tmp_path / 'a.png', paint((20, 66_000), (0, 0, 0, 66_000, 8), (1, 10, 12, 20, 20)))
    line = ['predict', '--model', 'a.onnx', 'a.png', '--save-crops', '--no-vis', '--out', 'found']
    assert main(line) == 0
    assert '1 boxes have' in capsys.readouterr().err
    assert [path.parent.name for path in tmp_path.glob('found/crops/*/*.jpg')] == ['green']


@pytest.mark.parametrize('task', ['detection', 'instance'])
def test_our_reader_of_yolo_reads_them(tmp_path, monkeypatch, task):
    use_blobs(monkeypatch, task=task)
    image = paint((100, 200), (0, 20, 30, 60, 70), (2, 100, 0, 200, 100))
    save(tmp_path / 'out/images/a.png', image)
    predict_exported(
        'a.onnx',
        [tmp_path / 'out/images/a.png'],
        out=tmp_path / 'out',
        save_txt=True,
        vis=False,
        force=True,
    )
    (part,) = read_yolo(tmp_path / 'out').parts.values()
    boxes = np.array([row['bbox'] for row in part.table['annotations']])
    np.testing.assert_allclose(boxes, [[20, 30, 40, 40], [100, 0, 100, 100]], atol=0.6)


def test_an_outline_covers_its_mask():
    mask = np.zeros((60, 90), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    mask[50:, 80:] = 1  # the smaller part of an object that is cut in two
    masks = np.stack([mask > 0, np.zeros((60, 90), bool)])
    found = make_detections([[20, 10, 90, 60], [3, 3, 6, 6]], (60, 90), masks)
    one, two = format_yolo_lines(found, False).splitlines()
    corners = np.array(one.split()[1:], float).reshape(-1, 2) * (90, 60)
    drawn = np.zeros((60 * 8, 90 * 8), np.uint8)
    cv2.fillPoly(drawn, [np.round(corners * 8).astype(np.int32)], 1)
    mask[50:, 80:] = 0
    fine = np.kron(mask, np.ones((8, 8), np.uint8))
    assert (drawn & fine).sum() / (drawn | fine).sum() > 0.97
    x, y = corners.T
    area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    assert area == pytest.approx(mask.sum(), abs=0.1), 'along the edges of its pixels'
    assert np.array(two.split()[1:], float) * ((90, 60) * 4) == pytest.approx(
        [3, 3, 6, 3, 6, 6, 3, 6], abs=1e-4
    )


def test_boxes_outside_and_without_area():
    """They have neither a line nor a crop; one that reaches out has those of its part inside."""
    image = np.zeros((20, 30, 3), np.uint8)
    nothing = [[-9, 2, 0, 8], [30, 2, 40, 8], [5, 5, 5, 9], [9, 9, 3, 12], [np.nan, 0, 3, 3]]
    for box in nothing:
        assert cut_object(image, np.array(box, np.float32)) is None, box
    assert format_yolo_lines(make_detections(nothing, (20, 30)), True) == ''
    partly = np.array([-6, 10, 6, 40], np.float32)
    assert cut_object(image, partly).shape == (10, 6, 3)
    line = format_yolo_lines(make_detections([partly], (20, 30)), False)
    assert line == '0 0.100000 0.750000 0.200000 0.500000\n'


def test_names_of_folders():
    for name, folder in (
        ('traffic light', 'traffic light'),
        ('../../etc', '_.._etc'),
        ('..', '_'),
        ('', '_'),
        ('a/b\\c:d', 'a_b_c_d'),
        ('x' * 300, 'x' * 80),
        ('a\nb', 'a_b'),
    ):
        assert name_folder(name) == folder


def test_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    save(tmp_path / 'a.png', paint((40, 80), (0, 8, 10, 28, 20), (2, 40, 0, 60, 40)))
    line = ['predict', '--model', 'a.onnx', 'a.png', '--classes']
    assert main([*line, 'blue, green', '--no-vis']) == 0
    assert '1 object' in capsys.readouterr().out
    assert find_labels('blue,red', NAMES) == {0, 2}
    for given, said in (('blu', 'nearest: blue'), ('red,rat', "'rat'"), (',', 'legal: red')):
        check_refused([*line, given, '--out', 'other'], 'option.unknown', '--classes', said)
        assert not (tmp_path / 'other').exists()
    with refuses('option.unknown', "'red'"):
        find_labels('red', ())


def test_segments_of_some_classes():
    ids = np.array([[1, 1, 2, 3, 0]])
    segments = (Segment(1, 4, False, 2), Segment(2, 0, True, 1), Segment(3, 4, True, 1))
    found = PanopticSegmentation(ids, segments, tuple('abcde'), (1, 5))
    kept = filter_by_class(found, {4})
    assert kept.ids.tolist() == [[1, 1, 0, 2, 0]]
    assert kept.labels.tolist() == [[4, 4, -1, 4, -1]]
    assert [one.id for one in kept.segments] == [1, 2]


@pytest.mark.parametrize(
    'task, more, code, named',
    [
        ('semantic', ['--save-txt'], 'option.conflict', '--save-txt'),
        ('semantic', ['--save-crops'], 'option.conflict', '--save-crops'),
        ('semantic', ['--classes', 'red'], 'option.conflict', '--classes'),
        ('detection', ['--save-conf'], 'option.needed', '--save-txt'),
    ],
)
def test_refused_by_name(tmp_path, monkeypatch, capsys, task, more, code, named):
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch, task=task)
    save(tmp_path / 'a.png', paint((40, 80)))
    check_refused(['predict', '--model', 'a.onnx', 'a.png', *more], code, named)
    assert capsys.readouterr().err.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
