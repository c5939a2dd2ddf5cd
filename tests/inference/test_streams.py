"""Cameras and streams, by servers on the loopback and by films in the place of cameras."""

import json
import os
import signal
import threading

import cv2
import numpy as np
import pytest
from helpers.blobs import BlobFinder, paint, use_blobs
from helpers.cameras import serve_pictures
from helpers.errors import check_refused, refuses

from mmresnest.cli.main import main
from mmresnest.inference import streams
from mmresnest.inference.inputs import find_sources
from mmresnest.inference.streams import Stream, find_stream, is_stream, iter_stream
from mmresnest.inference.videos import VideoWriter

RATE = 10.0


def make_pictures(first, count):
    """Pictures in which a red blob wanders by 5 pixels a frame."""
    return [
        paint((60, 200), (0, 5 * at, 10, 5 * at + 30, 40)) for at in range(first, first + count)
    ]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(streams, 'WAITS', (0.05, 0.05))


def read_results(folder, name):
    rows = json.loads((folder / 'predictions.json').read_text())
    film = cv2.VideoCapture(str(folder / f'pictures/{name}.mp4'))
    count = 0
    while film.read()[0]:
        count += 1
    film.release()
    return rows, count


def test_a_stream_that_stutters_and_ends(tmp_path, monkeypatch, capfd):
    """What is found until then is written whole; neither user nor token stands anywhere."""
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    look = make_pictures(0, 3)
    pictures = make_pictures(0, 12)
    pictures[5] = None
    with serve_pictures([look, pictures, make_pictures(12, 6)]) as address:
        line = ['predict', '--model', 'a.onnx', address, '--out', 'found', '--save-txt']
        assert main(line) == 0
    out, err = capfd.readouterr()
    label = 'http://127.0.0.1:' + address.rpartition(':')[2].partition('/')[0] + '/live?...'
    assert f'{label} is live: Ctrl-C ends it' in err
    assert f'{label} gives no picture after' in err and f'{label} ended after' in err
    assert 'predicted: ' in out and 'secret' not in out + err and 'hidden' not in out + err
    (name,) = (path.stem for path in (tmp_path / 'found/pictures').iterdir())
    rows, count = read_results(tmp_path / 'found', name)
    frames = [row['frame'] for row in rows]
    assert frames == sorted(set(frames)) and 2 <= len(frames) <= 18
    assert count == frames[-1] - frames[0] + 1, 'a picture stands for those that were passed over'
    assert {row['file_name'] for row in rows} == {label}
    assert len(list((tmp_path / f'found/labels/{name}').iterdir())) == len(frames)
    left = ''.join(path.read_text(errors='replace') for path in tmp_path.rglob('*.json'))
    assert 'secret' not in left and 'hidden' not in left


def test_the_first_signal_ends_a_stream(tmp_path, monkeypatch, capfd):
    """Ctrl-C writes what was found; the second one interrupts."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)

    class Interrupted(BlobFinder):
        seen = 0

        def predict_batch(self, samples):
            Interrupted.seen += 1
            if Interrupted.seen == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().predict_batch(samples)

    monkeypatch.setattr('mmresnest.inference.exported.ExportedModel', lambda *_: Interrupted())
    with serve_pictures([make_pictures(0, 3), make_pictures(0, 30) * 40]) as address:
        assert main(['predict', '--model', 'a.onnx', address, '--out', 'found']) == 0
    assert 'predicted: 4 images' in capfd.readouterr().out
    assert len(json.loads((tmp_path / 'found/predictions.json').read_text())) == 4
    assert signal.getsignal(signal.SIGINT) is before
    stop = threading.Event()
    with pytest.raises(KeyboardInterrupt), streams.stop_on_signal(stop):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)


def test_a_camera(tmp_path, monkeypatch, capfd):
    """A film in the place of one; it is unplugged in the end."""
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    film = cv2.VideoWriter('film.avi', cv2.VideoWriter.fourcc(*'MJPG'), RATE, (200, 60))
    for picture in make_pictures(0, 20):
        film.write(picture[:, :, ::-1])
    film.release()
    opened, path = [], str(tmp_path / 'film.avi')
    real = cv2.VideoCapture

    def open_capture(address, *more):
        if isinstance(address, int):
            opened.append(address)
            return real(path if len(opened) < 3 else str(tmp_path / 'gone.avi'))
        return real(address, *more)

    monkeypatch.setattr(cv2, 'VideoCapture', open_capture)
    endless = cv2.CAP_PROP_FRAME_COUNT
    monkeypatch.setattr(streams, 'read_length', lambda capture: (RATE, None) if endless else None)
    assert main(['predict', '--model', 'a.onnx', '0', '--vid-stride', '4']) == 0
    assert set(opened) == {0}
    rows, count = read_results(tmp_path / 'predictions', 'camera_0')
    frames = [row['frame'] for row in rows]
    assert all(b - a >= 4 for a, b in zip(frames, frames[1:], strict=False))
    assert rows[0]['file_name'] == 'camera 0' and count >= len(frames) >= 1
    assert 'camera 0 ended after 20 pictures' in capfd.readouterr().err
    (tmp_path / '0').write_text('a file of this name goes before the camera')
    assert not is_stream('0') and is_stream('1') and not is_stream('1.mp4')


def test_a_film_on_a_server(monkeypatch):
    """It is read picture by picture, and if it breaks off it is said where."""
    told, served = [], make_pictures(0, 7)
    with serve_pictures([served, served], pause=0) as address:
        stream = Stream(address, 'the film', RATE, 7)
        read = list(iter_stream(stream, 3, told.append, threading.Event()))
        assert [number for number, _ in read] == [0, 3, 6] and not told
        assert abs(read[1][1].astype(int) - served[3]).mean() < 4, 'in RGB'
        stream = Stream(address, 'the film', RATE, 100)
        assert len(list(iter_stream(stream, 1, told.append, threading.Event()))) == 7
    assert told == ['the film ended after 7 of 100 pictures']


def test_a_picture_of_another_size(tmp_path):
    film = VideoWriter('camera', [tmp_path / 'a.avi'], RATE)
    monkey = pytest.MonkeyPatch()
    monkey.setattr('mmresnest.inference.videos.CODECS', (('.avi', 'MJPG'),))
    for size in ((48, 64), (64, 48)):
        film.add_frame(np.full((*size, 3), 99, np.uint8))
    monkey.undo()
    assert film.close() == tmp_path / 'a.avi'
    read = cv2.VideoCapture(str(tmp_path / 'a.avi'))
    assert [read.read()[1].shape for _ in range(2)] == [(48, 64, 3)] * 2 and not read.read()[0]


def test_names(monkeypatch):
    def named(address):
        return Stream(address, streams._hide_login(str(address)), RATE, None).file_name

    assert named('rtsp://a:b@10.0.0.7:554/live/1?x=y') == '10_0_0_7_554_live_1'
    assert named('http://../..') == 'stream' and named(3) == 'camera_3'
    assert named('http://h/a#token=b') == 'h_a'
    monkeypatch.setattr(
        'mmresnest.inference.inputs.find_stream', lambda text: Stream(text, text, RATE, None)
    )
    sources = find_sources(['rtsp://h/a?1', 'rtsp://h/a?2', 'rtsp://h/a?1'])
    assert len(sources) == 2 and len({source.name for source in sources}) == 2


@pytest.mark.parametrize(
    'given, code, said',
    [
        ('http://127.0.0.1:9/live', 'stream.unreachable', 'http://127.0.0.1:9/live'),
        ('rtsp://user:secret@127.0.0.1:9/live', 'stream.unreachable', 'rtsp://127.0.0.1:9'),
        ('963', 'stream.unreachable', 'camera 963'),
        ('rstp://camera/live', 'option.unknown', 'nearest: rtsp'),
        ('file:///a/b.mp4', 'option.unknown', 'path'),
        ('https://a.b/c.jpg', 'image.missing', 'download'),
    ],
)
def test_what_cannot_be_reached(tmp_path, monkeypatch, capfd, given, code, said):
    monkeypatch.chdir(tmp_path)
    use_blobs(monkeypatch)
    check_refused(['predict', '--model', 'a.onnx', given], code, said)
    out, err = capfd.readouterr()
    # FFmpeg's own lines cannot be silenced where a test before this one has used it.
    lines = [line for line in err.splitlines() if not line.startswith('[')]
    assert len(lines) == 1 and said in lines[0] and 'secret' not in err, err
    assert not out and not list(tmp_path.iterdir())
    with refuses(code):
        find_stream(given)
