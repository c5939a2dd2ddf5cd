"""Processes that tests start as users start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

HELPERS = Path(__file__).resolve().parent
TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


def environment():
    return {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': free_port(),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }


def start(script, *args):
    return subprocess.run(
        [TOOLS / script, *map(str, args)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
