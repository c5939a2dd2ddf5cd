"""What a person sees before the first loss, and what the log file has."""

import subprocess
import sys

import pytest
from helpers import tiny
from mmengine.logging import MMLogger

from mmresnest.engine.quiet_start import hide_start


@pytest.mark.slow
def test_few_lines_before_the_first_loss(tmp_path, shapes):
    config = tiny.write(tmp_path, 'detection')
    run = subprocess.run(
        [
            *(sys.executable, '-m', 'mmresnest', 'train', config, '--data', shapes),
            *('--from-scratch', '--cfg-options', 'data_root=nowhere'),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    start = next(at for at, line in enumerate(lines) if ' loss: ' in line)
    assert start <= 15, '\n'.join(lines[:start])
    said = '\n'.join(lines[:start])
    for word in ('data: ', '4 train', 'network: FasterRCNN', 'schedule: 1 epochs of 2', 'log: '):
        assert word in said
    for word in ('System environment', 'default_hooks', 'before_run'):
        assert word not in run.stdout
    assert 'creating index' not in said  # pycocotools, of each file
    [log] = tmp_path.glob('work_dirs/*/*/*.log')
    kept = log.read_text(encoding='utf-8')
    for word in ('System environment', 'default_hooks', 'before_run', 'network: FasterRCNN'):
        assert word in kept


def test_a_runner_that_cannot_be_built_leaves_no_handler_behind(capsys):
    """What is logged afterwards goes to the terminal, and to no buffer of ours."""
    with pytest.raises(KeyError), hide_start(ends=True):
        logger = MMLogger.get_instance('broken_start')
        logger.info('hidden')
        raise KeyError
    try:
        [handler] = MMLogger._instance_dict['broken_start'].handlers
        assert handler.stream is sys.stdout
    finally:
        del MMLogger._instance_dict['broken_start']
    assert 'hidden' not in capsys.readouterr().out
