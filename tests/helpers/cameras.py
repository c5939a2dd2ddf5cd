"""A camera on the network: a server on the loopback that sends pictures, and fails as told."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


@contextmanager
def serve_pictures(visits: Sequence[Sequence[np.ndarray | None]], pause=0.02) -> Iterator[str]:
    """Serve pictures H W 3 in RGB as MJPEG; yield the address.

    Args:
        visits: the pictures of each connection in turn, after which it is closed; None stands for
            bytes that are no picture. Later connections are refused.
        pause: seconds before each.
    """
    left = list(visits)

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            if not left:
                self.send_error(503)
                return
            pictures = left.pop(0)
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
            self.end_headers()
            try:
                for picture in pictures:
                    time.sleep(pause)
                    content = b'no picture' * 50
                    if picture is not None:
                        content = cv2.imencode('.jpg', picture[:, :, ::-1])[1].tobytes()
                    head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}'
                    self.wfile.write(head.encode() + b'\r\n\r\n' + content + b'\r\n')
                    self.wfile.flush()
            except OSError:
                return  # whoever looked has gone

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f'http://user:secret@127.0.0.1:{server.server_port}/live?token=hidden'
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
