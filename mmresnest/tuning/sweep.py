"""Run a sweep: trainings that differ in a few options, each a process, the hopeless ones ended.

    mmresnest sweep CONFIG --data DIR --over lr=1e-4..1e-2:log arch=resnest50,res2net50_v1b_26w_4s

The study is in the work folder: the same command again goes on where it ended, on this machine or
on others that share the folder.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config.load import load_config
from ..config.option_keys import check_keys
from ..config.options import PrintOptions, TrainOptions, build_options
from ..config.schedule import check_options
from ..engine.prepare import configure
from ..errors import UserError
from ..report import sweep as report
from ..report.page import render_sections, write_text
from ..report.sections import Table
from ..report.sweep import TrialRow, rank_trials
from ..utils.env import SAFE, TRUST, is_on
from ..utils.files import write_whole
from ..utils.packages import require_packages
from ..utils.threads import divide_threads
from .options import SweepOptions
from .space import Parameter, parse_option, parse_space, spell_options, spell_trial
from .training import LOG, Training, count_validations, read_reason, read_scores, remove_checkpoints

POLL = 0.5  # seconds between two looks at the trainings
ALIKE = 3  # trials at the beginning that fail alike, after which no other is tried
TABLE, PAGE = 'table.csv', 'sweep.html'


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has found.

    Attributes:
        folder: of all its files.
        trials: best first.
        best: the best that has finished; None where none has.
        command: what trains as the best trial did.
        table: all trials, as CSV.
        page: the same with figures.
        stopped: what ended it before its last trial: ``a signal``, ``--timeout``, or nothing.
        seconds: wall time of the whole call.
    """

    folder: Path
    trials: list[TrialRow]
    best: TrialRow | None
    command: str
    table: Path
    page: Path
    stopped: str
    seconds: float


def sweep(
    config: str | os.PathLike,
    options: SweepOptions | None = None,
    /,
    say: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> SweepResult:
    """Train a config several times, with options that a sampler chooses, and compare the scores.

    Args:
        config: the file or name of a config.
        options: what is asked for, see :class:`~mmresnest.tuning.options.SweepOptions`.
        say: is called with a line for each trial that begins or ends.
        **given: options by keyword.

    Raises:
        UserError: options, config or data cannot be used, before anything is written; the folder
            has another sweep; or every trial failed.
    """
    start = time.monotonic()
    require_packages('a sweep', 'sweep', 'optuna', 'plotly', 'jinja2')
    options = build_options(SweepOptions, options, given)
    space = parse_space(options.over)
    _check_request(config, options, space)
    return Sweep(config, options, space, say, start).run()


def _check_request(
    config: str | os.PathLike, options: SweepOptions, space: Sequence[Parameter]
) -> None:
    """Refuse what no trial could do, before the first one takes its time."""
    for name in ('trials', 'jobs'):
        if getattr(options, name) < 1:
            raise UserError(
                f'--{name} {getattr(options, name)}: at least 1 is needed', code='option.value'
            )
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(f'--timeout {options.timeout}: it must be above 0', code='option.value')
    fixed = {one.key for one in space if not one.is_setting}
    twice = [name for name in fixed if _is_given(options, name)]
    twice += [one.key for one in space if one.key in (options.cfg_options or {})]
    if twice:
        raise UserError(
            f'{twice[0].replace("_", "-")} is given as an option and varied by --over; leave one '
            'out',
            code='option.conflict',
        )
    first: dict[str, Any] = {}
    for one in space:
        for value in () if one.is_setting else one.samples:
            parsed = parse_option(one, value)
            check_options(replace(options, **{one.key: parsed}))
            first.setdefault(one.key, parsed)
    settings = {one.key: str(one.samples[0]) for one in space if one.is_setting}
    cfg = load_config(config)
    if settings:
        check_keys(cfg, settings)
    for one in space:
        for value in one.values[1:] if one.key == 'arch' else ():
            configure(cfg, arch=value)
    # With its data, as the first trial will be.
    asked = {
        name: getattr(options, name)
        for name in ('data', 'data_format', 'split', 'mask_values', 'demo', 'cfg_options')
    }
    plain = {name: value for name, value in first.items() if name in ('arch', 'epochs', 'lr')}
    configure(cfg, PrintOptions(**{**asked, 'arch': options.arch, **plain}))


def _is_given(options: SweepOptions, name: str) -> bool:
    if name == 'seed':  # each training has one, unless it is varied
        return False
    return getattr(options, name) != TrainOptions.__dataclass_fields__[name].default


class Sweep:
    """A sweep as it runs; see :func:`sweep`."""

    def __init__(
        self,
        config: str | os.PathLike,
        options: SweepOptions,
        space: Sequence[Parameter],
        say: Callable[[str], None],
        start: float,
    ) -> None:
        from .study import SweepStudy  # optuna, which need not be there

        self.config, self.options, self.space = os.fspath(config), options, space
        self.say, self.start = say, start
        given = options.work_dir or f'work_dirs/{Path(self.config).stem}_sweep'
        self.folder = Path(given).expanduser()
        passed = replace(options, work_dir=None)
        if 'seed' in {one.key for one in space}:
            passed = replace(passed, seed=None)
        self.words = [
            self.config,
            *spell_options(passed),
            *(['--safe-config'] if is_on(SAFE) else []),
            *(['--trust-checkpoint'] if is_on(TRUST) else []),
        ]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f'the work folder {self.folder} cannot be made: {error.strerror}; choose another '
                'with --work-dir',
                code='file.unwritable',
            ) from error
        settings = {
            'command': shlex.join(self.words),
            '--over': sorted(options.over),
            '--metric': options.metric,
        }
        self.study = SweepStudy(self.folder, space, options, settings)
        self.score = ''  # the name of the score, once one is known
        self.signalled = False
        self.stopped = ''
        self.running: list[tuple[Any, Training, int]] = []  # trial, its process, its slot

    def run(self) -> SweepResult:
        """Run trials until there are as many as asked for."""
        before = [row for row in self.study.list_rows() if row.state not in ('interrupted',)]
        if before:
            self.say(
                f'goes on with {self.folder}, which has {len(before)} of {self.study.count} trials'
            )
        with self._listen_to_signals():
            while True:
                self._start_trials()
                if not self.running:
                    break
                time.sleep(POLL)
                self.running = [one for one in self.running if not self._follow(*one)]
                limit = self.options.timeout
                if self.signalled or limit is not None and time.monotonic() - self.start > limit:
                    self.stopped = 'a signal' if self.signalled else '--timeout'
                    self._interrupt()
                    break
        self._refuse_if_all_failed()
        return self._write_results()

    def _start_trials(self) -> None:
        while len(self.running) < self.options.jobs and not self.signalled:
            if self._fail_alike():
                return
            trial = self.study.take_next()
            if trial is None:
                return
            chosen = {one.name: one.spell_value(trial.params[one.key]) for one in self.space}
            slot = min(set(range(self.options.jobs)) - {slot for *_, slot in self.running})
            words = [*self.words, *spell_trial(self.space, chosen)]
            folder = self.study.trial_folder(trial.number)
            training = Training(words, folder, choose_environment(slot, self.options.jobs))
            self.running.append((trial, training, slot))
            values = ', '.join(f'{name} {value}' for name, value in chosen.items())
            self.say(f'trial {trial.number} of {self.study.count}: {values}')

    def _follow(self, trial: Any, training: Training, slot: int) -> bool:
        """Note the new scores of a trial, and prune it or note its end; return whether it ended."""
        status = training.status  # before its log is read: what it has written by then is all
        try:
            self.score, scores = read_scores(training.folder, self.options.metric)
        except UserError as error:
            training.request_stop()
            training.wait_for_end()
            self._end_trial(trial, training, 'failed', None, str(error))
            return True
        known = len(self.study.list_rows()[trial.number].scores)
        for number, score in enumerate(scores[known:], known + 1):
            if not self.study.report_score(trial, number, score) or status is not None:
                continue
            if number < (count_validations(training.folder) or number + 1):
                training.request_stop()
                training.wait_for_end()
                self._end_trial(trial, training, 'pruned', None, f'after validation {number}')
                return True
        if status is None:
            return False
        if status != 0:
            self._end_trial(trial, training, 'failed', None, read_reason(training.folder, status))
        elif not scores:
            reason = 'it has no scores: nothing is validated, or nothing was detected'
            self._end_trial(trial, training, 'failed', None, reason)
        else:
            # What the commands take of a work folder: the best checkpoint, or else the last.
            keeps_best = any(training.folder.glob('best_*.pth'))
            score = max(scores) if keeps_best else scores[-1]
            self._end_trial(trial, training, 'finished', score, '')
        return True

    def _end_trial(
        self, trial: Any, training: Training, state: str, score: float | None, reason: str
    ) -> None:
        before = self.study.list_rows()[trial.number].seconds
        seconds = before + training.seconds
        self.study.finish(trial, state, score, seconds=seconds, reason=reason)
        rows = self.study.list_rows()
        finished = rank_trials([row for row in rows if row.state == 'finished'])
        if not self.options.keep_checkpoints:
            for row in rows:
                done = row.state in ('finished', 'pruned', 'failed')
                if done and row.number != (finished[0].number if finished else -1):
                    remove_checkpoints(self.folder / row.folder)
        told = f': {self.score} {score:.4f}' if score is not None else ''
        if state == 'finished' and finished[0].number == trial.number:
            told += ', the best so far'
        self.say(f'trial {trial.number} {state}{told}{f": {reason}" if reason else ""}')
        self._write_files(rows)

    def _fail_alike(self) -> bool:
        """Return whether the first trials have all failed for one reason, so that others would."""
        rows = [row for row in self.study.list_rows() if row.state != 'interrupted']
        ended = [row for row in rows if row.state != 'running']
        reasons = {row.reason for row in ended}
        wrong_metric = any(reason.startswith('--metric') for reason in reasons)
        return all(row.state == 'failed' for row in ended) and (
            wrong_metric or len(ended) >= ALIKE and len(reasons) == 1
        )

    def _refuse_if_all_failed(self) -> None:
        rows = self.study.list_rows()
        failed = [row for row in rows if row.state == 'failed']
        if not failed or len(failed) < len([row for row in rows if row.state != 'interrupted']):
            return
        reason, times = Counter(row.reason for row in failed).most_common(1)[0]
        shown = next(row for row in failed if row.reason == reason)
        raise UserError(
            f'all {len(failed)} trials failed, {times} of them with: {reason}. The log of one is '
            f'{self.folder / shown.folder / LOG}; mend that and give the same command again: it '
            'begins anew',
            code='sweep.failed',
        )

    @contextmanager
    def _listen_to_signals(self) -> Iterator[None]:
        """End the sweep at the first signal, with its trainings saved; at a second one at once."""

        def note_signal(number: int, frame: Any) -> None:
            if self.signalled:
                for _, training, _ in self.running:
                    training.process.kill()
            self.signalled = True

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, note_signal)
        except ValueError:  # not the main thread, where no signals arrive
            pass
        try:
            yield
        finally:
            for _, training, _ in self.running:  # an error of the sweep itself
                training.request_stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self) -> None:
        """End the trainings that run, each with its state saved, to be continued."""
        for _, training, _ in self.running:
            training.request_stop()
        for trial, training, _ in self.running:
            training.wait_for_end()
            before = self.study.list_rows()[trial.number].seconds
            trial.set_user_attr('seconds', before + training.seconds)
            self.study.release(trial.number)
            self.say(f'trial {trial.number} interrupted, its state is saved')
        self.running = []

    def _write_files(self, rows: Sequence[TrialRow]) -> None:
        """Write table and page, which can be looked at while the sweep runs."""
        ranked = rank_trials(rows)
        table = format_table(ranked, self.space, self.score)
        write_whole(self.folder / TABLE, lambda file: file.write(table.encode()))
        scales = {
            one.name: 'category' if one.values else 'log' if one.log else 'linear'
            for one in self.space
        }
        sections = report.build_sections(rows, scales, self.score or 'score', self.folder)
        counts = Counter(row.state for row in rows)
        open_ = self.study.count - len(rows) + counts['running'] + counts['interrupted']
        notes = [f'{open_} of {self.study.count} trials are still to be run.'] if open_ else []
        states = ', '.join(f'{counts[state]} {state}' for state in report.STATES if counts[state])
        text = render_sections(
            f'Sweep: {self.folder.absolute().name}', states, notes, sections, self._facts(ranked)
        )
        write_text(self.folder / PAGE, text)

    def _facts(self, ranked: Sequence[TrialRow]) -> Table:
        facts = {
            'best trial, again': self._command(ranked) or 'none has finished',
            'varied': ' '.join(self.options.over),
            'in all trials': shlex.join(self.words),
            'score': f'{self.score or "none"}, maximized',
            'chosen by': 'all combinations in random order'
            if self.study.combinations is not None
            else "Optuna's TPE sampler",
            'pruned by': self.options.pruner,
            'seed': str(self.options.seed),
            'versions': ', '.join(
                [f'Python {platform.python_version()}']
                + [f'{name} {version(name)}' for name in ('mmresnest', 'torch', 'optuna')]
            ),
        }
        return Table('What was run', ['', 'value'], [[*pair] for pair in facts.items()])

    def _command(self, ranked: Sequence[TrialRow]) -> str:
        """Return what trains again as the best trial did; empty where none has finished."""
        if not ranked or ranked[0].state != 'finished':
            return ''
        words = [*self.words, *spell_trial(self.space, ranked[0].values)]
        return shlex.join(['mmresnest', 'train', *words])

    def _write_results(self) -> SweepResult:
        rows = self.study.list_rows()
        if not self.score:  # nothing was left to run: the name is in the log of a trial
            names = (read_scores(self.folder / row.folder, self.options.metric)[0] for row in rows)
            self.score = next(filter(None, names), '')
        self._write_files(rows)
        ranked = rank_trials(rows)
        return SweepResult(
            self.folder,
            ranked,
            ranked[0] if ranked and ranked[0].state == 'finished' else None,
            self._command(ranked),
            self.folder / TABLE,
            self.folder / PAGE,
            self.stopped,
            time.monotonic() - self.start,
        )


def choose_environment(slot: int, jobs: int) -> dict[str, str]:
    """Return the variables of a training beside others: its GPU, or its share of the cores.

    Args:
        slot: which of the trainings at once it is.
        jobs: how many there are.
    """
    if jobs == 1:
        return {}
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is None:
        import torch

        visible = ','.join(map(str, range(torch.cuda.device_count())))
    devices = [name for name in visible.split(',') if name]
    if devices:
        return {'CUDA_VISIBLE_DEVICES': devices[slot % len(devices)]}
    return divide_threads(jobs)


def format_table(ranked: Sequence[TrialRow], space: Sequence[Parameter], score: str) -> str:
    """Return the trials as CSV."""
    names, score = [one.name for one in space], score or 'score'
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['trial', 'state', score, *names, 'validations', 'seconds', 'reason', 'folder'])
    for row in ranked:
        reached = '' if row.score is None else f'{row.score:.6g}'
        values = [row.values.get(name, '') for name in names]
        ran = [len(row.scores), f'{row.seconds:.1f}', row.reason, row.folder]
        writer.writerow([row.number, row.state, reached, *values, *ran])
    return out.getvalue()
