"""Answer the browser: the page, a picture that is sent, and what was found on it.

    GET  /                                            the page, /page.js and /page.css
    GET  /model                                       what it says of the model
    POST /predict?name=street.jpg                     a picture in the body; its id is returned
    GET  /result?id=ID&score=0.3&classes=0,2          rows of what was found
    GET  /picture.jpg?...  /predictions.json?...  /predictions.zip?...

Whatever goes wrong is answered by ``{"error": message}``. A page of elsewhere that is open in the
same browser can neither send pictures nor read results: see ``_refuse_strangers``.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
import socketserver
import sys
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from ...errors import UserError
from .session import PageSession, View

Answer = tuple[str, bytes, dict[str, str]]
"""Kind of content, content and more headers."""
STATIC = Path(__file__).parent / 'static'
PAGES = {
    '/': ('page.html', 'text/html; charset=utf-8'),
    '/page.js': ('page.js', 'text/javascript; charset=utf-8'),
    '/page.css': ('page.css', 'text/css; charset=utf-8'),
}
SAVED = {'/predictions.json': 'application/json', '/predictions.zip': 'application/zip'}
HEADERS = {
    # Nothing of another address is loaded, whatever a name or a message holds.
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}
MAX_UPLOAD = 100 * 10**6
"""Bytes of a picture's file."""
MAX_DIGITS = 20
"""Digits of a length that is looked at."""
TRIED_PORTS = 100
IDLE = 60
"""Seconds that a browser may say nothing in the middle of a request."""


class PageServer(ThreadingHTTPServer):
    """The server of a page; bound when made, so that a port in use is known before a model loads.

    Args:
        host: the address to listen at.
        port: of it; 0 for any free one.

    Attributes:
        session: set before it serves.

    Raises:
        OSError: there is no such address, or the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = os.name == 'posix'  # elsewhere two servers would share a port
    session: PageSession

    def __init__(self, host: str, port: int) -> None:
        [(self.address_family, *_, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.host = host
        super().__init__(address[:2], PageHandler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Bind, without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine reaches it."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback

    @property
    def url(self) -> str:
        """Return the address of the page, for this machine's browser."""
        address = ipaddress.ip_address(str(self.server_address[0]))
        host = '127.0.0.1' if address.is_unspecified else str(address)
        return f'http://{f"[{host}]" if ":" in host else host}:{self.server_port}/'

    def handle_error(self, request: object, client_address: object) -> None:
        """Report an error that is none of a browser that has gone."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def open_server(host: str, port: int) -> PageServer:
    """Return a server that is bound to an address.

    Raises:
        UserError: there is no such address here, or the port cannot be had.
    """
    if not 0 <= port < 2**16:
        raise UserError(f'--port {port}: ports are from 0 to 65535', code='option.value')
    try:
        return PageServer(host, port)
    except socket.gaierror as error:
        raise UserError(
            f'--host {host}: there is no such address ({error.strerror}); 127.0.0.1 is this '
            'machine, 0.0.0.0 all of its addresses',
            code='page.host',
        ) from error
    except PermissionError as error:
        raise UserError(
            f'--port {port} needs rights that you do not have; give one from 1024 on',
            code='page.port',
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = _find_free_port(host, port)
            remedy = f'the next free one: --port {free}' if free else 'give another, or 0 for any'
            raise UserError(f'--port {port} is in use; {remedy}', code='page.port') from error
        raise UserError(
            f'--host {host}: it is no address of this machine ({error.strerror}); 127.0.0.1 is '
            'this machine, 0.0.0.0 all of its addresses',
            code='page.host',
        ) from error


def _find_free_port(host: str, port: int) -> int | None:
    for other in range(port + 1, min(port + TRIED_PORTS, 2**16)):
        try:
            PageServer(host, other).server_close()
        except OSError:
            continue
        return other
    return None


class Refused(Exception):
    """A request that is not obeyed.

    Args:
        status: of HTTP.
        message: for the page.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class PageHandler(BaseHTTPRequestHandler):
    """Answer one browser's requests."""

    server: PageServer
    server_version, sys_version = 'mmresnest', ''
    protocol_version = 'HTTP/1.1'
    timeout = IDLE

    def do_GET(self) -> None:
        """Answer a request for a page or a result."""
        self._answer(self._get_content)

    def do_POST(self) -> None:
        """Answer a picture."""
        self._answer(self._post_picture)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal for what its reader can use."""

    def _answer(self, make: Callable[[], Answer]) -> None:
        """Send what is made, or the message of what went wrong."""
        try:
            self._refuse_strangers()
            kind, content, more = make()
            status = HTTPStatus.OK
        except Refused as error:
            status, kind, content, more = error.status, *_pack_error(error)
        except UserError as error:
            status, kind, content, more = HTTPStatus.UNPROCESSABLE_ENTITY, *_pack_error(error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:  # a mistake of ours, whose place the terminal tells
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            said = f'this failed ({type(error).__name__}); the terminal of mmresnest demo has more'
            kind, content, more = _pack_error(said)
        if status is not HTTPStatus.OK:
            self.close_connection = True  # the body may not have been read
            more = {'Connection': 'close'}
        self.send_response(status)
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse_strangers(self) -> None:
        """Refuse pages of elsewhere, and names that others have pointed at this machine.

        Raises:
            Refused: the request is not of our page.
        """
        given = self.headers.get('Host', '')
        host = split_address(f'//{given}').hostname or ''
        legal = {'localhost', '127.0.0.1', '::1', self.server.host}
        if self.server.is_local and host not in legal:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f'this page is not served as {host!r}, but at {self.server.url}',
            )
        origin = self.headers.get('Origin')
        if origin is not None and split_address(origin).netloc != given:
            raise Refused(HTTPStatus.FORBIDDEN, 'pictures are taken from this page only')

    def _get_content(self) -> Answer:
        """Return the kind, the content and more headers of what a path stands for."""
        path = split_address(self.path).path
        session = self.server.session
        if path in PAGES:
            name, kind = PAGES[path]
            return kind, (STATIC / name).read_bytes(), {}
        if path == '/model':
            return _pack_json(session.describe_model())
        if path not in ('/result', '/picture.jpg', *SAVED):
            raise Refused(HTTPStatus.NOT_FOUND, f'there is no {path} here')
        number, view = self._read_view()
        if path == '/result':
            return _pack_json(session.describe_result(number, view))
        if path == '/picture.jpg':
            return 'image/jpeg', session.draw_picture(number, view), {}
        stem = Path(session.find_picture(number).name).stem
        name = f'{stem}.{path[1:]}'
        attached = {'Content-Disposition': f"attachment; filename*=UTF-8''{quote(name)}"}
        return SAVED[path], session.save_result(number, view, path[1:]), attached

    def _post_picture(self) -> Answer:
        """Predict on the picture in the body."""
        if split_address(self.path).path != '/predict':
            raise Refused(HTTPStatus.NOT_FOUND, f'there is no {self.path} here')
        length = self.headers.get('Content-Length', '')
        if not length.isascii() or not length.isdigit():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, 'the request does not say how long it is')
        if len(length) > MAX_DIGITS or int(length) > MAX_UPLOAD:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f'the file has more than {MAX_UPLOAD // 10**6} MB, which is the most that is '
                'taken; scale the picture down',
            )
        content = self.rfile.read(int(length))
        name = self._read_query().get('name', '')
        return _pack_json(self.server.session.add_picture(name, content))

    def _read_query(self) -> dict[str, str]:
        given = parse_qs(split_address(self.path).query, keep_blank_values=True)
        return {name: values[-1] for name, values in given.items()}

    def _read_view(self) -> tuple[str, View]:
        """Return the id of a picture, and what of its result is asked for.

        Raises:
            Refused: a number is none.
        """
        query = self._read_query()
        try:
            score = float(query.get('score', self.server.session.score_thr))
            labels = None
            if 'classes' in query:
                labels = frozenset(int(label) for label in query['classes'].split(',') if label)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f'score or classes: {error}') from error
        return query.get('id', ''), View(score, labels)


def split_address(address: str) -> SplitResult:
    """Split an address that a browser gave.

    Raises:
        Refused: it is none.
    """
    try:
        parts = urlsplit(address)
        _ = parts.hostname  # which is looked at only now
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f'{address[:100]!r} is no address') from error
    return parts


def _pack_json(content: object) -> Answer:
    return 'application/json', json.dumps(content).encode(), {}


def _pack_error(error: object) -> Answer:
    return _pack_json(dict(error=str(error)))
