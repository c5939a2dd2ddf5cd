"""A run that is watched while it goes: in TensorBoard, Weights & Biases or MLflow.

    mmresnest train CONFIG --live tensorboard

The backends are mmengine's, which its logger hook feeds with all losses, learning rates and scores;
here stands what they take to lose nothing of it, and :class:`LivePictures` adds pictures.  Both
serve in any config by name:

    visualizer = dict(vis_backends=[dict(type='LocalVisBackend'),
                                    dict(type='mmresnest.TensorboardVisBackend')])
    default_hooks = dict(live=dict(type='mmresnest.LivePictures', number=8))
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger, print_log
from mmengine.visualization import MLflowVisBackend as TheirMLflowVisBackend
from mmengine.visualization import TensorboardVisBackend as TheirTensorboardVisBackend
from mmengine.visualization import WandbVisBackend as TheirWandbVisBackend

from ..errors import ArgumentError, UserError, nearest
from ..registry import HOOKS, VISBACKENDS

BACKENDS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'WandbVisBackend',
    'mlflow': 'MLflowVisBackend',
}
"""Package, and extra of ours -> mmengine's type."""
LOCAL = 'LocalVisBackend'
"""What writes the scalars that curves and reports are made from."""
HOOK = 'live'
"""The key of default_hooks that has the pictures."""


# ---- configs -------------------------------------------------------------------------------------


def settle_live(cfg: Config, live: Sequence[str] = ()) -> None:
    """Adds backends to a config, and has those that are live get pictures, too.

    Where the config has mmengine's type, ours takes its place.

    Args:
        cfg: changed in place.
        live: of ``BACKENDS``, which to add to those that the config has.

    Raises:
        UserError: one of them is unknown, or its package is not installed.
    """
    for name in live:
        if name not in BACKENDS:
            raise UserError(f'--live {name}: there is no such backend; {nearest(name, BACKENDS)}')
    given = _backends(cfg)
    there = [_short(one) for one in given]
    given += [
        dict(type=kind)
        for kind in (BACKENDS[name] for name in dict.fromkeys(live))
        if kind not in there
    ]
    packages = [name for name, kind in BACKENDS.items() if kind in map(_short, given)]
    if not packages:
        return
    _check_installed(packages, cfg)
    for one in given:
        if _short(one) in BACKENDS.values():
            one['type'] = f'mmresnest.{_short(one)}'
    cfg.visualizer = {'type': 'Visualizer', **(cfg.get('visualizer') or {}), 'vis_backends': given}
    hooks = dict(cfg.get('default_hooks') or {})
    pictures = hooks.pop(HOOK, {})
    if pictures is not None:  # mmengine lets nothing but its own be None
        hooks[HOOK] = {'type': 'mmresnest.LivePictures', **pictures}
    cfg.default_hooks = hooks


def without_live(cfg: Config) -> None:
    """Has a config write nowhere but into its work folder."""
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type=LOCAL)]


def _backends(cfg: Config) -> list[dict[str, Any]]:
    """The backends of a config; mmengine's own where it names none."""
    given = (cfg.get('visualizer') or {}).get('vis_backends')
    given = given if given is not None else [dict(type=LOCAL)]
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _short(backend: Mapping[str, Any]) -> str:
    """The name of a backend's type, if it may be one of those here."""
    kind = backend.get('type')
    if isinstance(kind, type):  # as new-style configs have it
        return kind.__name__ if kind.__module__.startswith('mmengine.') else ''
    return str(kind).removeprefix('mmengine.').removeprefix('mmresnest.')


def _check_installed(packages: Sequence[str], cfg: Config) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f'--live, or the visualizer of {cfg.filename or "the config"}, asks for '
            f'{" and ".join(missing)}, which is not installed: pip install '
            f'"mmresnest[{",".join(missing)}]", or leave it out'
        )


# ---- backends ------------------------------------------------------------------------------------


@VISBACKENDS.register_module()
class TensorboardVisBackend(TheirTensorboardVisBackend):
    """mmengine's, which is seen at once: TensorBoard's own writer waits for two minutes.

    What it had not yet written would be lost with a run that is broken off.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Records the config, in lines: TensorBoard takes texts for Markdown."""
        self.experiment.add_text('config', f'```\n{config.pretty_text}\n```')

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Records numbers."""
        super().add_scalars(scalar_dict, step, file_path, **kwargs)
        self.experiment.flush()


@VISBACKENDS.register_module()
class WandbVisBackend(TheirWandbVisBackend):
    """mmengine's, over iterations, also in a run that goes on from another.

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
                'the work folder alone with WANDB_MODE=offline'
            ) from error

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Records the config."""
        self.experiment.config.update(config.to_dict(), allow_val_change=True)

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Records numbers."""
        self.iteration = scalar_dict.get('iter', self.iteration)
        self.experiment.log({'iter': self.iteration, **scalar_dict}, commit=self._commit)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Records a picture."""
        self.iteration = max(self.iteration, step)
        self.experiment.log({name: self._wandb.Image(image), 'iter': step}, commit=self._commit)

    def close(self) -> None:
        """Ends the run, as failed where an error is on its way."""
        if hasattr(self, '_wandb'):
            self._wandb.finish(exit_code=int(_failing()))


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
            with _logs_kept():
                if mlflow.get_experiment_by_name(name) is None:
                    mlflow.create_experiment(name, self._artifact_location or files)
                mlflow.set_experiment(name)
                mlflow.start_run(run_name=self._run_name or run.name, tags=self._tags)
                mlflow.log_params(self._params or {})
        except mlflow.MlflowException as error:
            raise UserError(
                f'MLflow cannot begin in {store}: {error}; look at tracking_uri of the '
                'backend and at MLFLOW_TRACKING_URI'
            ) from error

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Records the config, whole and by its settings."""
        keys = config.keys() if self._tracked_config_keys is None else self._tracked_config_keys
        settings = self._flatten({key: config[key] for key in keys})
        flow = self.experiment
        with self._told('the config'):
            flow.log_text(config.pretty_text, 'config.py')
            flow.log_params({_legal(name): value for name, value in settings.items()})

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Records a number."""
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Records numbers."""
        flow = self.experiment
        with self._told(f'the numbers of step {step}'):
            flow.log_metrics(
                {_legal(name): float(value) for name, value in scalar_dict.items()}, step
            )

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Records a picture, beside those of other steps."""
        flow = self.experiment
        with self._told(f'the picture {name}'):
            flow.log_image(image, key=_legal(name), step=step)

    def close(self) -> None:
        """Records log and scalars of this run, and ends it; as failed where an error is on its way.

        Not all of the work folder, where mmengine takes them from: the store is in it.
        """
        if not hasattr(self, '_mlflow') or self._mlflow.active_run() is None:
            return
        data = Path(self._save_dir)
        with self._told('the log'):
            for folder, place in ((data.parent, None), (data, data.name)):
                for path in sorted(folder.iterdir()):
                    if path.is_file() and path.name.endswith(tuple(self._artifact_suffix)):
                        self._mlflow.log_artifact(str(path), place)
        with self._told('the end of the run'):
            self._mlflow.end_run('FAILED' if _failing() else 'FINISHED')

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Has a run go on without a record that the store does not take."""
        try:
            yield
        except self._mlflow.MlflowException as error:
            print_log(f'MLflow did not take {what}: {error}', 'current', logging.WARNING)


def _failing() -> bool:
    """Whether an error is being handled."""
    return sys.exc_info()[0] is not None


def _legal(name: str) -> str:
    """A name that MLflow takes: another character is written as its number."""
    return re.sub(r'[^\w\-. :/]', lambda found: f'_{ord(found.group()):x}', name)


@contextmanager
def _logs_kept() -> Iterator[None]:
    """Has log files go on that are closed within: alembic does so when it makes a data base."""
    logger = MMLogger.get_current_instance()
    try:
        yield
    finally:
        for handler in logger.handlers:
            file = getattr(handler, 'baseFilename', None)
            if file is not None and handler.stream is None:
                handler.stream = open(file, 'a', encoding=handler.encoding)


# ---- pictures ------------------------------------------------------------------------------------


@HOOKS.register_module()
class LivePictures(Hook):
    """Draws what a validation predicts beside the truth, for all backends of the visualizer.

    The images are always the same, at equal steps over those that the first process validates on,
    and what is drawn are the predictions that are scored: no image is predicted on twice.

    Args:
        number: of images.
        score_thr: objects below this score are not drawn.

    Raises:
        ArgumentError: ``number`` is no whole number above 0.
    """

    priority = 'NORMAL'  # before the scores are logged, which wandb puts behind them

    def __init__(self, number: int = 4, score_thr: float = 0.3) -> None:
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ArgumentError(
                f'LivePictures: number={number!r} is not supported; legal: whole '
                'numbers from 1; for no pictures, default_hooks.live=None'
            )
        self.number, self.score_thr = number, score_thr
        self.drawn: list[np.ndarray] = []
        self.places: dict[str, int] = {}
        self.seen = 0

    def before_run(self, runner: Any) -> None:
        """Refuses a backend that would end the run at the first picture."""
        if any(type(one) is TheirMLflowVisBackend for one in _written_to(runner)):
            raise UserError(
                "LivePictures: mmengine's MLflowVisBackend takes no picture by steps; "
                "write type='mmresnest.MLflowVisBackend' in visualizer.vis_backends"
            )

    def before_val_epoch(self, runner: Any) -> None:
        """Begins anew."""
        self.seen, self.drawn = 0, []

    def after_val_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draws the images of a batch that are among the chosen."""
        from ..report.pictures import spread

        if outputs is None or not is_main_process():
            return
        dataset = runner.val_dataloader.dataset
        chosen = spread(max(len(dataset) // get_world_size(), 1), self.number)
        for place, sample in enumerate(outputs, self.seen):
            if place in chosen:
                self._draw(runner, dataset, sample)
        self.seen += len(outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Hands the pictures on."""
        for number, image in enumerate(self.drawn, 1):
            runner.visualizer.add_image(f'predictions_{number}', image, runner.iter)
        self.drawn = []

    def _draw(self, runner: Any, dataset: Any, sample: Any) -> None:
        from ..report.drawing import read_image
        from ..report.pictures import draw_results
        from .collect import places_of

        try:
            self.places = self.places or places_of(dataset)
            info = dataset.get_data_info(self.places[sample.img_path])
            with tempfile.TemporaryDirectory(prefix='mmresnest-live-') as folder:
                path = draw_results(
                    [sample],
                    [info],
                    dataset.metainfo.get('classes') or (),
                    Path(folder) / 'one.png',
                    self.score_thr,
                    title=Path(sample.img_path).name,
                )
                self.drawn.append(read_image(str(path)))
        except Exception as error:  # no training is to end for a picture of it
            runner.logger.warning(
                f'{getattr(sample, "img_path", "an image")} is not drawn for '
                f'those who watch: {type(error).__name__}: {error}'
            )


def _written_to(runner: Any) -> list[Any]:
    """The backends of a runner's visualizer, which has no public way to all of them."""
    return list(runner.visualizer._vis_backends.values())
