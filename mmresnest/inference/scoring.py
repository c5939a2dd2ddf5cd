"""Score a predictor, whatever runs its model, on the data of its config."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from ..config.inspect import dataset_configs, is_scored
from ..config.load import name_of
from ..config.options import ExportedTestOptions, build_options
from ..errors import UserError
from ..utils import run_logs
from .base import BasePredictor
from .images import read_image
from .results import Detections, Segmentation


def score_predictor(
    predictor: BasePredictor, config: Config, progress: bool = True
) -> dict[str, float]:
    """Score predictions on the test split, or where it has no annotations on that of validation.

    Args:
        predictor: with a score threshold of 0, since a higher one lowers recall.
        config: in the form that the model was trained in.
        progress: show a progress bar.

    Returns:
        name of a score -> value.

    Raises:
        UserError: the data are missing.
    """
    from mmengine.evaluator import Evaluator
    from mmengine.registry import DATASETS, DefaultScope

    from ..engine.class_order import match_classes
    from ..engine.prepare import prepare
    from ..engine.runner import explain_build_errors
    from ..utils.console import show_progress

    if not is_scored(config, 'test'):
        config = copy.deepcopy(config)
        config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator
    with tempfile.TemporaryDirectory() as folder:
        cfg = prepare(config, splits=('test',), work_dir=folder)
        with DefaultScope.overwrite_default_scope(cfg.default_scope), explain_build_errors(cfg):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
            evaluator = Evaluator(cfg.test_evaluator)
            evaluator.dataset_meta = dataset.metainfo
            order = match_classes('the model', predictor.names, dataset.metainfo['classes'])
            with show_progress(len(dataset), shown=progress) as bar:
                for number in range(len(dataset)):
                    item = dataset[number]
                    sample = _predict_sample(item['data_samples'], predictor, order)
                    evaluator.process(
                        [sample], dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
                    )
                    bar.step()
            return {name: float(value) for name, value in evaluator.evaluate(len(dataset)).items()}


def score_exported(
    model: str | os.PathLike,
    config: str | os.PathLike | Config,
    options: ExportedTestOptions | None = None,
    /,
    **given: Any,
) -> dict[str, float]:
    """Score a file of ``mmresnest export`` on the test split of a config.

    Args:
        model: an ``.onnx`` or ``.xml``.
        config: a config, its file or name, or the work folder of a training.
        options: what is asked for, see :class:`~mmresnest.config.options.ExportedTestOptions`.
        **given: options by keyword.

    Returns:
        name of a score -> value.

    Raises:
        UserError: file, config or data cannot be used, or the file is for another task.
    """
    from ..config.inspect import import_packages, task_of
    from ..engine.prepare import configure
    from ..engine.trained_run import find_config
    from .exported import ExportedModel

    options = build_options(ExportedTestOptions, options, given)
    if not isinstance(config, Config) and Path(config).expanduser().is_dir():
        config = find_config(Path(config).expanduser())
    predictor = ExportedModel(model, score_thr=0.0)
    cfg = configure(config, options)
    if task_of(cfg) != predictor.task:
        raise UserError(
            f'{model} holds a model for {predictor.task}, and {name_of(cfg)} is for '
            f'{task_of(cfg)}; give the config, or the work folder, that it was exported from',
            code='option.conflict',
        )
    import_packages(cfg)
    return score_predictor(predictor, cfg, options.progress)


def check_scorable(config: Config, names: Sequence[str] = ()) -> None:
    """Refuse a config without data or evaluator, before anything that takes long.

    Args:
        config: in the form that the model was trained in.
        names: the classes of the model.

    Raises:
        UserError: data or evaluator are missing, or the data have other classes.
    """
    from ..config.checks.part import Names
    from ..config.paths import check_paths
    from ..engine.class_order import match_classes

    if config.get('test_dataloader') is None or config.get('test_evaluator') is None:
        raise UserError(
            f'{config.filename or "the config"} has no test_dataloader or '
            'test_evaluator, which int8 is scored with; add them',
            code='config.incomplete',
        )
    check_paths(config, ('test',))
    leaf = dataset_configs(config.test_dataloader.dataset)[0]
    match_classes('the checkpoint', names, Names.read(config, leaf).classes)


def _predict_sample(sample: Any, predictor: BasePredictor, order: list[int] | None) -> Any:
    """Put a prediction into a data sample, as mmdet and mmseg do.

    Args:
        sample: of the data set.
        predictor: that predicts on its image.
        order: the label in the data of each label of the predictor; None where they are the same.
    """
    from mmengine.structures import InstanceData, PixelData

    result = predictor(read_image(sample.img_path))
    assert isinstance(result, (Detections, Segmentation))
    labels = result.labels if order is None else np.asarray(order)[result.labels]
    if isinstance(result, Segmentation):
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        return sample
    found = InstanceData(
        bboxes=torch.from_numpy(np.ascontiguousarray(result.boxes)),
        scores=torch.from_numpy(np.ascontiguousarray(result.scores)),
        labels=torch.from_numpy(np.ascontiguousarray(labels)),
    )
    if result.masks is not None:
        found.masks = torch.from_numpy(result.masks)
    sample.pred_instances = found
    return sample


def find_main_score(scores: dict[str, float]) -> tuple[str, float]:
    """Return name and value of the main score, as a fraction of 1; masks go before their boxes.

    Raises:
        UserError: no score is known.
    """
    name = run_logs.main_score(one for one in scores if 'bbox' not in one) or run_logs.main_score(
        scores
    )
    if name is None:
        raise UserError(
            f'the evaluator gives {", ".join(scores) or "no score"}, and none of '
            f'{", ".join(run_logs.MAIN_SCORES)}, which int8 is judged by; use one of '
            'their evaluators',
            code='config.unknown-score',
        )
    return name.rsplit('/')[-1], scores[name] / (100 if name.endswith('mIoU') else 1)
