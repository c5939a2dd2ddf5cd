"""The scores of a model on its config's data, whatever runs the model."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from ..errors import UserError
from ..utils import run_logs
from .base import Asked
from .inputs import read_image
from .results import Detections, Segmentation


def score(asked: Asked, config: Config, progress: bool = True) -> dict[str, float]:
    """Scores predictions on the test split, which is the validation split of most configs.

    Args:
        asked: what predicts; objects of all scores, as thresholds lower recall.
        config: in the form that the model was trained in.
        progress: show how far it is.

    Raises:
        UserError: the data are not there.
    """
    from mmengine.evaluator import Evaluator
    from mmengine.registry import DATASETS, DefaultScope

    from ..engine.prepare import prepare
    from ..engine.runner import building
    from ..utils.console import progress as shown

    with tempfile.TemporaryDirectory() as folder:
        cfg = prepare(config, ('test',), work_dir=folder)
        with DefaultScope.overwrite_default_scope(cfg.default_scope), building(cfg):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
            evaluator = Evaluator(cfg.test_evaluator)
            evaluator.dataset_meta = dataset.metainfo
            with shown(len(dataset) if progress else None) as said:
                for number in range(len(dataset)):
                    item = dataset[number]
                    sample = _answered(item['data_samples'], asked)
                    evaluator.process(
                        [sample], dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
                    )
                    said.step()
            return {name: float(value) for name, value in evaluator.evaluate(len(dataset)).items()}


def check_scored(config: Config) -> None:
    """Makes sure, before anything dear, that there is something to score on.

    Raises:
        UserError: data or evaluator are missing.
    """
    from ..config.paths import check_paths

    if config.get('test_dataloader') is None or config.get('test_evaluator') is None:
        raise UserError(
            f'{config.filename or "the config"} has no test_dataloader or '
            'test_evaluator, by which int8 is judged; add them'
        )
    check_paths(config, ('test',))


def _answered(sample: Any, asked: Asked) -> Any:
    """A data sample with what was predicted, as mmdet and mmseg leave it."""
    from mmengine.structures import InstanceData, PixelData

    result = asked(read_image(sample.img_path))
    if isinstance(result, Segmentation):
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(result.labels)[None])
        return sample
    assert isinstance(result, Detections)
    found = InstanceData(
        bboxes=torch.from_numpy(np.ascontiguousarray(result.boxes)),
        scores=torch.from_numpy(np.ascontiguousarray(result.scores)),
        labels=torch.from_numpy(np.ascontiguousarray(result.labels)),
    )
    if result.masks is not None:
        found.masks = torch.from_numpy(result.masks)
    sample.pred_instances = found
    return sample


def main_score(scores: dict[str, float]) -> float:
    """The score that stands for the others, of 1; of masks before that of their boxes.

    Raises:
        UserError: there is none that is known.
    """
    name = run_logs.main_score(one for one in scores if 'bbox' not in one) or run_logs.main_score(
        scores
    )
    if name is None:
        raise UserError(
            f'the evaluator gives {", ".join(scores) or "no score"}, and none of '
            f'{", ".join(run_logs.MAIN_SCORES)}, by which int8 is judged; use one of '
            'their evaluators'
        )
    return scores[name] / (100 if name.endswith('mIoU') else 1)
