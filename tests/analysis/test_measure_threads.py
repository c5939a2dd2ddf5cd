"""The measurement of OpenMP's settings: its table, its comparison, and one run at toy size."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
sys.path.append(str(TOOLS))
tool = importlib.import_module('measure_threads')
Sample = tool.Sample


def test_the_table_and_the_goals():
    samples = [
        Sample('unset', 0, [9.0, 1.0, 1.0], '-'),
        Sample('unset', 0, [1.5], '-'),
        Sample('unset', 0, [4.0], '-'),
        Sample('chosen', 0, [1.2], '10000'),
        Sample('chosen', 1, [2.0], '0'),
        Sample('chosen', 1, [3.0], '10000'),
        Sample('one-thread', 1, [2.0], '-'),
        Sample('unset', 1, [8.0], '-'),
        Sample('one-thread', 0, [1.9], '-'),
    ]
    lines = tool.format_table(samples).splitlines()
    assert lines[0] == '| setting | beside 0 | beside 1 |'
    assert lines[2] == '| unset | 1.500 (1.000 to 4.000), spin - | 8.000 (8.000 to 8.000), spin - |'
    assert '2.500 (2.000 to 3.000), spin 0/10000' in lines[3]
    quiet, busy = tool.compare_with_goals(samples)
    assert '0.80 of unset' in quiet and quiet.endswith('1.03')
    assert '1.25 of one-thread' in busy and busy.endswith('1.3')


def test_settings():
    assert tool.select_variables('spin=7') == {'GOMP_SPINCOUNT': '7'}
    assert tool.select_variables('one-thread') == {'OMP_NUM_THREADS': '1'}
    for wrong in ('spin', 'spin=-1', 'two-threads'):
        with pytest.raises(argparse.ArgumentTypeError):
            tool.check_setting(wrong)
    given = {'OMP_NUM_THREADS': '1', 'KMP_BLOCKTIME': '1', 'PATH': '/bin'}
    assert tool.clear_variables(given) == {'PATH': '/bin'}


@pytest.mark.slow
def test_samples_run(tmp_path):
    command = [
        *(sys.executable, TOOLS / 'measure_threads.py', '--arch', 'resnest14', '--size', '2x64x64'),
        *('--rounds', '1', '--steps', '1', '--settings', 'chosen', '--beside', '0', '1'),
        *('--json', tmp_path / 'samples.json'),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert '| chosen | ' in run.stdout
    samples = json.loads((tmp_path / 'samples.json').read_text())
    assert [one['beside'] for one in samples] == [0, 1]
    assert all(one['seconds'][0] > 0 and one['spin'] in ('0', '10000') for one in samples)
