"""The report of a run, as one function: predictions once, then a page of them.

A work folder holds the config as it was run, checkpoints and logs. The checkpoint with the best
score predicts on the validation split; at the end of a training the last one, whose predictions are
there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ..config.inspect import task_of
from ..config.load import load_config
from ..errors import UserError
from ..evaluation.collector import PredictionCollector
from ..report.page import RUNS, align_classes, require_report, write_page
from ..report.sections import Run
from ..utils.run_logs import read_curves
from . import checkpoints
from .cached_predictions import (
    collect_from,
    collected_results,
    keep_predictions,
    load_or_predict,
    predictions_file,
    stamp_of,
)
from .run_facts import checkpoint_facts, run_facts, unfinished_notes
from .trained_run import find_best, find_config

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
    common_classes: bool = False,
) -> ReportResult:
    """Write the report of a run, or of several beside each other.

    Args:
        work_dirs: one work folder, or several.
        out: the file to write; by default ``report.html`` in the (first) work folder.
        checkpoint: which to report of, where there is one work folder; by default the one with
            the best score, or the newest where the training kept none by its score.
        common_classes: compare runs of different classes over those that all have.

    Returns:
        the file.

    Raises:
        UserError: a work folder holds nothing to report, its config or data cannot be used, or the
            page cannot be written.
    """
    start = time.monotonic()
    given = [work_dirs] if isinstance(work_dirs, (str, os.PathLike)) else list(work_dirs)
    folders = [Path(one).expanduser() for one in given]
    if not 1 <= len(folders) <= RUNS:
        raise UserError(
            f'{len(folders)} work folders: a report is of one run, or of up to {RUNS} beside each '
            'other; name fewer',
            code='option.value',
        )
    if checkpoint is not None and len(folders) > 1:
        raise UserError(
            f'--checkpoint names one file, and there are {len(folders)} runs; leave it out for '
            'the best of each',
            code='option.conflict',
        )
    require_report()
    file = _output_file(folders, out)
    runs = [
        _read_run(folder, name, checkpoint) for folder, name in zip(folders, _name_runs(folders))
    ]
    runs = align_classes(runs, common_classes)
    write_page(file, runs)
    return ReportResult(
        file, time.monotonic() - start, [note for run in runs for note in run.notes]
    )


def _name_runs(folders: Sequence[Path]) -> list[str]:
    """Name the runs by their folders, and by their position where these are alike."""
    names = [folder.absolute().name or str(folder.absolute()) for folder in folders]
    if len(set(names)) < len(names):
        names = [f'{letter}: {name}' for letter, name in zip(ascii_uppercase, names)]
    return names


def _output_file(folders: Sequence[Path], out: str | os.PathLike | None) -> Path:
    """Return where the page goes, checked before anything takes time."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f'there is no work folder {folder.absolute()}; give what --work-dir '
                'was in training (by default work_dirs/CONFIG)',
                code='report.nothing',
            )
    others = '_'.join(each.absolute().name for each in folders[1:])
    name = f'report_with_{others[:100]}.html' if others else 'report.html'
    file = folders[0] / name if out is None else Path(out).expanduser()
    if file.is_dir():
        raise UserError(
            f'--out {file} is a folder; name a file in it, such as {file}/report.html',
            code='option.no-folder',
        )
    if not file.absolute().parent.is_dir():
        raise UserError(
            f'--out {file}: there is no folder {file.absolute().parent}; make it, or name another',
            code='option.no-folder',
        )
    if not os.access(file.absolute().parent, os.W_OK):
        raise UserError(
            f'{file.absolute().parent} cannot be written to; name another file with --out',
            code='file.unwritable',
        )
    return file


def _read_run(folder: Path, name: str, given: str | os.PathLike | None) -> Run:
    curves = read_curves(folder)
    if given is None:
        path = find_best(folder) or checkpoints.find_last(folder)
    else:
        path = Path(given).expanduser()
    if path is None and curves.empty:
        raise UserError(
            f'{folder.absolute()} holds neither a checkpoint nor a log with losses or '
            'scores: nothing can be reported yet; give the work folder of a training',
            code='report.nothing',
        )
    if path is not None and (not path.exists() or path.is_dir()):
        checkpoints.read_checkpoint(path)  # says what is wrong with it
        raise UserError(
            f'{path} is not a checkpoint; give a .pth file with --checkpoint',
            code='checkpoint.unreadable',
        )
    source = find_config(folder)
    cfg = load_config(source)
    facts, notes = {'task': TASKS[task_of(cfg)]}, unfinished_notes(cfg, curves, folder)
    results = None
    if path is None:
        notes.append('There is no checkpoint yet: only what was logged can be shown.')
    else:
        results, about = load_or_predict(folder, cfg, source, path)
        facts.update(checkpoint_facts(path, about, notes))
    facts.update(run_facts(folder, cfg, source))
    return Run(name, facts, notes, source.read_text(encoding='utf-8'), curves, results)


def collect_at_end(training: Any, validation: Any) -> PredictionCollector | None:
    """Have the validation of a training's last step collect what is predicted, for its report.

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


def report_at_end(runner: Any, collector: PredictionCollector) -> Path | None:
    """Write the report of a training that has ended, from the predictions of its last validation.

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
        require_report()
        path, source = checkpoints.find_last(folder), find_config(folder)
        if (
            path is not None
            and path.is_file()
            and collector.found is not None
            and path.stem in (f'iter_{runner.iter}', f'epoch_{runner.epoch}')
        ):
            stamp = stamp_of(folder, load_config(source), source, path)
            about = dict(iter=str(runner.iter), epoch=str(runner.epoch), stamp=stamp)
            keep_predictions(
                predictions_file(folder, path, stamp), collected_results(collector), about
            )
        return report(folder, checkpoint=path).file
    except UserError as error:
        print_log(f'no report was written: {error}', 'current')
        return None
