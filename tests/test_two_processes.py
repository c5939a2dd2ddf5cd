"""Two processes on CPUs, over gloo, started as a user starts them."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny  # before mmengine, which warns while it is imported

from mmresnest.data.shapes import draw
from mmresnest.engine import checkpoints

TOOLS = Path(__file__).resolve().parents[1] / 'tools'

pytestmark = pytest.mark.filterwarnings('ignore')


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


def start(script, *args):
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': free_port(), 'OMP_NUM_THREADS': '1',
           'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run([TOOLS / script, *map(str, args)], env=env, capture_output=True,
                          text=True, timeout=300, check=False)


def test_train_and_test(tmp_path):
    data = draw(tmp_path / 'shapes', train=8, val=3, test=2, size=(64, 64), progress=False)
    config = tiny.write(tmp_path, 'detection')
    work = tmp_path / 'work'
    run = start('dist_train.sh', config, 2, '--data', data, '--work-dir', work, '--seed', 0)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-3000:]
    assert 'Distributed training: True' in said
    assert said.count('the model is built with BN') == 1, 'what both know is said once'
    assert run.stdout.count('coco/bbox_mAP: ') >= 1 and run.stdout.count('wall time: ') == 1
    # 8 images by 2 a step are 4 steps of one process, and 2 of each of two.
    found = checkpoints.last(work)
    assert checkpoints.read(found)['meta']['iter'] == 2

    run = start('dist_test.sh', config, found, 2, '--data', data, '--work-dir', work,
                '--out', tmp_path / 'found.json')
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert 'coco/bbox_mAP: ' in run.stdout and (tmp_path / 'found.json').is_file()


def test_what_is_wrong_ends_all_of_them(tmp_path):
    config = tiny.write(tmp_path, 'detection')
    run = start('dist_train.sh', config, 2, '--data', tmp_path / 'nowhere')
    assert run.returncode != 0
    assert 'nowhere does not exist' in run.stderr
    assert 'in main\n' not in run.stderr.partition('mmresnest: error')[0]
