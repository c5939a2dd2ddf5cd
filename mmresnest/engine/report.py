"""The report of a run, as one function: predictions once, then a page of them.

A work folder holds the config as it was run, checkpoints and logs. The newest checkpoint predicts
on the validation split, and what it predicts is kept in ``report/`` below the work folder, so that
the page is made again in seconds, until checkpoint, config or data change.
"""

from __future__ import annotations

import copy
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ..config.defaults import without_live
from ..config.hardware import WHOLE
from ..config.inspect import dataset_leaves, model_of, task_of
from ..config.load import load_config
from ..errors import UserError
from ..evaluation import predictions as files
from ..evaluation.collector import Collect
from ..evaluation.predictions import Results
from ..report.page import check_installed, write_page
from ..report.sections import Run
from ..utils.files import hash_file, sha256_of
from ..utils.run_logs import Curves, read_curves
from . import checkpoints
from .prepare import prepare
from .runner import build_runner, building, running

FOLDER = 'report'
"""Below a work folder: what its checkpoints predicted."""
TASKS = {
    'detection': 'object detection',
    'instance': 'instance segmentation',
    'panoptic': 'panoptic segmentation, as a label for every pixel',
    'semantic': 'semantic segmentation',
}


@dataclass(frozen=True)
class ReportResult:
    """What a report is of.

    Attributes:
        file: the page.
        seconds: wall time of the whole call.
        notes: what stands at its top: a run that is still going, predictions that are missing.
    """

    file: Path
    seconds: float
    notes: list[str]


def report(
    work_dirs: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    out: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> ReportResult:
    """Writes the report of a run, or of two beside each other.

    Args:
        work_dirs: one work folder, or two.
        out: the file to write; by default ``report.html`` in the (first) work folder.
        checkpoint: which to report of, where there is one work folder; by default the newest.

    Returns:
        the file.

    Raises:
        UserError: a work folder holds nothing to report, its config or data cannot be used, or the
            page cannot be written.
    """
    start = time.monotonic()
    given = [work_dirs] if isinstance(work_dirs, (str, os.PathLike)) else list(work_dirs)
    folders = [Path(one).expanduser() for one in given]
    if not 1 <= len(folders) <= 2:
        raise UserError(
            f'{len(folders)} work folders: a report is of one run, or of two beside each other'
        )
    if checkpoint is not None and len(folders) > 1:
        raise UserError(
            '--checkpoint names one file, and there are two runs; leave it out for '
            'the newest of each'
        )
    check_installed()
    file = _out(folders, out)
    runs = [_run(folder, name, checkpoint) for folder, name in zip(folders, _names(folders))]
    write_page(file, runs)
    return ReportResult(
        file, time.monotonic() - start, [note for run in runs for note in run.notes]
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: by their folders, and by the place where these are alike."""
    names = [folder.absolute().name or str(folder.absolute()) for folder in folders]
    if len(set(names)) < len(names):
        names = [f'{letter}: {name}' for letter, name in zip('AB', names)]
    return names


def _out(folders: Sequence[Path], out: str | os.PathLike | None) -> Path:
    """Where the page goes, looked at before anything takes time."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f'there is no work folder {folder.absolute()}; give what --work-dir '
                'was in training (by default work_dirs/CONFIG)'
            )
    name = 'report.html' if len(folders) == 1 else f'report_with_{folders[1].absolute().name}.html'
    file = folders[0] / name if out is None else Path(out).expanduser()
    if file.is_dir():
        raise UserError(f'--out {file} is a folder; name a file in it, such as {file}/report.html')
    if not file.absolute().parent.is_dir():
        raise UserError(
            f'--out {file}: there is no folder {file.absolute().parent}; make it, or name another'
        )
    if not os.access(file.absolute().parent, os.W_OK):
        raise UserError(
            f'{file.absolute().parent} cannot be written to; name another file with --out'
        )
    return file


# ---- one run -------------------------------------------------------------------------------------


def _run(folder: Path, name: str, given: str | os.PathLike | None) -> Run:
    curves = read_curves(folder)
    path = checkpoints.last(folder) if given is None else Path(given).expanduser()
    if path is None and curves.empty:
        raise UserError(
            f'{folder.absolute()} holds neither a checkpoint nor a log with losses or '
            'scores: nothing can be reported yet; give the work folder of a training'
        )
    if path is not None and (not path.exists() or path.is_dir()):
        checkpoints.read(path)  # says what is wrong with it
        raise UserError(f'{path} is not a checkpoint; give a .pth file with --checkpoint')
    source = _config_of(folder)
    cfg = load_config(source)
    facts, notes = {'task': TASKS[task_of(cfg)]}, _unfinished(cfg, curves, folder)
    results = None
    if path is None:
        notes.append('There is no checkpoint yet: only what was logged can be shown.')
    else:
        results, about = _results(folder, cfg, source, path)
        facts.update(_checkpoint_facts(path, about, notes))
    facts.update(_facts(folder, cfg, source))
    return Run(name, facts, notes, source.read_text(encoding='utf-8'), curves, results)


def _config_of(folder: Path) -> Path:
    """The config that a run was started with, as mmengine wrote it down."""
    found = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime_ns)
    found = found or sorted(folder.glob('*/vis_data/config.py'))
    if not found:
        raise UserError(
            f'{folder.absolute()} has no config: a training writes it there as '
            'CONFIG.py; give its work folder as it was, or copy the output of '
            f'`mmresnest print-config CONFIG` to {folder}/config.py'
        )
    return found[-1]


def _unfinished(cfg: Config, curves: Curves, folder: Path) -> list[str]:
    """Says so where a run has not come to its end."""
    loop = cfg.get('train_cfg') or {}
    for word, short, total, logged in (
        ('iteration', 'iter', loop.get('max_iters'), curves.iteration),
        ('epoch', 'epoch', loop.get('max_epochs'), curves.epoch),
    ):
        if not total:
            continue
        saved = [
            int(found.group(1))
            for path in checkpoints.candidates(folder)
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


# ---- predictions ---------------------------------------------------------------------------------


def _results(folder: Path, cfg: Config, source: Path, path: Path) -> tuple[Results, dict[str, Any]]:
    """What a checkpoint predicts on the validation split: kept from before, or made now."""
    stamp = _stamp(folder, cfg, source, path)
    kept = _kept(folder, path, stamp)
    before = files.load(kept)
    if before is not None and before[1].get('stamp') == stamp:
        print_log(f'predictions: those kept in {kept}', 'current')
        return before
    results, about = _predict(cfg, path)
    about['stamp'] = stamp
    _keep(kept, results, about)
    # As they were kept, rounded: the next page is the same.
    return files.load(kept) or (results, about)


def _keep(kept: Path, results: Results, about: Mapping[str, Any]) -> None:
    try:
        files.save(kept, results, about)
    except OSError as error:
        print_log(
            f'the predictions cannot be kept in {kept} ({error.strerror}): the next report '
            'makes them again',
            'current',
        )


def _kept(folder: Path, path: Path, stamp: Mapping[str, Any]) -> Path:
    return folder / FOLDER / f'{path.stem}_{stamp["sha256"][:8]}.json.gz'


def _stamp(folder: Path, cfg: Config, source: Path, path: Path) -> dict[str, Any]:
    """What predictions are of: while it is the same, they are."""
    return dict(sha256=sha256_of(path), data=_data_of(folder, cfg), config=sha256_of(source))


def _data_of(folder: Path, cfg: Config) -> list[list[Any]]:
    """Files of the validation data with size and time, to see when they are others."""
    loader = cfg.get('val_dataloader')
    if loader is None:
        raise UserError(
            f'the config of {folder} has no val_dataloader: there is nothing to report '
            'of; set it in the config'
        )
    found = []
    for leaf in dataset_leaves(loader['dataset']):
        root, prefixes = leaf.get('data_root') or '', leaf.get('data_prefix') or {}
        for part in [leaf.get('ann_file') or '', *prefixes.values()]:
            place = Path(os.path.abspath(os.path.join(root, part)))
            if not isinstance(part, str) or '://' in f'{root}{part}':
                continue
            if not place.exists():
                raise UserError(
                    f'no data: {place} does not exist, which the config of {folder} '
                    'validates on; put it back, or run the report in the folder where '
                    'the training was started'
                )
            state = place.stat()
            found.append([str(place), state.st_size * place.is_file(), state.st_mtime_ns])
    return found


def _predict(cfg: Config, path: Path) -> tuple[Results, dict[str, Any]]:
    content = checkpoints.read(path)
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = ConfigDict(type='TestLoop')
    without_live(cfg)
    cfg.model = model_of(cfg)  # of a test with --tta in the same folder: without its views
    options = {'load_from': None, 'resume': False, **WHOLE}
    # The runner writes a log and the config, which are not those of the training.
    with tempfile.TemporaryDirectory(
        prefix='mmresnest-report-', ignore_cleanup_errors=True
    ) as scratch:
        cfg = prepare(cfg, ('test',), work_dir=scratch, options=options)
        cfg.load_from = str(path)
        with building(cfg):
            runner = build_runner(cfg)
            checkpoints.check_fit(path, content, runner.model)
            collector = collect_from(runner.test_loop, alone=True)
        about = _about(content)
        del content  # the runner reads it once more
        with running(cfg):
            runner.test()
    return found_by(collector), about


def collect_from(loop: Any, alone: bool = False, due: Callable[[], bool] = lambda: True) -> Collect:
    """Has a validation or test loop collect what is predicted.

    Args:
        loop: of a runner that was built.
        alone: leave its other metrics out: they score what the report scores itself.
        due: whether to collect, asked as the loop runs.

    Raises:
        UserError: its data name no classes.
    """
    metrics = loop.evaluator.metrics
    dataset = loop.dataloader.dataset
    if not dataset.metainfo.get('classes'):
        raise UserError(
            f'the validation data ({type(dataset).__name__}) name no classes, which a '
            'report is by; set metainfo.classes of the data set in the config'
        )
    collector = Collect(dataset, metrics, due)
    collector.dataset_meta = dataset.metainfo
    loop.evaluator.metrics = [collector] if alone else [*metrics, collector]
    return collector


def collect_at_end(training: Any, validation: Any) -> Collect | None:
    """Has the validation of a training's last step collect what is predicted, for its report.

    Args:
        training: the loop.
        validation: the loop, if there is one.

    Returns:
        what :func:`report_at_end` takes; None where nothing can be collected.
    """
    if validation is None:
        return None
    try:
        return collect_from(validation, due=lambda: training.iter >= training.max_iters)
    except UserError as error:
        print_log(f'no report will be written: {error}', 'current')
        return None


def report_at_end(runner: Any, collector: Collect) -> Path | None:
    """Writes the report of a training that has ended, from the predictions of its last validation.

    A training that went well does not fail for its report: what stands in the way goes to the log.

    Args:
        runner: its last step validated, and saved.
        collector: of its validation loop.

    Returns:
        the page; None if there is none.
    """
    if not is_main_process():  # which alone has what all have predicted
        return None
    folder = Path(runner.work_dir)
    try:
        check_installed()
        path, source = checkpoints.last(folder), _config_of(folder)
        if (
            path is not None
            and path.is_file()
            and collector.found is not None
            and path.stem in (f'iter_{runner.iter}', f'epoch_{runner.epoch}')
        ):
            stamp = _stamp(folder, load_config(source), source, path)
            about = dict(iter=str(runner.iter), epoch=str(runner.epoch), stamp=stamp)
            _keep(_kept(folder, path, stamp), found_by(collector), about)
        return report(folder).file
    except UserError as error:
        print_log(f'no report was written: {error}', 'current')
        return None


def found_by(collector: Collect) -> Results:
    """What was collected.

    Raises:
        UserError: nothing was.
    """
    if collector.found is None:
        raise UserError(
            'no image was predicted on: the validation split is empty; look at it with '
            '`mmresnest check-data CONFIG --split val`'
        )
    return collector.found


def _about(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, as plain text."""
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    return {name: str(meta[name]) for name in ('iter', 'epoch', 'seed', 'time') if name in meta}


# ---- what was run --------------------------------------------------------------------------------


def _checkpoint_facts(path: Path, about: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
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
        {word: _date(about[name]) for name, word in words.items() if about.get(name, '0') != '0'}
    )
    return facts


def _date(text: str) -> str:
    """A date of mmengine, 20250131_235959, as it is read; other words as they are."""
    return re.sub(r'^(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)$', r'\1-\2-\3 \4:\5:\6', text)


def _facts(folder: Path, cfg: Config, source: Path) -> dict[str, str]:
    logged = _logged(folder)
    seed = logged.get('seed') or (cfg.get('randomness') or {}).get('seed')
    facts = {
        'command': _command(folder, source, seed),
        'seed': str(seed) if seed is not None else 'not set',
        'started': logged.get('started', 'not logged'),
        'versions in training': ', '.join(
            f'{name} {logged[name]}'
            for name in ('Python', 'PyTorch', 'CUDA', 'GPU 0', 'MMEngine', 'OpenCV')
            if name in logged
        )
        or 'not logged',
    }
    names = (
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
    here = {name: _version(name) for name in names}
    facts['versions of this report'] = f'Python {platform.python_version()}, ' + ', '.join(
        f'{name} {number}' for name, number in here.items() if number
    )
    facts['report made'] = time.strftime('%Y-%m-%d %H:%M')
    return facts


def _command(folder: Path, source: Path, seed: Any) -> str:
    """The command as it was noted, or one that does the same from the config as it was run."""
    # A test in the same folder has written its own config in the place of the training's.
    for path in [source, *sorted(folder.glob('*/vis_data/config.py'), reverse=True)]:
        command = load_config(path).get('command')
        if command:
            return str(command)
    more = f' --seed {seed}' if seed is not None else ''
    return (
        f'was not noted; the same again: mmresnest train {folder / source.name} --work-dir '
        f'NEW{more}'
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ''


def _logged(folder: Path) -> dict[str, str]:
    """What mmengine's first log of a folder says of the machine: word to value."""
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
