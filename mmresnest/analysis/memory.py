"""Estimate hours and memory of a training from what is counted on a CPU.

    hours  = images * 3 * F / (GPUs * rate * 3600)
    memory = batch * S + 4 * P + 8 * T

F: floating-point operations of the forward pass in training for one image, a multiply-add being
two; backward passes take about twice as many. rate: operations per second that one GPU sustains.
S: bytes that the forward pass saves for the backward pass for one image, in float32.
P, T: parameters, and those that are trained, which have a gradient and a momentum too.

F and S are counted while the model's own loss runs on one image with random weights, on the CPU:
convolutions and matrix products by torch's counter, saved tensors by autograd's own hooks, every
storage once, without weights. Not in the sum: what an allocator wastes, workspaces of libraries,
gradients of activations, and the copies of weights of DistributedDataParallel's buckets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..config.hardware import configure_norms
from ..config.inspect import import_packages, model_of, task_of
from ..config.load import name_of
from ..config.retarget import drop_weights
from ..engine.prepare import configure
from ..engine.runner import explain_build_errors
from ..errors import UserError

#: height and width of COCO's images as they are trained on, padded to multiples of 32
DETECTOR_SHAPE = (800, 1344)
#: objects in the image; COCO has 7.7 on average (arXiv:1405.0312, section 5)
OBJECTS = 7
#: images of an epoch of COCO as detectron2 counts: its 1x is 90000 steps of 16 images for 12 epochs
COCO_EPOCH = 120_000


@dataclass(frozen=True)
class MemoryEstimate:
    """Operations and bytes of one image in training; F, S, P and T are those of the module.

    Attributes:
        shape: height and width.
        flops: F, of the forward pass.
        saved: S, bytes.
        params: P.
        trainable: T.
    """

    shape: tuple[int, int]
    flops: int
    saved: int
    params: int
    trainable: int

    def hours(self, images: int, gpus: int, rate: float) -> float:
        """Return the hours of a training on so many images, at a rate in operations per second."""
        return images * 3 * self.flops / (gpus * rate) / 3600

    def memory(self, batch: int) -> int:
        """Return the bytes in each process with so many images a step; SGD with momentum."""
        return batch * self.saved + 4 * self.params + 8 * self.trainable


def estimate_step(
    config: str | os.PathLike | Config,
    *,
    arch: str | None = None,
    shape: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> MemoryEstimate:
    """Count operations and bytes of one image in training.

    Frozen parts stay frozen: nothing is saved for them. Heads that look at regions look at as many
    as the config samples, mask heads at the most objects that it does.

    Args:
        config: a config of a detector or segmentor, its file, or the name of one of ours.
        arch: put this network into it, as ``train --arch``.
        shape: height and width; by default 800 x 1344 for detectors and the crop for segmentors.
        options: settings to override, dotted names to values.

    Raises:
        UserError: the config cannot be used, or a segmentor has no crop and ``shape`` is not given.
    """
    from mmengine.registry import MODELS, DefaultScope
    from torch.utils.flop_counter import FlopCounterMode

    cfg = configure(config, arch=arch, cfg_options=options)
    drop_weights(cfg)
    import_packages(cfg)
    configure_norms(cfg, distributed=False)
    task = task_of(cfg)
    height, width = shape or _default_shape(cfg, task)
    with explain_build_errors(cfg), DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
    model.train()
    # Norms of maps pooled to one pixel have no statistics of one image.
    batch = 2 if task == 'semantic' else 1
    images = torch.randn(batch, 3, height, width)
    samples = [make_sample(task, height, width, _count_objects(cfg, task)) for _ in range(batch)]
    counted: dict[int, int] = {}
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        FlopCounterMode(display=False) as counter,
        count_saved_bytes(model, counted),
    ):
        model(images, samples, mode='loss')
    params = list(model.parameters())
    return MemoryEstimate(
        (height, width),
        counter.get_total_flops() // batch,
        sum(counted.values()) // batch,
        sum(one.numel() for one in params),
        sum(one.numel() for one in params if one.requires_grad),
    )


def count_training_images(cfg: Config) -> int:
    """Return the images of a whole training, at the batch size its learning rate is meant for."""
    loop = cfg.train_cfg
    if loop.get('max_iters'):
        return loop.max_iters * cfg.auto_scale_lr.base_batch_size
    return loop.max_epochs * COCO_EPOCH


def _default_shape(cfg: Config, task: str) -> tuple[int, int]:
    if task != 'semantic':
        return DETECTOR_SHAPE
    crop = cfg.get('crop_size')
    if crop is None:
        raise UserError(f'{name_of(cfg)} has no crop_size; give --shape', code='option.needed')
    return tuple(crop)


@contextmanager
def count_saved_bytes(model: nn.Module, counted: dict[int, int]) -> Iterator[None]:
    """Count the bytes that autograd saves, by storage, without keeping them."""
    from torch.multiprocessing.reductions import StorageWeakRef

    own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    references: dict[int, Any] = {}

    def pack(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        # A freed address may be reused by another storage, which then counts too.
        if key in own or (key in references and not references[key].expired()):
            return
        references[key] = StorageWeakRef(storage)
        counted[len(counted)] = storage.nbytes()

    def unpack(nothing: None) -> Tensor:
        raise RuntimeError('nothing was saved: only the forward pass can be run')

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def _count_objects(cfg: Config, task: str) -> int:
    """Return the objects in the image: with masks, as many as the sampler takes at most."""
    if task not in ('instance', 'panoptic') or 'roi_head' not in model_of(cfg):
        return OBJECTS
    rcnn = model_of(cfg)['train_cfg'].rcnn
    sampler = (rcnn[0] if isinstance(rcnn, (list, tuple)) else rcnn).sampler
    return int(sampler.num * sampler.pos_fraction)


def make_sample(task: str, height: int, width: int, objects: int) -> Any:
    """Return the ground truth of an image: objects, or a class for each pixel, or both."""
    from mmengine.structures import InstanceData, PixelData

    shape = dict(
        img_shape=(height, width),
        ori_shape=(height, width),
        pad_shape=(height, width),
        batch_input_shape=(height, width),
        scale_factor=(1.0, 1.0),
    )
    labels = PixelData(data=torch.randint(0, 2, (1, height, width)))
    if task == 'semantic':
        from mmseg.structures import SegDataSample

        return SegDataSample(gt_sem_seg=labels, metainfo=shape)
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    corner = torch.rand(objects, 2) * torch.tensor([width / 2, height / 2])
    size = torch.rand(objects, 2) * torch.tensor([width / 2, height / 2]) * 0.9 + 16
    truth = InstanceData(
        bboxes=torch.cat([corner, corner + size], 1), labels=torch.randint(0, 2, (objects,))
    )
    if task != 'detection':
        truth.masks = BitmapMasks(np.ones((objects, height, width), np.uint8), height, width)
    sample = DetDataSample(
        gt_instances=truth,
        ignored_instances=InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        ),
        metainfo=shape,
    )
    if task == 'panoptic':
        sample.gt_sem_seg = PixelData(sem_seg=labels.data)
    return sample
