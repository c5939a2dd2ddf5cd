"""A trained model that is asked about images: ``mmresnest.Predictor``.

    predictor = mmresnest.Predictor('faster_rcnn_resnest50_fpn', 'epoch_12.pth')
    found = predictor('street.jpg')
    found.boxes, found.named, found.draw('street.jpg')

Images are put through the config's test pipeline without its annotations.
"""

from __future__ import annotations

import copy
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from ..config.checks import Names, class_counts, reads_texts
from ..config.hardware import plain_norms
from ..config.inspect import dataset_leaves, model_of, register, task_of, type_of
from ..config.load import load_config, merge
from ..config.retarget import set_classes, use_data, without_semantic_branch
from ..engine import checkpoints
from ..engine.runner import building
from ..errors import UserError
from .base import Asked
from .inputs import BadImage
from .results import Detections, PanopticSegmentation, Result, Segment, Segmentation

#: what a loading step may say without loading anything else than we do
_LIKE_OURS = dict(imdecode_backend='cv2', color_type='color')


class Predictor(Asked):
    """A detector or segmentor with its weights, ready for images.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        checkpoint: weights of the config's model. Its classes are those that it says it was trained
            with; number and names in the config are overruled.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        score_thr: objects that are less certain are left out.
        data: the folder of the training's ``--data``; only needed where the checkpoint does not
            name its classes.
        demo: the checkpoint is of ``train(..., demo=True)``.
        options: settings to override, dotted names to values.
        fused: fold norms into convolutions on a CPU, see :func:`mmresnest.deploy.fuse`.

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
        data: str | os.PathLike | None = None,
        demo: bool = False,
        options: Mapping[str, Any] | None = None,
        fused: bool = True,
    ) -> None:
        self.device = _device(device)
        if not 0 <= score_thr <= 1:
            raise UserError(f'score_thr {score_thr}: scores are from 0 to 1')
        self.score_thr = score_thr
        content = checkpoints.read(checkpoint)
        cfg = _configure(config, content, data, demo, options)
        self.task = task_of(cfg)
        self.names = _classes(cfg, content, data is not None)
        self.things = _things(cfg, len(self.names))
        self._scope = cfg.default_scope
        with self._scoped(), building(cfg):
            self._pipeline, self._float = _pipeline(cfg)
            model = _build(cfg, checkpoint, content)
        model.to(self.device)
        self.fused = fused and self.device == 'cpu'
        if self.fused:
            from ..deploy import fuse

            model = fuse(model, inplace=True)
        self.model, self.config = model, cfg

    def _scoped(self) -> Any:
        from mmengine.registry import DefaultScope

        return DefaultScope.overwrite_default_scope(self._scope)

    def prepare(self, image: np.ndarray) -> tuple[tuple[int, ...], dict]:
        """The size that the pipeline brings an image to, and what it makes of it."""
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
            with self._scoped():
                sample = self._pipeline(results)
        except cv2.error as error:
            raise BadImage(
                'the image',
                f'it is {size[1]} x {size[0]} pixels, which the test '
                'pipeline cannot bring to its size',
            ) from error
        return tuple(sample['inputs'].shape), sample

    def answer(self, samples: list[dict]) -> list[Result]:
        """The results of what the pipeline made of images of one size."""
        import torch

        with self._scoped(), torch.inference_mode():
            found = self.model.test_step(
                {name: [sample[name] for sample in samples] for name in ('inputs', 'data_samples')}
            )
        return [self._result(sample) for sample in found]

    def _result(self, sample: Any) -> Result:
        """A prediction in our own terms."""
        size = tuple(sample.metainfo['ori_shape'][:2])
        if self.task == 'semantic':
            labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
            return Segmentation(labels.astype(np.int64), self.names, size)
        if self.task == 'panoptic':
            return self._segments(sample.pred_panoptic_seg, size)
        found = sample.pred_instances
        found = found[found.scores >= self.score_thr]  # first: masks at full size are large
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
        ).above(self.score_thr)

    def _segments(self, found: Any, size: tuple[int, int]) -> PanopticSegmentation:
        """From mmdet's map of class + 1000 * object, with a class too high where it is silent."""
        held = found.data if 'data' in found else found.sem_seg
        coded = held.squeeze(0).cpu().numpy().astype(np.int64)
        # The 1000 is INSTANCE_OFFSET, which the versions of mmdet keep in different modules.
        codes = [int(code) for code in np.unique(coded) if code % 1000 < len(self.names)]
        ids = np.zeros(size, np.int64)
        segments = []
        for number, code in enumerate(codes, 1):
            where = coded == code
            ids[where] = number
            segments.append(
                Segment(number, code % 1000, code % 1000 < self.things, int(where.sum()))
            )
        return PanopticSegmentation(ids, tuple(segments), self.names, size)


# ---- the device ----------------------------------------------------------------------------------


def _device(name: str) -> str:
    """The device that is meant, if it is there."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == 'auto':
        return 'cuda:0' if there else 'cpu'
    if name == 'cpu':
        return name
    number = re.fullmatch(r'cuda(?::(\d+))?', name)
    if number is None:
        raise UserError(f'unknown device {name!r}; legal: auto, cpu, cuda, or cuda:1 and so on')
    if int(number.group(1) or 0) >= there:
        raise UserError(
            f'device {name}: torch sees {there or "no"} GPU{"s" * (there != 1)} here; '
            'give cpu, or auto for whatever there is (`mmresnest doctor` says what '
            'torch was built for)'
        )
    return f'cuda:{number.group(1) or 0}'


# ---- config and classes --------------------------------------------------------------------------


def _configure(
    config: str | os.PathLike | Config,
    content: Mapping[str, Any],
    data: str | os.PathLike | None,
    demo: bool,
    options: Mapping[str, Any] | None,
) -> Config:
    """The config in the form that the checkpoint was trained in."""
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    if data is not None:
        use_data(cfg, data)
    _fit_heads(cfg, content)
    if demo:
        from ..config.demo import shrink

        shrink(cfg)
    merge(cfg, options)
    model = model_of(cfg)
    if reads_texts(model):
        raise UserError(
            f'the model of {cfg.filename or "the config"} is asked for classes in '
            'words, which predict does not put; use the demo of mmdet for it'
        )
    cfg.model = model
    plain_norms(cfg.model)  # a model in evaluation has nothing to synchronise
    register(cfg)
    return cfg


def noted_classes(content: Mapping[str, Any], key: str = 'classes') -> tuple[str, ...]:
    """The classes that a checkpoint says it was trained with.

    mmengine notes them as ``dataset_meta``; what mmdet 2 and mmseg 0 wrote has ``CLASSES``.

    Args:
        content: of the checkpoint.
        key: ``thing_classes`` for the countable ones of a panoptic model.
    """
    meta = content.get('meta') or {}
    noted = meta.get('dataset_meta') or {}
    names = noted.get(key) or noted.get(key.upper()) or meta.get(key.upper()) or ()
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def _fit_heads(cfg: Config, content: Mapping[str, Any]) -> None:
    """Has the heads tell the checkpoint's classes apart, as ``--data`` did in training."""
    model, task = model_of(cfg), task_of(cfg)
    names = noted_classes(content)
    things = len(noted_classes(content, 'thing_classes') if task == 'panoptic' else names)
    heads = {number for _, key, number in class_counts(model, 'model') if key == 'num_classes'}
    if not things or things in heads:
        return  # a config as it is may have one channel for two classes: it is left alone
    if task in ('detection', 'instance') and not any(
        key.startswith('roi_head.semantic_head.') for key in content['state_dict']
    ):
        without_semantic_branch(cfg)
    set_classes(model, things, stuff=len(names) - things)


def _classes(cfg: Config, content: Mapping[str, Any], with_data: bool) -> tuple[str, ...]:
    """The names: the checkpoint's, or else the config's."""
    names = noted_classes(content)
    own = Names.of(cfg, dataset_leaves(loader_of(cfg)['dataset'])[0], 'test').classes
    if not names:
        print_log(
            'the checkpoint does not name its classes: '
            + (f"the config's are taken ({_some(own)})" if own else 'they are given by number'),
            'current',
            logging.WARNING,
        )
    elif with_data and own != names:
        print_log(
            f'the checkpoint was trained on {_some(names)}, and the data have {_some(own)}: '
            'the former are told',
            'current',
            logging.WARNING,
        )
    return names or own


def _some(names: tuple[str, ...]) -> str:
    return ', '.join(names[:5]) + (', ...' if names[5:] else '')


def _things(cfg: Config, classes: int) -> int:
    """How many classes are countable."""
    return (cfg.model.get('panoptic_fusion_head') or {}).get('num_things_classes', classes)


def loader_of(cfg: Config) -> Mapping:
    """The test dataloader of a config, or else that of validation.

    Raises:
        UserError: it has neither.
    """
    for split in ('test', 'val'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            return loader
    raise UserError(
        f'{cfg.filename or "the config"} has no test_dataloader, whose pipeline says '
        'how an image is prepared; give a whole config'
    )


# ---- pipeline and model --------------------------------------------------------------------------


def _pipeline(cfg: Config) -> tuple[Any, bool]:
    """The test pipeline behind loading, and whether it takes fractions."""
    from mmengine.dataset import Compose

    steps = list(dataset_leaves(loader_of(cfg)['dataset'])[0].get('pipeline') or ())
    where = f'the test pipeline of {cfg.filename or "the config"}'
    loads = [step for step in steps if type_of(step).startswith('LoadImage')]
    if not loads or not type_of(steps[-1]).startswith('Pack'):
        raise UserError(
            f'{where} must begin with LoadImageFromFile and end in PackDetInputs or '
            f'PackSegInputs, and has {", ".join(map(type_of, steps)) or "no step"}'
        )
    load = loads[0]
    others = [
        f'{key}={load[key]!r}' for key, ours in _LIKE_OURS.items() if load.get(key, ours) != ours
    ]
    if type_of(load) != 'LoadImageFromFile' or others:
        raise UserError(
            f'{where} loads images by {type_of(load)}({", ".join(others)}), and '
            'predict gives pixels of three colours, as LoadImageFromFile does; score '
            'such images with `mmresnest test`'
        )
    kept = [step for step in steps if not type_of(step).startswith('Load')]
    return Compose(kept), bool(load.get('to_float32'))


def _build(cfg: Config, checkpoint: str | os.PathLike, content: Mapping[str, Any]) -> Any:
    """The model with its weights, in evaluation."""
    import torch
    from mmengine.registry import MODELS
    from mmengine.runner import load_checkpoint

    from ..models.trunk import lay_out

    model = MODELS.build(cfg.model)
    checkpoints.check_fit(checkpoint, content, model)
    load_checkpoint(model, str(Path(checkpoint).expanduser()), map_location='cpu', logger='current')
    if getattr(getattr(model, 'backbone', None), 'channels_last', False):
        lay_out(model, torch.channels_last)
    return model.eval()
