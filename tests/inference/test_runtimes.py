"""The runtimes of exported files, as libraries in a process that does other things, too."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gc, signal, sys, threading
from pathlib import Path
import numpy as np
import openvino
from helpers.constant_models import BOXES, DETECTOR, LABELS, SCORES, SIZE, write_model
from mmresnest.inference.metadata import METADATA_KEY
from mmresnest.inference.runtimes import OpenVinoSession
import json

model = openvino.convert_model(write_model(Path('a.onnx'), [BOXES, SCORES, LABELS]))
model.set_rt_info(json.dumps(DETECTOR), METADATA_KEY)
openvino.save_model(model, 'a.xml', compress_to_fp16=False)

def run(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def open_file():
    session = OpenVinoSession(Path('a.xml'))
    boxes = session.run(np.zeros((1, 3, *SIZE), np.uint8), np.array([SIZE]))[0]
    sessions.append(session)
    print(boxes.tolist() == BOXES.tolist())

def drop_sessions():
    sessions.clear()
    gc.collect()

sessions, handled = [], []
signal.signal(signal.SIGINT, lambda *_: handled.append(1))
for opens, drops in [(1, 1), (1, 0), (0, 1), (0, 0)]:
    open_file() if opens else run(open_file)
    drop_sessions() if drops else run(drop_sessions)
    signal.raise_signal(signal.SIGINT)
print(len(handled))
"""


def test_a_file_that_is_closed_in_another_thread(tmp_path):
    """OpenVINO would take away the stack of signal handlers; the next signal ended the process."""
    pytest.importorskip('openvino')
    pytest.importorskip('onnx')
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split()) == (0, ['True'] * 4 + ['4']), done.stderr


def test_there_is_one_core():
    """No other is made in the package, whose end could be in any thread."""
    package = Path(sys.modules['mmresnest'].__file__).parent
    makers = [path.name for path in package.rglob('*.py') if 'Core()' in path.read_text()]
    assert makers == ['runtimes.py']
