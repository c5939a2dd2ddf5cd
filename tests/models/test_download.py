"""Fetching from a server of our own that misbehaves as asked."""

import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers.errors import refuses

import mmresnest
from mmresnest.errors import UserError
from mmresnest.models import weights
from mmresnest.models.weights import download, hub, reader
from mmresnest.utils.env import TRUST

CONTENT = bytes(range(256)) * 1200  # several of the pieces in which it is read
SHA = hashlib.sha256(CONTENT).hexdigest()[:8]


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under every path; the first word of the path says how."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        how = self.path.split('/')[1]
        asked = self.headers.get('Range')
        self.server.asked.append((how, asked))
        content = dict(
            truncated=CONTENT[:-1], other=CONTENT[::-1], own=getattr(self.server, 'content', None)
        ).get(how, CONTENT)
        start = int(asked[6:-1]) if asked and how != 'norange' else 0
        if how == 'missing':
            return self.send_error(404)
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            if how.startswith('elsewhere'):
                start -= 1
            if not how.startswith('unsaid'):
                self.send_header(
                    'Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}'
                )
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        first = sum(seen == how for seen, _ in self.server.asked) == 1
        if how == 'dead' or how.endswith(('cut', 'norange')) and first:
            half = content[start : start + len(content) // 2] if how != 'dead' else b''
            self.wfile.write(half)
            self.wfile.flush()
            self.close_connection = True
            return None
        self.wfile.write(content[start:])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def server():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Fetches one file from ways of the server in turn; what it asked for is in ``asked``."""
    monkeypatch.setattr(download, 'PAUSE', 0)
    server.asked = []

    def fetch(*ways, sha256=SHA, name='file.pth'):
        urls = [f'http://127.0.0.1:{server.server_port}/{way}/{name}' for way in ways]
        return download.fetch_file(urls, tmp_path, 'resnest50', [sha256] * len(urls))

    fetch.asked, fetch.folder = server.asked, tmp_path
    return fetch


def whole(path) -> bool:
    assert not list(path.parent.glob('*.part'))
    return path.read_bytes() == CONTENT


def test_a_good_file(fetch):
    assert whole(fetch('good')) and len(fetch.asked) == 1


def test_a_good_file_of_unknown_hash(fetch):
    (fetch.folder / 'file.pth.part').write_bytes(b'of who knows what')
    assert whole(fetch('good', sha256=None)) and fetch.asked == [('good', None)]


def test_a_connection_cut_half_way_is_taken_up_there(fetch):
    assert whole(fetch('cut'))
    assert fetch.asked == [('cut', None), ('cut', f'bytes={len(CONTENT) // 2}-')]


def test_so_is_a_file_begun_in_an_earlier_run(fetch):
    (fetch.folder / 'file.pth.part').write_bytes(CONTENT[:1000])
    assert whole(fetch('good')) and fetch.asked == [('good', 'bytes=1000-')]


@pytest.mark.parametrize('length', [1000, len(CONTENT), len(CONTENT) + 7])
def test_what_lay_there_and_was_another_file_is_begun_anew(fetch, length):
    (fetch.folder / 'file.pth.part').write_bytes(b'x' * length)
    assert whole(fetch('good')) and fetch.asked[-1] == ('good', None)


def test_a_server_that_cannot_begin_in_the_middle(fetch):
    assert whole(fetch('norange')) and len(fetch.asked) == 2


@pytest.mark.parametrize(
    'way, part',
    [
        ('truncated', f'not {SHA}'),
        ('other', f'not {SHA}'),
        ('missing', '404'),
        ('dead', f' 0 of {len(CONTENT)} bytes'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(fetch, way, part):
    named = (part, 'resnest50', f'/{way}/file.pth', fetch.folder, '--from-scratch')
    with refuses('weights.download-failed', *named):
        fetch(way)
    assert not (fetch.folder / 'file.pth').exists()


@pytest.mark.parametrize('way', ['missing', 'truncated', 'other', 'dead'])
def test_the_next_mirror_is_asked(fetch, way):
    assert whole(fetch(way, 'good'))


def test_the_next_mirror_goes_on_where_the_first_broke_off(fetch, monkeypatch):
    monkeypatch.setattr(download, 'ATTEMPTS', 1)
    assert whole(fetch('cut', 'good'))
    assert fetch.asked == [('cut', None), ('good', f'bytes={len(CONTENT) // 2}-')]


def test_no_server_at_all(tmp_path):
    with refuses('weights.download-failed', '127.0.0.1:9/a-12345678.pth', tmp_path):
        download.fetch_file(['http://127.0.0.1:9/a-12345678.pth'], tmp_path, 'x', [None])


def test_urls_go_through_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    server.asked = []
    base = f'http://127.0.0.1:{server.server_port}'
    hashed = f'{base}/good/some-{SHA}.pth?download=true'
    for _ in range(2):
        path, fetched = hub.locate_checkpoint(hashed)
        assert fetched and path == tmp_path / 'checkpoints' / f'some-{SHA}.pth'
    assert len(server.asked) == 1
    path.write_bytes(CONTENT[:100])  # damaged, or another file: it is fetched again
    assert whole(hub.locate_checkpoint(hashed)[0]) and len(server.asked) == 2
    # names without a hash may mean another file on another host
    path, _ = hub.locate_checkpoint(f'{base}/good/model.pth')
    assert path.parent.name == f'127.0.0.1_{server.server_port}' and path.name == 'model.pth'


@pytest.mark.parametrize(
    'name,wanted',
    [
        ('resnest50-528c19ca.pth', '528c19ca'),
        ('a_20200926_125502-20289c16.pth', '20289c16'),
        ('model-20201122.pth', None),
        ('model.pth', None),
        ('seresnext26_32x4d-65ebdb501.pth', '65ebdb501'),
    ],
)
def test_the_hash_in_a_name(name, wanted):
    assert hub.hash_in_name('https://host/path/' + name) == wanted


@pytest.fixture
def trusting(server, tmp_path, monkeypatch):
    """--trust-checkpoint is given; returns the URL of a checkpoint whose reading runs code."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv(TRUST, '1')
    torch.save(dict(state_dict={}, run=Runs(tmp_path / 'ran')), tmp_path / 'code.pth')
    server.asked, server.content = [], (tmp_path / 'code.pth').read_bytes()
    yield f'http://127.0.0.1:{server.server_port}/own/model.pth'
    server.content = None


class Runs:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize('how', ['load', 'read', 'convert', 'init_cfg'])
def test_what_was_fetched_is_never_trusted(trusting, tmp_path, how):
    """By whichever function, though the user trusts files of his own."""
    network = mmresnest.build_backbone('resnest14', depths=(1,), out_indices=(0,))
    call = dict(
        load=lambda source: weights.load(network, source),
        read=weights.read_checkpoint,
        convert=lambda source: weights.convert_file(source, str(tmp_path / 'out.pth'), 'mmdet'),
        init_cfg=lambda source: mmresnest.build_backbone('resnest14', pretrained=source),
    )[how]
    for _ in range(2):  # from the net, and from the cache
        with refuses('checkpoint.unsafe', 'model.pth', 'pathlib.PosixPath', '--trust-checkpoint'):
            call(trusting)
        assert not (tmp_path / 'ran').exists()
    with contextlib.suppress(UserError):  # it holds no network
        call(str(tmp_path / 'code.pth'))
    assert (tmp_path / 'ran').exists()


def test_a_download_is_never_trusted(server, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setenv(TRUST, '1')
    server.asked = []
    seen = []
    monkeypatch.setattr(reader, 'parse_checkpoint', lambda path, trusted: seen.append(trusted))
    reader.read_checkpoint(f'http://127.0.0.1:{server.server_port}/good/model.pth')
    reader.read_checkpoint(str(next(tmp_path.rglob('model.pth'))))
    assert seen == [False, True]


@pytest.mark.parametrize('way', ['elsewhere', 'unsaid'])
@pytest.mark.parametrize('sha256', [SHA, None], ids=['hash', 'no-hash'])
def test_a_server_that_sends_another_part_than_was_asked_for(fetch, way, sha256):
    """Or does not say which: what came is not taken for the rest, also where no hash would tell."""
    if (
        sha256 is None
    ):  # a part of unknown origin is not gone on with: the connection breaks instead
        assert whole(fetch(way + '-cut', sha256=None))
    else:
        (fetch.folder / 'file.pth.part').write_bytes(CONTENT[:1000])
        assert whole(fetch(way))
    asked = [range for _, range in fetch.asked]
    assert asked[-1] is None and any(asked)


@pytest.mark.parametrize('known', [True, False], ids=['hash', 'no-hash'])
def test_processes_that_want_the_same_file_take_turns(fetch, known):
    """One fetches it and the others find it, whatever is left of an earlier run."""
    sha256 = SHA if known else None
    (fetch.folder / 'file.pth.part').write_bytes(b'x' * 1000)
    with ThreadPoolExecutor(8) as pool:
        ways = ['cut'] * 8
        paths = list(pool.map(lambda way: fetch(way, sha256=sha256), ways))
    assert all(map(whole, paths)) and len(set(paths)) == 1
    # what lay there was no beginning of it: once more where only the hash can tell
    assert len(fetch.asked) == (3 if known else 2)
