"""Runs of milliseconds: real images from files, a linear model, mmengine's runners."""

import json
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner
from mmengine.structures import BaseDataElement, PixelData
from torch import nn

from mmresnest.config.defaults import CHECKED
from mmresnest.engine.image_guard import add_checks


@TRANSFORMS.register_module()
class LoadToyMask(BaseTransform):
    """As mmseg's LoadAnnotations does it."""

    with_seg = True

    def transform(self, results):
        results['gt_seg_map'] = cv2.imread(results['seg_map_path'], cv2.IMREAD_UNCHANGED).squeeze()
        return results


@TRANSFORMS.register_module()
class PackToy(BaseTransform):
    def __init__(self, fault=None):
        self.fault = fault

    def transform(self, results):
        if self.fault and results['img_path'].endswith(self.fault):
            raise ZeroDivisionError('a mistake in an augmentation')
        pixels = cv2.resize(results['img'], (4, 4)).astype(np.float32)
        sample = BaseDataElement(
            metainfo=dict(img_path=results['img_path'], ori_shape=results['ori_shape'])
        )
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, 4, 4, dtype=torch.long))
        return dict(inputs=torch.from_numpy(pixels).flatten() / 255, data_samples=sample)


@DATASETS.register_module()
class Toys(BaseDataset):
    """Rows of a list; lines of its file, if there is one."""

    def __init__(self, rows=(), **more):
        self.rows = [dict(row) for row in rows]
        super().__init__(**more)

    def load_data_list(self):
        return self.rows


@METRICS.register_module()
class AlwaysOne(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(score=1.0)


@MODELS.register_module()
class TroubledModel(BaseModel):
    """A model whose trouble can be ordered.

    Its loss and gradients are what the test asks for at an iteration (of calls, from 1).

    Args:
        losses: call -> value, or ``'gradient'`` for a finite loss whose gradient is not.
        great: a factor of the loss.
        normed: with a batch norm, which sees what is not finite when the loss is not.
    """

    def __init__(self, losses=None, normed=False, great=1.0, scores=(0.9,), classes=(0, 1)):
        super().__init__()
        self.linear, self.other = nn.Linear(48, 3), nn.Linear(3, 1)
        self.norm = nn.BatchNorm1d(3) if normed else nn.Identity()
        self.faults = {int(key): value for key, value in (losses or {}).items()}
        self.scores, self.classes = scores, classes
        self.calls, self.great = 0, great

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            return [self.predicted() for _ in inputs]
        x = torch.stack(inputs)
        self.calls += 1
        fault = self.faults.get(self.calls)
        if isinstance(fault, float) and not np.isfinite(fault):
            x = x * fault
        x = self.norm(self.linear(x))
        loss = self.other(x).square().mean() * self.great
        if fault == 'gradient':
            loss = loss + (self.linear.bias * 0).abs().sqrt().sum()  # 0 * inf
        elif isinstance(fault, float) and np.isfinite(fault):
            loss = loss * 0 + fault
        return dict(loss_toy=loss, loss_other=loss.detach() * 0 + 0.25, acc=torch.tensor(np.nan))

    def predicted(self):
        found = BaseDataElement()
        if self.scores is not None:
            found.pred_instances = BaseDataElement(scores=torch.tensor(self.scores))
        if self.classes is not None:
            found.pred_sem_seg = PixelData(data=torch.tensor(self.classes).reshape(1, 1, -1))
        return found


def pictures(folder, count=8, size=(32, 24)):
    """Rows of JPEG files of noise, with their sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    width, height = size
    for number in range(count):
        path = folder / f'{number}.jpg'
        cv2.imwrite(str(path), rng.integers(0, 255, (height, width, 3), np.uint8))
        rows.append(dict(img_path=str(path), width=width, height=height))
    return rows


def pipeline(**pack):
    return [dict(type='LoadImageFromFile'), dict(type='PackToy', **pack)]


def settings(
    work_dir,
    rows,
    hooks=(),
    *,
    loop=None,
    model=None,
    flexible=False,
    workers=0,
    batch_size=2,
    wrapper=None,
    steps=None,
    validated=False,
    **more,
):
    """What a runner is made from."""
    found = dict(
        work_dir=str(work_dir),
        model={'type': 'TroubledModel', **(model or {})},
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='Toys', rows=rows, pipeline=steps or pipeline()),
        ),
        train_cfg=loop or dict(by_epoch=True, max_epochs=1),
        optim_wrapper={'optimizer': dict(type='SGD', lr=0.01), **(wrapper or {})},
        custom_hooks=list(hooks),
        log_level='INFO',
        default_scope='mmengine',
        experiment_name=f'toy_{uuid4()}',  # loggers are kept by name
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
    )
    if validated:
        found.update(
            val_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type='Toys', rows=rows, pipeline=pipeline()),
            ),
            val_cfg={},
            val_evaluator=dict(type='AlwaysOne'),
        )
    found.update(more)
    if any('SkipBadImages' in hook['type'] for hook in hooks if isinstance(hook, dict)):
        loader = found['train_dataloader']
        if isinstance(loader, dict):
            loader['dataset'] = add_checks(loader['dataset'])
    if any('CheckNumbers' in hook['type'] for hook in hooks if isinstance(hook, dict)):
        kind = found['optim_wrapper'].get('type', 'OptimWrapper')
        found['optim_wrapper']['type'] = CHECKED.get(kind, kind)
    return ConfigDict(found), (FlexibleRunner if flexible else Runner)


def build(*args, **more):
    """A runner, seeded."""
    made, kind = settings(*args, **more)
    given = dict(made, randomness=dict(seed=0)) if kind is Runner else made
    return kind(
        **{
            key: value.to_dict() if hasattr(value, 'to_dict') else value
            for key, value in given.items()
        }
    )


def log(runner):
    """All lines of a runner's log."""
    return '\n'.join(path.read_text() for path in sorted(Path(runner.work_dir).glob('*/*.log')))


def record(work_dir):
    """The rows of the list of bad images."""
    path = work_dir / 'bad_images.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
