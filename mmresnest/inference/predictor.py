"""Predict with a trained model: ``mmresnest.Predictor``.

    predictor = mmresnest.Predictor('faster_rcnn_resnest50_fpn', 'epoch_12.pth')
    found = predictor('street.jpg')
    found.boxes, found.class_names, found.draw('street.jpg')

Images are put through the config's test pipeline without its annotations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from ..config.inspect import dataset_configs, task_of, type_of
from ..config.load import name_of
from ..config.regions import limit_regions
from ..data.base import DataFolder
from ..data.request import DataRequest
from ..engine import checkpoints, tta
from ..engine.runner import explain_build_errors
from ..errors import UserError
from ..registry import HOOKS
from .base import BasePredictor, check_score
from .checkpoint_config import (
    choose_class_names,
    configure_for_checkpoint,
    count_things,
    find_test_dataloader,
)
from .images import BadImage
from .results import Detections, PanopticSegmentation, Result, Segment, Segmentation

_READER_SETTINGS = dict(imdecode_backend='cv2', color_type='color')
"""Settings of a loading step with which it reads what :mod:`.images` reads."""


class Predictor(BasePredictor):
    """A detector or segmentor with its weights, ready for images.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        checkpoint: weights of the config's model. Its classes are those it says it was trained
            with, whatever the config says.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        score_thr: objects with a lower score are left out.
        data: the folder of the training's ``--data``; only needed where the checkpoint does not
            name its classes.
        demo: the checkpoint is of ``train(..., demo=True)``.
        options: settings to override, dotted names to values.
        fused: fold norms into convolutions on a CPU, see :func:`mmresnest.deploy.fuse`.
        runtime: ``onnxruntime`` or ``openvino`` computes backbone and neck, from a file that is
            exported once for these weights and kept; on a CPU.
        max_regions: how many regions the second stage of a detector looks at, at most; None for as
            many as the config says.

    Attributes:
        config: in the form that the checkpoint was trained in.
        model: of mmdet or mmseg, in evaluation.
        device: that it is on.
        fused: whether its norms are folded.

    Raises:
        UserError: if config, checkpoint or device cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Config,
        checkpoint: str | os.PathLike,
        device: str = 'auto',
        score_thr: float = 0.3,
        *,
        data: DataFolder | DataRequest | str | os.PathLike | None = None,
        demo: bool = False,
        options: Mapping[str, Any] | None = None,
        fused: bool = True,
        runtime: str | None = None,
        max_regions: int | None = None,
    ) -> None:
        self.device = resolve_device(device)
        check_score(score_thr)
        self.score_thr = score_thr
        exported = None
        if runtime is not None:
            exported = HOOKS.build(dict(type='mmresnest.RunExported', runtime=runtime))
        content = checkpoints.read_checkpoint(checkpoint)
        cfg = configure_for_checkpoint(config, content, data, demo, options)
        limit_regions(cfg, max_regions)
        self.task = task_of(cfg)
        self.names = choose_class_names(cfg, content, data is not None)
        self.num_things = count_things(cfg, len(self.names))
        self._scope = cfg.default_scope
        with self._default_scope(), explain_build_errors(cfg):
            self._pipeline, self._float = _build_pipeline(cfg, _test_pipeline(cfg))
            model = _build_model(cfg, checkpoint, content)
        model.to(self.device)
        if exported is not None:
            exported.replace(model)
        self.fused = fused and self.device == 'cpu'
        if self.fused:
            from ..deploy import fuse

            model = fuse(model, inplace=True)
        self.model, self.config = model, cfg
        self._merger: Any = None  # of several views of an image

    def use_tta(self) -> Predictor:
        """Have several views of each image predicted on from now on, and their results merged.

        By the config's ``tta_model`` and ``tta_pipeline``, or else by views of ours: see
        :mod:`mmresnest.engine.tta`. A model with masks then gives boxes only.

        Returns:
            the predictor.

        Raises:
            UserError: the views of this model cannot be merged.
        """
        from mmengine.registry import MODELS

        tta.check_mergeable(self.config)
        recipe, views = tta.find_recipe(self.config, _test_pipeline(self.config))
        with self._default_scope(), explain_build_errors(self.config):
            self._pipeline, self._float = _build_pipeline(self.config, views)
            self._merger = MODELS.build(ConfigDict(**recipe, module=self.model))
        if self.task == 'instance':
            for name in tta.MASK_PARTS:
                if hasattr(self.model.roi_head, name):
                    setattr(self.model.roi_head, name, None)
            self.task = 'detection'
            tta.note_masks()
        return self

    def _default_scope(self) -> AbstractContextManager:
        from mmengine.registry import DefaultScope

        return DefaultScope.overwrite_default_scope(self._scope)

    def prepare(self, image: np.ndarray) -> tuple[tuple[int, ...], dict]:
        """Put an image through the test pipeline; return its size behind it, and the sample."""
        import cv2

        size = image.shape[:2]
        loaded = np.ascontiguousarray(image[:, :, ::-1])  # the pipelines' order is BGR
        if self._float:
            loaded = loaded.astype(np.float32)
        results = dict(
            img=loaded,
            img_id=0,
            img_path='',
            img_shape=size,
            ori_shape=size,
            height=size[0],
            width=size[1],
            seg_fields=[],
            reduce_zero_label=False,
        )
        try:
            with self._default_scope():
                sample = self._pipeline(results)
        except cv2.error as error:
            raise BadImage(
                'the image',
                f'it is {size[1]} x {size[0]} pixels, which the test '
                'pipeline cannot bring to its size',
                code='image.too-narrow',
            ) from error
        views = sample['inputs'] if isinstance(sample['inputs'], list) else [sample['inputs']]
        return tuple(side for view in views for side in view.shape), sample

    def predict_batch(self, samples: list[dict]) -> list[Result]:
        """Return the results of samples of one size."""
        import torch

        batch = {name: [sample[name] for sample in samples] for name in ('inputs', 'data_samples')}
        with self._default_scope(), torch.inference_mode():
            if self._merger is None:
                found = self.model.test_step(batch)
            else:  # which takes a list of images for each view
                views = {name: [*map(list, zip(*values))] for name, values in batch.items()}
                found = self._merger.test_step(views)
        return [self._to_result(sample) for sample in found]

    def choose_classes(self, scores: np.ndarray) -> np.ndarray:
        """Return the class of each pixel, as mmseg's ``postprocess_result`` does."""
        if len(scores) > 1:
            return scores.argmax(0)
        return (scores[0] > self.model.decode_head.threshold).astype(np.int64)

    def _to_result(self, sample: Any) -> Result:
        """Convert a data sample of mmdet or mmseg into a result."""
        size = tuple(sample.metainfo['ori_shape'][:2])
        if self.task == 'semantic':
            labels = sample.pred_sem_seg.data.reshape(size).cpu().numpy()
            scores = sample.seg_logits.data.cpu().numpy() if self.keeps_scores else None
            return Segmentation(labels.astype(np.int64), self.names, size, scores)
        if self.task == 'panoptic':
            return self._to_panoptic(sample.pred_panoptic_seg, size)
        found = sample.pred_instances
        found = found[found.scores >= self.score_thr]  # before masks at full size are copied
        boxes = found.bboxes.tensor if hasattr(found.bboxes, 'tensor') else found.bboxes
        masks = None
        if 'masks' in found:
            masks = np.asarray(found.masks.cpu(), bool).reshape(-1, *size)
        return Detections(
            boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
            found.scores.cpu().numpy().astype(np.float32),
            found.labels.cpu().numpy().astype(np.int64),
            self.names,
            masks,
            size,
        ).filter_by_score(self.score_thr)

    def _to_panoptic(self, found: Any, size: tuple[int, int]) -> PanopticSegmentation:
        """Convert mmdet's map of class + 1000 * object; a class out of range means no segment."""
        panoptic = found.data if 'data' in found else found.sem_seg
        coded = panoptic.squeeze(0).cpu().numpy().astype(np.int64)
        # mmdet calls the 1000 INSTANCE_OFFSET, in another module in each version.
        codes = [int(code) for code in np.unique(coded) if code % 1000 < len(self.names)]
        ids = np.zeros(size, np.int64)
        segments = []
        for number, code in enumerate(codes, 1):
            where = coded == code
            ids[where] = number
            segments.append(
                Segment(number, code % 1000, code % 1000 < self.num_things, int(where.sum()))
            )
        return PanopticSegmentation(ids, tuple(segments), self.names, size)


def resolve_device(name: str) -> str:
    """Return the device that a name stands for.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == 'auto':
        return 'cuda:0' if gpus else 'cpu'
    if name == 'cpu':
        return name
    number = re.fullmatch(r'cuda(?::(\d+))?', name)
    if number is None:
        raise UserError(
            f'unknown device {name!r}; legal: auto, cpu, cuda, or cuda:1 and so on',
            code='option.unknown',
        )
    if int(number.group(1) or 0) >= gpus:
        raise UserError(
            f'device {name}: torch sees {gpus or "no"} GPU{"s" * (gpus != 1)} here; '
            'give cpu, or auto for whatever there is (`mmresnest doctor` says what '
            'torch was built for)',
            code='device.missing',
        )
    return f'cuda:{number.group(1) or 0}'


def _test_pipeline(cfg: Config) -> list[Any]:
    """Return the steps of a config's test pipeline."""
    return list(dataset_configs(find_test_dataloader(cfg)['dataset'])[0].get('pipeline') or ())


def _build_pipeline(cfg: Config, steps: list[Any]) -> tuple[Any, bool]:
    """Build a test pipeline behind its loading steps; tell whether it takes floats."""
    from mmengine.dataset import Compose

    where = f'the test pipeline of {name_of(cfg)}'
    loads = [step for step in steps if type_of(step).startswith('LoadImage')]
    if not loads or not type_of(steps[-1]).startswith(('Pack', 'TestTimeAug')):
        raise UserError(
            f'{where} must begin with LoadImageFromFile and end in PackDetInputs or '
            f'PackSegInputs, and has {", ".join(map(type_of, steps)) or "no step"}',
            code='config.pipeline',
        )
    load = loads[0]
    others = [
        f'{key}={load[key]!r}'
        for key, ours in _READER_SETTINGS.items()
        if load.get(key, ours) != ours
    ]
    if type_of(load) != 'LoadImageFromFile' or others:
        raise UserError(
            f'{where} loads images by {type_of(load)}({", ".join(others)}), and '
            'predict gives pixels of three colors, as LoadImageFromFile does; score '
            'such images with `mmresnest test`',
            code='config.pipeline',
        )
    return Compose(tta.drop_loads(steps)), bool(load.get('to_float32'))


def _build_model(cfg: Config, checkpoint: str | os.PathLike, content: Mapping[str, Any]) -> Any:
    """Build the model with its weights, in evaluation mode."""
    import torch
    from mmengine.registry import MODELS
    from mmengine.runner import load_checkpoint

    from ..models.trunk import to_memory_format

    model = MODELS.build(cfg.model)
    checkpoints.check_fit(checkpoint, content, model)
    load_checkpoint(model, str(Path(checkpoint).expanduser()), map_location='cpu', logger='current')
    if getattr(getattr(model, 'backbone', None), 'channels_last', False):
        to_memory_format(model, torch.channels_last)
    return model.eval()
