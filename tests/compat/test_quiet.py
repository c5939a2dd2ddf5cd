"""Silence: what is no news to a user is left out, and nothing else is."""

import logging
import os
import re
import subprocess
import sys

import pytest
from helpers import tiny
from mmengine.logging import MMLogger, print_log

from mmresnest.compat import warnings as quiet

COMMANDS = """
import sys
from pathlib import Path
from mmresnest.cli.main import main
config, data = sys.argv[1:]
assert main(['doctor']) == 0
assert main(['print-config', config]) == 0
assert main(['train', config, '--data', data, '--work-dir', 'run']) == 0
checkpoint = Path('run/last_checkpoint').read_text()
assert main(['test', config, checkpoint, '--data', data]) == 0
assert main(['predict', config, checkpoint, data + '/val', '--out', 'found']) == 0
"""
OURS = (  # of a training of a few steps on two images
    'classes are neither in the masks nor predicted',
    'every pixel of the validation is predicted as class',
    'no detections',
    'nothing was detected',
)


def python(*arguments, **more):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **more,
    )


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'semantic'])
def test_commands_say_nothing_that_puzzles(kind, shapes, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONWARNINGS'}
    done = python('-c', COMMANDS, tiny.write(tmp_path, kind), shapes, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    progress = re.compile(r'\d+ of \d+ images.*')  # of predict
    said = [
        line
        for line in re.split(r'[\r\n]+', done.stderr)
        if line.strip() and not progress.match(line)
    ]
    assert not said
    assert 'Iter(train)' in done.stdout or 'Epoch(train)' in done.stdout
    warned = [line for line in done.stdout.splitlines() if ' - WARNING - ' in line]
    assert not [line for line in warned if not any(ours in line for ours in OURS)]
    assert 'Warning:' not in done.stdout and 'Could not import' not in done.stdout


def warn(text: str, module: str, *options: str):
    code = (
        f'import mmresnest, warnings\n'
        f'warnings.warn_explicit({text!r}, UserWarning, "file.py", 1, {module!r})'
    )
    return python(*options, '-c', code)


def test_a_warning_goes_by_its_text_and_its_module():
    text, module = 'The draw is False, it means', 'mmseg.engine.hooks.visualization_hook'
    assert warn(text, module).stderr == ''
    assert 'UserWarning: The draw' in warn(text, 'a.hook.of.a.user').stderr
    assert 'UserWarning: Another' in warn('Another', module).stderr


def test_what_the_user_asks_of_warnings_wins():
    text, module = 'The draw is False, it means', 'mmseg.engine.hooks.visualization_hook'
    assert 'UserWarning: The draw' in warn(text, module, '-W', 'default').stderr
    assert warn(text, module, '-W', 'error').returncode == 1


def test_a_line_of_the_log_goes_by_its_text_unless_it_is_an_error(capsys):
    logger = MMLogger('quiet', log_level='INFO')
    for level, text in (
        (logging.WARNING, 'backbone.stem.0.weight is skipped since its requires_grad=False'),
        (logging.ERROR, 'The prefix is not set in metric class IoUMetric.'),
        (logging.WARNING, 'The prefix is not set in metric class OfAUser.'),
        (logging.WARNING, 'the backbone is skipped'),
    ):
        print_log(text, logger, level)
    said = re.sub(r'\x1b\[[\d;]*m', '', capsys.readouterr().out)
    assert re.findall(r'mmengine - (\w+) - (?:.* - )?(.*)', said) == [
        ('ERROR', 'The prefix is not set in metric class IoUMetric.'),
        ('WARNING', 'The prefix is not set in metric class OfAUser.'),
        ('WARNING', 'the backbone is skipped'),
    ]


def test_every_silence_is_of_another_project():
    for _, module in quiet.WARNINGS:
        assert module.startswith(('mmengine', 'mmcv', 'mmdet', 'mmseg'))
