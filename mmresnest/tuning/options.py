"""What can be asked of a sweep. Imports nothing heavy, as :mod:`mmresnest.config.options`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.options import TrainOptions, option

PRUNERS = ('median', 'hyperband', 'none')


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainOptions):
    """How a config is swept.

    Attributes:
        over: what is varied: an option of train or a setting with dots, and its values, as
            arch=resnest50,res2net50_v1b batch-size=4,8, or a range, as lr=1e-4..1e-1:log
            epochs=5..20.
        trials: trainings in all, those of earlier calls included.
        timeout: end after so many seconds; running again continues.
        jobs: trainings at once; with several GPUs they take turns on them.
        metric: the score that is maximized, as coco/bbox_mAP_50 (auto: the main score of the task).
        pruner: what ends a training early by its validations: median, where its best score is
            below the median of the others'; hyperband, by successive halving.
        keep_checkpoints: of all trainings, and not of the best one alone.
        seed: for the choice of values, and for each training.
        work_dir: for trials, table and page (default: work_dirs/<config>_sweep).
    """

    over: Sequence[str] = option((), nargs='+', action='extend', metavar='KEY=VALUES')
    trials: int = option(20, type=int, metavar='N')
    timeout: float | None = option(type=float, metavar='SECONDS')
    jobs: int = option(1, type=int, metavar='N')
    metric: str = option('auto', metavar='NAME')
    pruner: str = option('median', choices=PRUNERS)
    keep_checkpoints: bool = option(False)
    seed: int | None = option(0, type=int)
    # A sweep says itself where its trainings write and how they resume; it starts single processes.
    resume: str | None = None
    allow_mismatch: bool = False
    launcher: str = 'none'
    strategy: str | None = None
    progress: bool = True
