"""The page of ``mmresnest demo``: what is behind it, its server, and the page in a browser."""

import io
import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import zipfile
import zlib
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from helpers import constant_models as constant
from helpers.browser import open_browser
from helpers.errors import check_error, refuses, run_refused

from mmresnest.cli.main import main
from mmresnest.inference.exported import ExportedModel
from mmresnest.inference.page import server as servers
from mmresnest.inference.page import session as sessions
from mmresnest.inference.page.serve import open_page
from mmresnest.inference.page.session import PageSession, View, clean_name
from mmresnest.inference.results import PanopticSegmentation, Segment

PICTURE = np.random.default_rng(0).integers(0, 256, (*constant.SIZE, 3), np.uint8)


class ConstantSession:
    """A runtime that gives constants, and counts how often it is asked."""

    def __init__(self, metadata, *outputs):
        self.metadata, self.outputs, self.runs = metadata, outputs, 0

    def run(self, *inputs):
        self.runs += 1
        return list(self.outputs)


def make_session(score_thr=0.3):
    runtime = ConstantSession(constant.DETECTOR, constant.BOXES, constant.SCORES, constant.LABELS)
    return PageSession(ExportedModel(runtime, 0.05), 'a model', score_thr), runtime


def encode(image=PICTURE, suffix='.png'):
    return cv2.imencode(suffix, image)[1].tobytes()


@contextmanager
def serving(session, host='127.0.0.1'):
    """Serve a page; give what asks it."""
    server = servers.open_server(host, 0)
    server.session = session
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02))
    thread.start()

    def ask(path, body=None, headers=None):
        request = Request(server.url + path, body, headers or {})
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())['error'], error.headers

    try:
        yield SimpleNamespace(ask=ask, server=server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_threshold_and_a_choice_of_classes_filter_what_was_found():
    session, runtime = make_session()
    sent = session.add_picture('street.png', encode())
    assert (sent['name'], sent['width'], sent['height']) == ('street.png', 64, 40)
    for view, names in {
        View(0.3): ['a', 'b'],
        View(0.85): ['a'],
        View(0.95): [],
        View(0.3, frozenset({1})): ['b'],
        View(0.85, frozenset({1})): [],
        View(0.3, frozenset()): [],
    }.items():
        rows = session.describe_result(sent['id'], view)['rows']
        assert [row['name'] for row in rows] == names
        saved = json.loads(session.save_result(sent['id'], view, 'predictions.json'))
        assert ['ab'[row['category_id'] - 1] for row in saved] == names
        assert session.draw_picture(sent['id'], view)[:2] == b'\xff\xd8'
    assert rows == [] and runtime.runs == 1
    drawn = [session.draw_picture(sent['id'], View(score)) for score in (0.3, 0.85, 0.95)]
    assert len(set(drawn)) == 3


def test_segmentors_have_a_legend():
    runtime = ConstantSession(constant.SEGMENTOR, constant.LOGITS, constant.CLASSES)
    session = PageSession(ExportedModel(runtime, 0.05), 'a model')
    assert session.describe_model()['scored'] is False
    number = session.add_picture('street.png', encode())['id']
    said = session.describe_result(number, View(0.3))
    shares = {name: (constant.CLASSES == label).mean() for label, name in enumerate('ab')}
    expected = sorted(shares.items(), key=lambda pair: -pair[1])
    rows = [(row['name'], row['value']) for row in said['rows']]
    assert rows == [(name, f'{share:.1%}') for name, share in expected]
    one = View(0.3, frozenset({0}))
    assert [row['name'] for row in session.describe_result(number, one)['rows']] == ['a']
    assert session.draw_picture(number, one) != session.draw_picture(number, View(0.3))
    with zipfile.ZipFile(io.BytesIO(session.save_result(number, one, 'predictions.zip'))) as files:
        names = ['labels/street.png', 'pictures/street.jpg', 'predictions.json']
        assert files.namelist() == names
        saved = cv2.imdecode(np.frombuffer(files.read(names[0]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(saved, constant.CLASSES[0]), 'whatever is shown'


def test_panoptic_segments_are_filtered_by_class():
    ids = np.zeros(constant.SIZE, np.int64)
    ids[:10], ids[10:16] = 1, 2
    segments = Segment(1, 0, True, 640), Segment(2, 1, False, 384)
    found = PanopticSegmentation(ids, segments, ('cat', 'sky'), constant.SIZE)

    class Model(SimpleNamespace):
        def __call__(self, image):
            return found

    session = PageSession(Model(names=('cat', 'sky'), task='panoptic', num_things=1), 'a model')
    number = session.add_picture('x.png', encode())['id']
    assert [
        [(row['name'], row['value']) for row in session.describe_result(number, view)['rows']]
        for view in (View(0.3), View(0.3, frozenset({1})))
    ] == [[('cat', '25.0%'), ('sky', '15.0%')], [('sky', '15.0%')]]
    saved = json.loads(session.save_result(number, View(0.3, frozenset({1})), 'predictions.json'))
    assert [row['category_id'] for row in saved['annotations'][0]['segments_info']] == [2]


def claim_size(width, height):
    """The header of a PNG, all that is read of it."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    sum_ = struct.pack('>I', zlib.crc32(header))
    return b'\x89PNG\r\n\x1a\n\0\0\0\r' + header + sum_ + b'\0\0\0\0IEND\xaeB`\x82'


BROKEN = {
    'notes.jpg': b'no picture',
    'empty.png': b'',
    'cut.png': encode()[:2000],
    'cut.jpg': encode(suffix='.jpg')[:900],
    'bomb.png': claim_size(10_000, 10_000),
    'larger.png': claim_size(60_000, 60_000),
}


def test_broken_files_get_a_message():
    session, runtime = make_session()
    with serving(session) as page:
        for name, content in BROKEN.items():
            status, said, _ = page.ask('predict?' + urlencode(dict(name=name)), content)
            assert status == 422 and said.startswith(f'{name}: '), (name, said)
            assert 'Traceback' not in said and 'tmp' not in said
        assert '10000 x 10000' in page.ask('predict?name=b', BROKEN['bomb.png'])[1]
        assert runtime.runs == 0
        runtime.outputs = ()
        assert page.ask('predict?name=x', encode())[0] == 422, 'the file of the model is at fault'
        status, said, _ = page.ask('predict?name=x', b'x', {'Content-Length': '100000001'})
        assert status == 413 and '100 MB' in said


def test_a_mistake_of_ours_is_told_in_the_terminal(capsys):
    session, _ = make_session()
    session.model = None
    with serving(session) as page:
        status, said, _ = page.ask('predict?name=x', encode())
    assert status == 500 and 'TypeError' in said and 'Traceback' in capsys.readouterr().err


def test_what_the_browser_asks(tmp_path, monkeypatch):
    """The page, a picture, rows, a drawing; and the json that ``predict`` writes, to the byte."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    outputs = [constant.BOXES, constant.SCORES, constant.LABELS]
    constant.write_model(tmp_path / 'a.onnx', outputs)
    (tmp_path / 'two words.png').write_bytes(encode())
    words = ['--score-thr', '0.85', '--classes', 'a', '--out', 'found']
    assert main(['predict', '--model', 'a.onnx', 'two words.png', *words]) == 0
    server = open_page('a.onnx', port=0)
    server.server_close()
    with serving(server.session) as page:
        for path in ('', 'page.js', 'page.css'):
            status, content, headers = page.ask(path)
            assert status == 200 and b'://' not in content.replace(b'http://www.w3.org', b'')
            assert "default-src 'none'" in headers['Content-Security-Policy']
        model = json.loads(page.ask('model')[1])
        assert (model['title'], model['task']) == ('a.onnx', 'detection')
        assert [one['name'] for one in model['classes']] == ['a', 'b']
        _, content, _ = page.ask('predict?name=C:%5Cx%5Ctwo+words.png', encode())
        view = urlencode(dict(id=json.loads(content)['id'], score=0.85, classes='0'))
        [row] = json.loads(page.ask(f'result?{view}')[1])['rows']
        assert (row['name'], row['value']) == ('a', '0.90')
        assert page.ask(f'picture.jpg?{view}')[1][:2] == b'\xff\xd8'
        _, saved, headers = page.ask(f'predictions.json?{view}')
        assert saved == (tmp_path / 'found' / 'predictions.json').read_bytes()
        assert 'two%20words.predictions.json' in headers['Content-Disposition']
        with zipfile.ZipFile(io.BytesIO(page.ask(f'predictions.zip?{view}')[1])) as files:
            for name in files.namelist():
                assert files.read(name) == (tmp_path / 'found' / name).read_bytes(), name
            assert len(files.namelist()) == 3
        for path, code in {
            'result?id=1': 422,
            f'result?{view}x': 400,
            f'result?{view}&score=x': 400,
            'other': 404,
            '../session.py': 404,
        }.items():
            assert page.ask(path)[0] == code, path
        assert page.ask('other', b'')[0] == 404


def test_pages_of_elsewhere_are_refused():
    session, runtime = make_session()
    with serving(session) as page:
        own = page.server.url.rstrip('/')
        for headers, status in (
            ({'Origin': own}, 200),
            ({'Origin': 'http://evil.example'}, 403),
            ({'Origin': 'null'}, 403),
            ({'Origin': 'http://[evil'}, 400),
            ({'Host': 'evil.example'}, 403),
            ({'Host': '[evil'}, 400),
            ({'Content-Length': '9' * 5000}, 413),
            ({'Host': f'localhost:{page.server.server_port}'}, 200),
        ):
            assert page.ask('predict?name=x', encode(), headers)[0] == status, headers
        assert page.ask('', None, {'Host': 'evil.example'})[0] == 403
    assert runtime.runs == 2
    with serving(session, '0.0.0.0') as page:  # asked for: any name leads to it
        assert page.ask('', None, {'Host': 'gpu7.example'})[0] == 200
        assert not page.server.is_local and page.server.url.startswith('http://127.0.0.1:')


def test_few_pictures_are_kept(monkeypatch):
    session, _ = make_session()
    numbers = [session.add_picture('x.png', encode())['id'] for _ in range(sessions.MAX_KEPT + 1)]
    with refuses('page.forgotten'):
        session.find_picture(numbers[0])
    assert session.find_picture(numbers[1]).bytes >= PICTURE.nbytes
    monkeypatch.setattr(sessions, 'MAX_BYTES', 1)
    number = session.add_picture('x.png', encode())['id']
    assert session.find_picture(number)
    with refuses('page.forgotten'):
        session.find_picture(numbers[-1])


def test_names_of_files():
    for given, name in {
        'street.jpg': 'street.jpg',
        '../../etc/passwd': 'passwd',
        'C:\\x\\y.png': 'y.png',
        '..': 'picture',
        '': 'picture',
        'a:b?.png': 'a_b_.png',
        'a\x1b[2J.png': 'a_x1b[2J.png',
        'x' * 300 + '.png': 'x' * 96 + '.png',
    }.items():
        assert clean_name(given).replace('\\', '_') == name


def test_what_cannot_be_served(tmp_path, capsys):
    model = tmp_path / 'a.onnx'
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        error = run_refused(['demo', str(model), '--port', str(port)])
        check_error(error, 'page.port', f'--port {port} ')
        assert 'Traceback' not in capsys.readouterr().err
        free = int(str(error).split('--port ')[-1])
        assert port < free < port + servers.TRIED_PORTS
    with refuses('exported.missing', model):
        open_page(model, port=0)
    for source, given, code in (
        (model, dict(port=70_000), 'option.value'),
        (model, dict(score_thr=2), 'option.value'),
        (model, dict(host='192.0.2.1', port=0), 'page.host'),
        (tmp_path / 'epoch_1.pth', {}, 'page.source'),
        (tmp_path / 'nowhere', {}, 'page.source'),
        (tmp_path, dict(port=0), 'report.nothing'),
    ):
        with refuses(code):
            open_page(source, **given)
    with refuses('option.conflict', '--checkpoint'):
        open_page(model, 'x.pth')


def test_ctrl_c_ends_it(monkeypatch, tmp_path, capsys):
    session, _ = make_session()

    def serve(server, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmresnest.inference.page.serve.load_model', lambda *_: session.model)
    monkeypatch.setattr(servers.PageServer, 'serve_forever', serve)
    opened = []
    monkeypatch.setattr('webbrowser.open', opened.append)
    assert main(['demo', 'a.onnx', '--port', '0', '--host', '0.0.0.0', '--open']) == 0
    said = capsys.readouterr().out
    assert opened[0] in said and 'no password' in said


NO_TORCH = """
import json, sys, threading, urllib.request
from mmresnest.inference.page.serve import open_page
server = open_page('a.onnx', port=0)
threading.Thread(target=server.serve_forever, daemon=True).start()
read = lambda path, body=None: urllib.request.urlopen(server.url + path, body).read()
number = json.loads(read('predict?name=x.png', open('x.png', 'rb').read()))['id']
rows = json.loads(read(f'result?id={number}&score=0.3'))['rows']
assert read(f'picture.jpg?id={number}&score=0.3') and read(f'predictions.zip?id={number}')
print(len(rows), sorted({'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg'} & set(sys.modules)))
"""


@pytest.mark.slow
def test_an_exported_file_is_served_without_torch(tmp_path):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    outputs = [constant.BOXES, constant.SCORES, constant.LABELS]
    constant.write_model(tmp_path / 'a.onnx', outputs)
    (tmp_path / 'x.png').write_bytes(encode())
    run = subprocess.run(
        [sys.executable, '-c', NO_TORCH], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.stdout == '2 []\n', run.stderr


@pytest.fixture(scope='module')
def work_folder(shapes, tmp_path_factory):
    """A training's work folder; the weights are random."""
    from helpers import tiny

    from mmresnest.config.load import load_config
    from mmresnest.config.retarget import use_data

    folder = tmp_path_factory.mktemp('run')
    cfg = load_config(tiny.write(tmp_path_factory.mktemp('configs'), 'detection'))
    use_data(cfg, shapes)
    cfg.dump(folder / 'config.py')
    tiny.save_random(cfg, folder / 'best_coco_bbox_mAP_epoch_1.pth')
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.usefixtures('unformatted', 'fresh_logger')
def test_in_a_browser(work_folder, shapes, tmp_path, monkeypatch):
    """A picture goes in, the boxes of ``predict`` come out, a threshold removes them."""
    with open_browser(390, 844) as browser:
        picture = next(shapes.glob('val/*.jpg'))
        monkeypatch.chdir(picture.parent)
        words = ['--score-thr', '0.1', '--device', 'cpu', '--out', str(tmp_path / 'found')]
        assert main(['predict', str(work_folder), picture.name, *words]) == 0
        expected = json.loads((tmp_path / 'found' / 'predictions.json').read_text())
        assert len(expected) > 1
        server = open_page(work_folder, port=0, score_thr=0.1, device='cpu')
        server.server_close()
        with serving(server.session) as page:
            browser.open(page.server.url)
            browser.wait("return document.getElementById('model').textContent")
            browser.choose_file('#file', picture)
            shown = browser.wait(
                "return !document.body.classList.contains('busy') && document.body.dataset.shown"
            )
            count = "return document.getElementById('count').textContent"
            assert browser.run(count) == f'{len(expected)} objects'
            link = browser.run("return document.getElementById('json').getAttribute('href')")
            assert link.endswith(shown)
            assert json.loads(page.ask(link)[1]) == expected
            assert browser.run("return document.getElementById('picture').naturalWidth") == 640
            browser.run(
                "const score = document.getElementById('score'); score.value = 1;"
                "score.dispatchEvent(new Event('input'))"
            )
            browser.wait(f"{count} === '0 objects'")
            bad = tmp_path / 'cut.jpg'
            bad.write_bytes(picture.read_bytes()[:600])
            browser.choose_file('#file', bad)
            said = browser.wait("return document.getElementById('message').textContent")
            assert said.startswith('cut.jpg: ')
            assert browser.run('return document.documentElement.scrollWidth') <= 390
            reached = browser.run(
                "return performance.getEntriesByType('resource').map(e => e.name)"
            )
            assert reached and all(name.startswith(page.server.url) for name in reached)
