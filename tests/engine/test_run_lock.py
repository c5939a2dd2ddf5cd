"""Two trainings in one work folder: the second is refused while the first runs, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.errors import refuses
from helpers.processes import environment

from mmresnest.engine import run_lock
from mmresnest.engine.run_lock import LOCK_NAME, lock_work_dir

HOLD = """
import os, sys, time
from mmresnest.engine.run_lock import lock_work_dir
with lock_work_dir(sys.argv[1]):
    if not os.fork():
        time.sleep(60)  # a worker, which outlives it
        os._exit(0)
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder, and has a child of its own."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdout.readline() == 'held\n'
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_and_the_lock_ends_with_the_process(tmp_path, holder):
    in_use = refuses('run.folder-in-use', f'process {holder.pid} on ', tmp_path)
    with in_use, lock_work_dir(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    start = time.monotonic()
    with lock_work_dir(tmp_path):  # at once, though its child lives on
        assert (tmp_path / LOCK_NAME).read_text().startswith(f'process {os.getpid()} on ')
    assert time.monotonic() - start < 1


def test_nothing_is_left_of_it(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock_work_dir(tmp_path):
            assert (tmp_path / LOCK_NAME).exists()
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []


def test_file_systems_and_systems_without_locks(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(run_lock, 'print_log', lambda line, *_, **__: said.append(line))

    def refuse(file, how):
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(run_lock.fcntl, 'lockf', refuse)
    with lock_work_dir(tmp_path):
        pass
    assert len(said) == 1 and 'would not be noticed' in said[0]
    monkeypatch.setattr(run_lock, 'fcntl', None)
    with lock_work_dir(tmp_path):
        pass
