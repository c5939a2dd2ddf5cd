"""What a checkpoint predicts on the validation split: kept in the work folder, or made now.

It is kept in ``report/`` below the work folder, so that a page is made again in seconds, until
checkpoint, config or data change.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..config.defaults import disable_loggers
from ..config.hardware import WHOLE
from ..config.inspect import dataset_configs, model_of
from ..errors import UserError
from ..evaluation.collector import PredictionCollector
from ..evaluation.predictions import Results
from ..evaluation.predictions_file import load_results, save_results
from ..utils.files import sha256_of
from . import checkpoints
from .class_order import follow_data
from .prepare import prepare
from .quiet_start import hide_start
from .runner import build_runner, explain_build_errors, explain_run_errors

FOLDER = 'report'
"""Below a work folder: what its checkpoints predicted."""


def load_or_predict(
    folder: Path, cfg: Config, source: Path, path: Path
) -> tuple[Results, dict[str, Any]]:
    """Return what a checkpoint predicts on the validation split: kept from before, or made now."""
    stamp = stamp_of(folder, cfg, source, path)
    kept = predictions_file(folder, path, stamp)
    before = load_results(kept)
    if before is not None and before[1].get('stamp') == stamp:
        print_log(f'predictions: those kept in {kept}', 'current')
        return before
    results, about = _predict_split(cfg, path)
    about['stamp'] = stamp
    keep_predictions(kept, results, about)
    # Reload, so that a fresh and a cached report show the same rounded numbers.
    return load_results(kept) or (results, about)


def keep_predictions(kept: Path, results: Results, about: Mapping[str, Any]) -> None:
    """Keep predictions for the next report; without room for them there is only a message."""
    try:
        save_results(kept, results, about)
    except OSError as error:
        print_log(
            f'the predictions cannot be kept in {kept} ({error.strerror}): the next report '
            'makes them again',
            'current',
        )


def predictions_file(folder: Path, path: Path, stamp: Mapping[str, Any]) -> Path:
    """Return where the predictions of a checkpoint are kept."""
    return folder / FOLDER / f'{path.stem}_{stamp["sha256"][:8]}.json.gz'


def stamp_of(folder: Path, cfg: Config, source: Path, path: Path) -> dict[str, Any]:
    """Return what predictions depend on: they are valid while it stays the same."""
    return dict(
        sha256=sha256_of(path), data=_validation_files(folder, cfg), config=sha256_of(source)
    )


def _validation_files(folder: Path, cfg: Config) -> list[list[Any]]:
    """Return the files of the validation data with size and time, to see when they change."""
    loader = cfg.get('val_dataloader')
    if loader is None:
        raise UserError(
            f'the config of {folder} has no val_dataloader: there is nothing to report '
            'of; set it in the config',
            code='config.no-split',
        )
    found = []
    for leaf in dataset_configs(loader['dataset']):
        root, prefixes = leaf.get('data_root') or '', leaf.get('data_prefix') or {}
        for part in [leaf.get('ann_file') or '', *prefixes.values()]:
            place = Path(os.path.abspath(os.path.join(root, part)))
            if not isinstance(part, str) or '://' in f'{root}{part}':
                continue
            if not place.exists():
                raise UserError(
                    f'no data: {place} does not exist, which the config of {folder} '
                    'validates on; put it back, or run the report in the folder where '
                    'the training was started',
                    code='data.missing',
                )
            state = place.stat()
            found.append([str(place), state.st_size * place.is_file(), state.st_mtime_ns])
    return found


def _predict_split(cfg: Config, path: Path) -> tuple[Results, dict[str, Any]]:
    content = checkpoints.read_checkpoint(path)
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = ConfigDict(type='TestLoop')
    disable_loggers(cfg)
    cfg.model = model_of(cfg)  # of a test with --tta in the same folder: without its views
    options = {'load_from': None, 'resume': False, **WHOLE}
    # The runner writes a log and the config, which are not those of the training.
    with tempfile.TemporaryDirectory(
        prefix='mmresnest-report-', ignore_cleanup_errors=True
    ) as scratch:
        cfg = prepare(cfg, splits=('test',), work_dir=scratch, cfg_options=options)
        cfg.load_from = str(path)
        with explain_build_errors(cfg):
            with hide_start(ends=False) as shown:
                runner = build_runner(cfg)
            shown.holds = False
            checkpoints.check_fit(path, content, runner.model)
            loop = runner.test_loop
            follow_data(path, content, runner.model, loop.dataloader.dataset.metainfo)
            collector = collect_from(loop, alone=True)
        about = _checkpoint_meta(content)
        del content  # the runner reads it once more
        with explain_run_errors(cfg):
            runner.test()
    return collected_results(collector), about


def collect_from(
    loop: Any, alone: bool = False, due: Callable[[], bool] = lambda: True
) -> PredictionCollector:
    """Have a validation or test loop collect what is predicted.

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
            'report is by; set metainfo.classes of the data set in the config',
            code='data.no-categories',
        )
    collector = PredictionCollector(dataset, metrics, due)
    collector.dataset_meta = dataset.metainfo
    loop.evaluator.metrics = [collector] if alone else [*metrics, collector]
    return collector


def collected_results(collector: PredictionCollector) -> Results:
    """Return what was collected.

    Raises:
        UserError: nothing was.
    """
    if collector.found is None:
        raise UserError(
            'no image was predicted on: the validation split is empty; look at it with '
            '`mmresnest check-data CONFIG --split val`',
            code='data.no-images',
        )
    return collector.found


def _checkpoint_meta(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of itself, as plain text."""
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    return {name: str(meta[name]) for name in ('iter', 'epoch', 'seed', 'time') if name in meta}
