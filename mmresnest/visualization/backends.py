"""Log a run to TensorBoard, Weights & Biases or MLflow while it goes.

    mmresnest train CONFIG --logger tensorboard

The backends are mmengine's, which its logger hook feeds with all losses, learning rates and scores;
the classes here make sure that nothing of it is lost, and :class:`LivePictures` adds images. Both
work in any config by name:

    visualizer = dict(vis_backends=[dict(type='LocalVisBackend'),
                                    dict(type='mmresnest.TensorboardVisBackend')])
    default_hooks = dict(live=dict(type='mmresnest.LivePictures', number=8))
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.visualization import MLflowVisBackend as TheirMLflowVisBackend
from mmengine.visualization import TensorboardVisBackend as TheirTensorboardVisBackend
from mmengine.visualization import WandbVisBackend as TheirWandbVisBackend

from ..errors import UserError
from ..registry import VISBACKENDS


@VISBACKENDS.register_module()
class TensorboardVisBackend(TheirTensorboardVisBackend):
    """mmengine's, which writes at once: TensorBoard's own writer waits for two minutes.

    What it had not yet written would be lost with a run that is interrupted.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config, in lines: TensorBoard reads texts as Markdown."""
        self.experiment.add_text('config', f'```\n{config.pretty_text}\n```')

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record numbers."""
        super().add_scalars(scalar_dict, step, file_path, **kwargs)
        self.experiment.flush()


@VISBACKENDS.register_module()
class WandbVisBackend(TheirWandbVisBackend):
    """mmengine's, over iterations, also in a run that resumes another.

    wandb counts calls where it is told no step, and takes no step back.  The runs of a work folder
    are one group.  The code of the current folder is not uploaded: it may hold an environment, and
    data sets.
    """

    iteration = 0  # the last that was told of
    _init_kwargs: Any
    _define_metric_cfg: Any

    def _init_env(self) -> None:
        import wandb

        run = Path(self._save_dir).absolute().parent
        self._init_kwargs = {
            'group': run.parent.name,
            'name': f'{run.parent.name}/{run.name}',
            **(self._init_kwargs or {}),
        }
        if self._define_metric_cfg is None:
            self._define_metric_cfg = [dict(name='iter'), dict(name='*', step_metric='iter')]
        try:
            super()._init_env()
        except wandb.errors.Error as error:
            raise UserError(
                f'wandb cannot begin: {error}; log in with `wandb login`, or write to '
                'the work folder alone with WANDB_MODE=offline',
                code='logger.failed',
            ) from error

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config."""
        self.experiment.config.update(config.to_dict(), allow_val_change=True)

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record numbers."""
        self.iteration = scalar_dict.get('iter', self.iteration)
        self.experiment.log({'iter': self.iteration, **scalar_dict}, commit=self._commit)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image."""
        self.iteration = max(self.iteration, step)
        self.experiment.log({name: self._wandb.Image(image), 'iter': step}, commit=self._commit)

    def close(self) -> None:
        """End the run, as failed while an exception is handled."""
        if hasattr(self, '_wandb'):
            self._wandb.finish(exit_code=int(_in_exception()))


@VISBACKENDS.register_module()
class MLflowVisBackend(TheirMLflowVisBackend):
    """mmengine's, with a store that MLflow still writes to, and names that it takes.

    Unless ``tracking_uri`` or ``MLFLOW_TRACKING_URI`` says otherwise, the store is ``mlflow.db`` in
    the work folder, with files in ``mlruns``: mmengine's, a folder, is refused by MLflow 3. The
    experiment is called as the work folder, a run by the time it began.
    """

    def _init_env(self) -> None:
        import mlflow

        self._mlflow = mlflow
        os.makedirs(self._save_dir, exist_ok=True)
        run = Path(self._save_dir).absolute().parent
        store, files = self._tracking_uri or os.environ.get('MLFLOW_TRACKING_URI'), None
        if store is None:
            store = f'sqlite:///{(run.parent / "mlflow.db").as_posix()}'
            files = (run.parent / 'mlruns').as_uri()
        mlflow.set_tracking_uri(store)
        name = self._exp_name or run.parent.name
        try:
            with _reopen_log_files():
                if mlflow.get_experiment_by_name(name) is None:
                    mlflow.create_experiment(name, self._artifact_location or files)
                mlflow.set_experiment(name)
                mlflow.start_run(run_name=self._run_name or run.name, tags=self._tags)
                mlflow.log_params(self._params or {})
        except mlflow.MlflowException as error:
            raise UserError(
                f'MLflow cannot begin in {store}: {error}; look at tracking_uri of the '
                'backend and at MLFLOW_TRACKING_URI',
                code='logger.failed',
            ) from error

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config, whole and by its settings."""
        keys = config.keys() if self._tracked_config_keys is None else self._tracked_config_keys
        settings = self._flatten({key: config[key] for key in keys})
        flow = self.experiment
        with self._tolerate_errors('the config'):
            flow.log_text(config.pretty_text, 'config.py')
            flow.log_params({_metric_name(name): value for name, value in settings.items()})

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Record a number."""
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record numbers."""
        flow = self.experiment
        with self._tolerate_errors(f'the numbers of step {step}'):
            flow.log_metrics(
                {_metric_name(name): float(value) for name, value in scalar_dict.items()}, step
            )

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Record an image, beside those of other steps."""
        flow = self.experiment
        with self._tolerate_errors(f'the picture {name}'):
            flow.log_image(image, key=_metric_name(name), step=step)

    def close(self) -> None:
        """Record log and scalars of this run, and end it; as failed while an exception is handled.

        Not all of the work folder, where mmengine takes them from: the store is in it.
        """
        if not hasattr(self, '_mlflow') or self._mlflow.active_run() is None:
            return
        data = Path(self._save_dir)
        with self._tolerate_errors('the log'):
            for folder, place in ((data.parent, None), (data, data.name)):
                for path in sorted(folder.iterdir()):
                    if path.is_file() and path.name.endswith(tuple(self._artifact_suffix)):
                        self._mlflow.log_artifact(str(path), place)
        with self._tolerate_errors('the end of the run'):
            self._mlflow.end_run('FAILED' if _in_exception() else 'FINISHED')

    @contextmanager
    def _tolerate_errors(self, what: str) -> Iterator[None]:
        """Log an error of the store, and continue without the record."""
        try:
            yield
        except self._mlflow.MlflowException as error:
            print_log(f'MLflow did not take {what}: {error}', 'current', logging.WARNING)


def _in_exception() -> bool:
    """Return whether an error is being handled."""
    return sys.exc_info()[0] is not None


def _metric_name(name: str) -> str:
    """Return a name that MLflow accepts: another character is written as its number."""
    return re.sub(r'[^\w\-. :/]', lambda found: f'_{ord(found.group()):x}', name)


@contextmanager
def _reopen_log_files() -> Iterator[None]:
    """Reopen log files that are closed within: alembic does so when it makes a database."""
    logger = MMLogger.get_current_instance()
    try:
        yield
    finally:
        for handler in logger.handlers:
            file = getattr(handler, 'baseFilename', None)
            if file is not None and handler.stream is None:
                handler.stream = open(file, 'a', encoding=handler.encoding)
