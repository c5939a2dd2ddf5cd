"""The facts of a run on its report: what was run, with which versions, and how far it came."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..utils.files import hash_file
from ..utils.run_logs import Curves
from . import checkpoints
from .trained_run import find_command

PACKAGES = (
    'mmresnest',
    'torch',
    'onedl-mmengine',
    'mmengine',
    'onedl-mmcv',
    'mmcv',
    'mmcv-lite',
    'onedl-mmdetection',
    'mmdet',
    'onedl-mmsegmentation',
    'mmsegmentation',
    'numpy',
)
"""Packages whose versions a report names."""


def unfinished_notes(cfg: Config, curves: Curves, folder: Path) -> list[str]:
    """Return a note where a run has not come to its end."""
    loop = cfg.get('train_cfg') or {}
    for word, short, total, logged in (
        ('iteration', 'iter', loop.get('max_iters'), curves.iteration),
        ('epoch', 'epoch', loop.get('max_epochs'), curves.epoch),
    ):
        if not total:
            continue
        saved = [
            int(found.group(1))
            for path in checkpoints.list_candidates(folder)
            if (found := re.fullmatch(rf'{short}_(\d+)', path.stem))
        ]
        # A log has the last epoch from its first line on; its checkpoint is written at its end.
        ends = saved if word == 'epoch' else [*saved, logged]
        if max(ends, default=0) < total:
            done = max([*saved, logged])
            return [
                f'This run has not reached its end ({word} {done} of {total}): it is still '
                'going, or was ended. The report is of what is there.'
            ]
    return []


def checkpoint_facts(path: Path, about: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    """Return what is known of a checkpoint; a hash that does not fit is added to the notes."""
    digest = about['stamp']['sha256']
    noted = hash_file(path)
    if not noted.is_file():
        beside = f'no {noted.name} beside it'
    elif noted.read_text(encoding='utf-8', errors='replace').split(' ')[0] == digest:
        beside = f'as in {noted.name}'
    else:
        beside = f'NOT as in {noted.name}'
        notes.append(
            f'{path.name} is not the file that {noted.name} was written for: it was '
            'replaced or is damaged.'
        )
    facts = {'checkpoint': path.name, 'its sha256': f'{digest} ({beside})'}
    words = {'iter': 'its iteration', 'epoch': 'its epoch', 'time': 'written'}
    # A run that counts iterations has none but epoch 0.
    facts.update(
        {
            word: _format_date(about[name])
            for name, word in words.items()
            if about.get(name, '0') != '0'
        }
    )
    return facts


def run_facts(folder: Path, cfg: Config, source: Path) -> dict[str, str]:
    """Return what was run and with what, word to value."""
    logged = _logged_facts(folder)
    seed = logged.get('seed') or (cfg.get('randomness') or {}).get('seed')
    facts = {
        'command': find_command(folder, source, seed),
        'seed': str(seed) if seed is not None else 'not set',
        'started': logged.get('started', 'not logged'),
        'versions in training': ', '.join(
            f'{name} {logged[name]}'
            for name in ('Python', 'PyTorch', 'CUDA', 'GPU 0', 'MMEngine', 'OpenCV')
            if name in logged
        )
        or 'not logged',
    }
    facts['versions of this report'] = f'Python {platform.python_version()}, ' + ', '.join(
        f'{name} {number}' for name, number in installed_versions().items()
    )
    facts['report made'] = time.strftime('%Y-%m-%d %H:%M')
    return facts


def _logged_facts(folder: Path) -> dict[str, str]:
    """Return what mmengine's first log of a folder says of the machine: word to value."""
    logs = sorted(folder.glob('*/*.log'))
    if not logs:
        return {}
    with open(logs[0], encoding='utf-8', errors='replace') as file:
        head = file.read(2**16)
    found: dict[str, str] = {}
    for word, value in re.findall(r'^    ([\w. ]+): (.+?)(?: \(.*)?$', head, re.MULTILINE):
        found.setdefault(word, value)
    started = re.match(r'(\d{4}/\d\d/\d\d \d\d:\d\d)', head)
    return dict(found, started=started.group(1).replace('/', '-')) if started else found


def _format_date(text: str) -> str:
    """Return a date of mmengine, 20250131_235959, as it is read; other words as they are."""
    return re.sub(r'^(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)$', r'\1-\2-\3 \4:\5:\6', text)


def installed_versions() -> dict[str, str]:
    """Return those of PACKAGES that are installed, with their versions."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
