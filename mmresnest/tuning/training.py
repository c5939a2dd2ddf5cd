"""One training of a sweep: a process of its own, whose scores are read from its log as it runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError, nearest
from ..utils.run_logs import main_score, read_scalars, short_name
from ..utils.text import printable

PROGRAM = (sys.executable, '-m', 'mmresnest', 'train')
LOG = 'log.txt'
PATIENCE = 120.0  # seconds that a training has to save its state after it was told to stop
ENDED = 0.2  # seconds between two looks at a process that ends


class Training:
    """A running ``mmresnest train``.

    Args:
        words: what stands behind ``mmresnest train``, without the work folder.
        folder: the work folder.
        environment: variables of the process beside those of this one.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.start = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / LOG, 'ab') as log:
            self.process = subprocess.Popen(
                [*PROGRAM, *words, '--work-dir', str(folder), '--resume', 'if-any'],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # Ctrl-C is for the sweep, which then tells each training once.
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self.process.poll()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.start

    def request_stop(self) -> None:
        """Have it end after its current iteration, as any training does at this signal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_for_end(self, patience: float = PATIENCE) -> None:
        """Wait until it has ended; kill it where it does not."""
        end = time.monotonic() + patience
        while self.process.poll() is None:
            if time.monotonic() > end:
                self.process.kill()
            time.sleep(ENDED)


def read_scores(folder: Path, metric: str) -> tuple[str, list[float]]:
    """Return the name of the score that a sweep goes by, and its value at each validation.

    Args:
        folder: the work folder of a training, which may be going on.
        metric: the name, with or without what stands before its last slash; ``auto`` for the main
            score of the task.

    Raises:
        UserError: there are scores, and none of this name.
    """
    scores = read_scalars(folder).scores
    if metric == 'auto':
        name = main_score(scores)
    else:
        name = next((one for one in scores if metric in (one, short_name(one))), None)
        if scores and name is None:
            raise UserError(
                f'--metric {metric}: no such score is computed; {nearest(metric, scores)}',
                code='sweep.metric',
            )
    return ('', []) if name is None else (name, scores[name][1])


def count_validations(folder: Path) -> int | None:
    """Return how often a training validates, from the config that it has written; None if unknown.

    With intervals that change on the way, this is not known.
    """
    files = sorted(folder.glob('*.py'))
    if not files:
        return None
    loop = Config.fromfile(str(files[0]), format_python_code=False).get('train_cfg') or {}
    total, interval = loop.get('max_epochs') or loop.get('max_iters'), loop.get('val_interval', 1)
    if not total or loop.get('dynamic_intervals'):
        return None
    return -(-total // interval)


def read_reason(folder: Path, status: int) -> str:
    """Return in a line why a training failed: the last that it said."""
    try:
        text = (folder / LOG).read_text(encoding='utf-8', errors='replace')
    except OSError:
        text = ''
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = printable(re.sub(r'^mmresnest: error: ', '', lines[-1]))[:300] if lines else ''
    if status < 0:
        name = signal.Signals(-status).name
        memory = '; the memory of the machine may have been too small' if name == 'SIGKILL' else ''
        return f'ended by {name}{memory}'
    return last or f'ended with status {status}'


def remove_checkpoints(folder: Path) -> None:
    """Remove what a training has saved of its state, which are its largest files."""
    for pattern in ('*.pth', '*.pth.sha256', 'last_checkpoint'):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
