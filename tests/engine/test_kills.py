"""A training that is killed at any moment goes on from the last checkpoint; see kills.py."""

import json
import os
import subprocess
import sys

import pytest
from helpers.kills import INTERVAL
from helpers.processes import HELPERS


@pytest.mark.slow
def test_killed_and_taken_up(tmp_path):
    kills = 200 if os.environ.get('MMRESNEST_SOAK') else 6
    script = HELPERS / 'kills.py'
    run = subprocess.run(
        [sys.executable, script, tmp_path, str(kills)],
        capture_output=True,
        text=True,
        timeout=3600,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((tmp_path / 'found.json').read_text())
    sys.stdout.write(f'{found}\n')
    assert found['kills'] == kills == found['resumed'] + found['from_the_start']
    assert found['while_saving'] >= kills // 4
    assert found['damaged'] == found['passed_over'] == 0
    assert found['lost'] <= INTERVAL
    assert found['finished'] and found['different'] == []
