"""The trials of a sweep: Optuna's study, kept in a journal that several processes may write.

A process that runs a trial holds a lock in its folder. A trial that counts as running and whose
lock is free was interrupted, and is continued by whoever comes first.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from ..engine.run_lock import LOCK_NAME, lock_work_dir
from ..errors import UserError
from ..report.sweep import TrialRow
from .options import SweepOptions
from .space import Parameter, list_combinations

JOURNAL = 'study.journal'
TRIALS = 'trials'
LOCK = '.sweep'
"""The lock of whoever runs a trial; the training itself holds another."""
STATES = {
    TrialState.COMPLETE: 'finished',
    TrialState.PRUNED: 'pruned',
    TrialState.FAIL: 'failed',
    TrialState.RUNNING: 'running',
}


class GridSampler(optuna.samplers.RandomSampler):
    """Give trial N the N-th of a list of combinations, whoever runs the others."""

    def __init__(self, combinations: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.combinations = combinations

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the value of a parameter in the trial's combination."""
        return self.combinations[trial.number % len(self.combinations)][param_name]


class SweepStudy:
    """The study of a sweep, and which of its trials this process runs.

    Args:
        folder: of the sweep; trials are in folders below.
        space: what is varied.
        options: how many trials, and how they are pruned.
        settings: what a trial depends on beside its parameters: those of the study must be the
            same.

    Raises:
        UserError: the folder has the study of another sweep, or one that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        space: Sequence[Parameter],
        options: SweepOptions,
        settings: dict[str, Any],
    ) -> None:
        self.folder, self.space, self.options = folder, space, options
        self.combinations = list_combinations(space, options.seed or 0)
        self.locks: dict[int, ExitStack] = {}  # number of a trial of ours -> its lock
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = self._open(settings)
        rows = self.list_rows()
        if rows and all(row.state == 'failed' for row in rows):
            # What failed all of them was mended, or the same command would not be given again.
            (folder / JOURNAL).unlink()
            shutil.rmtree(folder / TRIALS, ignore_errors=True)
            self.study = self._open(settings)

    def _open(self, settings: dict[str, Any]) -> optuna.Study:
        path = str(self.folder / JOURNAL)
        # Windows lets few users make the symbolic links that Optuna locks by.
        lock = JournalFileOpenLock(path) if os.name == 'nt' else None
        try:
            study = optuna.create_study(
                study_name='sweep',
                direction='maximize',
                storage=JournalStorage(JournalFileBackend(path, lock)),
                pruner=build_pruner(self.options),
                load_if_exists=True,
            )
            before = study.user_attrs.get('settings')
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise UserError(
                f'{path} cannot be read as the study of a sweep ({type(error).__name__}: {error}); '
                'bring it back, or give another --work-dir',
                code='sweep.study',
            ) from error
        if before is None:
            study.set_user_attr('settings', settings)
        elif before != settings:
            name = next(key for key in settings if before.get(key) != settings[key])
            raise UserError(
                f'{self.folder} has a sweep with another {name}: {before.get(name)} there, '
                f'{settings[name]} now; scores of the two cannot be compared: give another '
                '--work-dir, or what that sweep was given',
                code='sweep.other',
            )
        return study

    @property
    def count(self) -> int:
        """How many trials there will be: at most as many as there are combinations."""
        most = len(self.combinations) if self.combinations is not None else self.options.trials
        return min(self.options.trials, most)

    def trial_folder(self, number: int) -> Path:
        """Return the work folder of a trial."""
        return self.folder / TRIALS / str(number)

    def take_next(self) -> Trial | None:
        """Return the trial that this process runs next, locked: an interrupted one, or a new one.

        Returns:
            None where none is left.
        """
        for number, trial_id in self._list_running():
            if self._lock(number):
                if self._state_of(number) == TrialState.RUNNING:
                    return self._suggest(Trial(self.study, trial_id))
                self.release(number)
        if len(self.study.get_trials(deepcopy=False)) >= self.count:
            return None
        trial = self.study.ask()
        self._lock(trial.number)
        return self._suggest(trial)

    def _suggest(self, trial: Trial) -> Trial:
        """Choose the values of a trial; one that was interrupted has them already.

        The generator is seeded by the number of the trial, so that neither a sweep that is
        continued nor several processes draw the same numbers again.
        """
        if self.combinations is not None:
            self.study.sampler = GridSampler(self.combinations)
        else:
            self.study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=min(10, max(3, self.options.trials // 3)),
                seed=zlib.crc32(f'{self.options.seed} {trial.number}'.encode()),
                constant_liar=True,  # trials that run count as bad ones: others go elsewhere
            )
        for one in self.space:
            one.suggest_value(trial)
        return trial

    def _list_running(self) -> Iterator[tuple[int, int]]:
        """Yield number and key of the trials that count as running, but those of this process."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if trial.number not in self.locks:
                yield trial.number, trial._trial_id  # by which Optuna finds a trial again

    def _state_of(self, number: int) -> TrialState:
        return self.study.get_trials(deepcopy=False)[number].state

    def _lock(self, number: int) -> bool:
        """Lock a trial, unless another process or a training that it left runs it."""
        folder = self.trial_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        held = ExitStack()
        try:
            held.enter_context(lock_work_dir(folder, LOCK))
            with lock_work_dir(folder, LOCK_NAME):
                pass
        except UserError:
            held.close()
            return False
        self.locks[number] = held
        return True

    def release(self, number: int) -> None:
        """Give a trial back."""
        self.locks.pop(number).close()

    def report_score(self, trial: Trial, validation: int, score: float) -> bool:
        """Note the score of a validation, the first being 1; return whether to prune the trial."""
        trial.report(score, validation)
        return trial.should_prune()

    def finish(self, trial: Trial, state: str, score: float | None, **facts: Any) -> None:
        """Note how a trial has ended.

        Args:
            trial: of this process, which gives it back.
            state: ``finished``, ``pruned`` or ``failed``.
            score: of a finished one.
            facts: what the table tells of it.
        """
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        kind = next(kind for kind, word in STATES.items() if word == state)
        # A pruned trial has the last score that was noted.
        self.study.tell(trial, score if state == 'finished' else None, state=kind)
        self.release(trial.number)

    def list_rows(self) -> list[TrialRow]:
        """Return all trials, by number."""
        return [self._make_row(trial) for trial in self.study.get_trials(deepcopy=False)]

    def _make_row(self, trial: FrozenTrial) -> TrialRow:
        scores = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
        state = STATES[trial.state]
        if state == 'running' and trial.number not in self.locks:
            state = 'interrupted'
        best = max(scores, default=None)
        return TrialRow(
            number=trial.number,
            state=state,
            score=trial.value if state == 'finished' else best,
            values={
                one.name: one.spell_value(trial.params[one.key])
                for one in self.space
                if one.key in trial.params
            },
            scores=scores,
            seconds=float(trial.user_attrs.get('seconds', 0)),
            reason=str(trial.user_attrs.get('reason', '')),
            folder=f'{TRIALS}/{trial.number}',
        )


def build_pruner(options: SweepOptions) -> optuna.pruners.BasePruner:
    """Return what decides by its validations whether a trial goes on.

    Optuna's median waits for five trials; of a sweep of eight it would prune the last three only.
    Nobody is pruned at the first validation, where a training has just begun.
    """
    if options.pruner == 'hyperband':
        return optuna.pruners.HyperbandPruner(min_resource=1)
    if options.pruner == 'none':
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=min(5, max(2, options.trials // 4)), n_warmup_steps=2
    )
