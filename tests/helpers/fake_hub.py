"""A stand-in for the Hugging Face hub on loopback: the addresses that its library calls.

Files of at most 10 MB that are text are part of a commit; all others go by Git LFS, whose batch
address tells where to put them.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = 'hf_' + 'x' * 34


class FakeHub(ThreadingHTTPServer):
    """The server, with what was uploaded.

    Attributes:
        repositories: name -> file -> contents.
        private: name -> whether it was made private.
        stored: sha256 -> contents, of large files.
        requests: method and path of each, and whether it had the token.
        refusal: the status that every request is answered with, if not 0.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.refusal = 0

    @property
    def address(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: FakeHub

    def log_message(self, *_):
        pass

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def read_body(self) -> bytes:
        if self.headers.get('Transfer-Encoding') != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def handle_request(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.read_body()
        allowed = self.headers.get('Authorization') == f'Bearer {TOKEN}'
        self.server.requests.append((self.command, path, allowed))
        if self.server.refusal:
            return self.answer({'error': 'no'}, self.server.refusal)
        for method, pattern, respond in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                if 'GET' not in method and not allowed and not path.startswith('/lfs/'):
                    return self.answer({'error': 'Invalid username or password.'}, 401)
                return respond(self, body, *found.groups())
        raise AssertionError(f'{self.command} {path}: no such address is known')

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f'{asked["organization"]}/{asked["name"]}'
        self.server.repositories.setdefault(name, {})
        self.server.private.setdefault(name, asked.get('visibility') == 'private')
        self.answer({'url': f'{self.server.address}/{name}', 'name': name})

    def validate(self, body: bytes) -> None:
        assert json.loads(body)['content'].startswith('---\n')
        self.answer({'errors': [], 'warnings': []})

    def choose_upload(self, body: bytes, name: str, revision: str) -> None:
        files = json.loads(body)['files']
        modes = {True: 'lfs', False: 'regular'}
        self.answer(
            {
                'files': [
                    dict(
                        path=file['path'],
                        uploadMode=modes[b'\0' in base64.b64decode(file['sample'])],
                        shouldIgnore=False,
                    )
                    for file in files
                ]
            }
        )

    def list_large(self, body: bytes, name: str) -> None:
        self.answer(
            {
                'transfer': 'basic',
                'objects': [
                    dict(
                        one, actions={'upload': {'href': f'{self.server.address}/lfs/{one["oid"]}'}}
                    )
                    for one in json.loads(body)['objects']
                ],
            }
        )

    def store_large(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.stored[oid] = body
        self.answer({})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        files = self.server.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif line['key'] == 'lfsFile':
                files[value['path']] = self.server.stored[value['oid']]
        self.answer(
            {'commitUrl': f'{self.server.address}/{name}/commit/{"1" * 40}', 'commitOid': '1' * 40}
        )

    def describe(self, body: bytes, name: str, revision: str) -> None:
        if name not in self.server.repositories or revision not in ('main', '1' * 40):
            code = {'X-Error-Code': 'RepoNotFound'}
            return self.answer({'error': 'Repository not found'}, 404, **code)
        self.answer({'id': name, 'sha': '1' * 40, 'siblings': [], 'tags': [], 'private': False})

    def list_files(self, body: bytes, name: str, revision: str) -> None:
        self.answer(
            [
                dict(type='file', path=path, size=len(content), oid=digest(content))
                for path, content in self.server.repositories[name].items()
            ]
        )

    def send_file(self, body: bytes, name: str, revision: str, path: str) -> None:
        content = self.server.repositories[name][path]
        self.answer(content, X_Repo_Commit='1' * 40, ETag=f'"{digest(content)}"')


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


NAME = r'([\w.-]+/[\w.-]+)'
ROUTES = [
    ('POST', '/api/repos/create', Handler.create),
    ('POST', '/api/validate-yaml', Handler.validate),
    ('POST', f'/api/models/{NAME}/preupload/([^/]+)', Handler.choose_upload),
    ('POST', f'/{NAME}.git/info/lfs/objects/batch', Handler.list_large),
    ('PUT', '/lfs/([0-9a-f]{64})', Handler.store_large),
    ('POST', f'/api/models/{NAME}/commit/([^/]+)', Handler.commit),
    ('GET', f'/api/models/{NAME}/revision/([^/]+)', Handler.describe),
    ('GET', f'/api/models/{NAME}/tree/([^/]+)', Handler.list_files),
    ('GET HEAD', f'/{NAME}/resolve/([^/]+)/(.+)', Handler.send_file),
]


@contextmanager
def serve() -> Iterator[FakeHub]:
    """Run the stand-in for as long as the context lasts."""
    hub = FakeHub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
