"""A training of a second that has all that can be random: to be broken off and taken up.

A small network with batch norm and dropout learns from a data set whose samples are augmented by
Python's, numpy's and torch's generators.
"""

import random
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    """Numbers, and noise from all generators."""

    def load_data_list(self) -> list:
        return [dict(value=float(index), width=1 + index % 3, height=2) for index in range(24)]

    def prepare_data(self, idx: int) -> dict:
        noise = [random.random(), np.random.rand(), torch.rand(()).item()]
        value = self.get_data_info(idx)['value']
        return dict(inputs=torch.tensor([value / 24, *noise]), label=torch.tensor([value % 3]))


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two layers, batch norm and dropout; the wider, the longer a checkpoint takes to write."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(width, 1),
        )

    def forward(self, inputs, label, mode='tensor'):
        out = self.layers(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        if mode == 'loss':
            labels = torch.stack(label) if isinstance(label, list) else label
            return dict(loss=((out - labels) ** 2).mean())
        torch.rand(3)  # a validation that draws must not be felt by the training
        random.random()
        return out


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """The mean of what the network says."""

    def process(self, data_batch, data_samples) -> None:
        self.results.append(float(torch.stack(list(data_samples)).mean()))

    def compute_metrics(self, results) -> dict:
        return dict(mean=float(np.mean(results)))


def config(
    work_dir: Path,
    *,
    epochs: int = 0,
    iterations: int = 0,
    workers: int = 0,
    persistent: bool = False,
    accumulate: int = 1,
    interval: int = 1,
    keep: int = -1,
    launcher: str = 'none',
    **more,
) -> dict:
    """Settings of a runner: of epochs, or of iterations."""
    few = dict(num_workers=workers, persistent_workers=persistent and workers > 0)
    if workers:
        few['worker_init_fn'] = dict(type='mmresnest.init_worker')
    by_epoch = bool(epochs)
    wrapper = dict(
        type='OptimWrapper',
        accumulative_counts=accumulate,
        optimizer=dict(type='SGD', lr=0.05, momentum=0.9),
    )
    if by_epoch:
        train_cfg = dict(type='mmresnest.EpochBasedTrainLoop', max_epochs=epochs)
        sampler = dict(type='DefaultSampler', shuffle=True)
        schedule = [
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
            dict(type='MultiStepLR', by_epoch=True, end=epochs, milestones=[2], gamma=0.1),
        ]
    else:
        train_cfg = dict(type='mmresnest.IterBasedTrainLoop', max_iters=iterations, val_interval=5)
        sampler = dict(type='InfiniteSampler', shuffle=True)
        schedule = [
            dict(type='CosineAnnealingLR', by_epoch=False, end=iterations, T_max=iterations)
        ]
    settings = dict(
        model=dict(type='ToyModel'),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4, dataset=dict(type='ToyDataset'), sampler=sampler, **few
        ),
        val_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=dict(type='ToyDataset'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        val_evaluator=dict(type='ToyMetric'),
        val_cfg=dict(type='ValLoop'),
        train_cfg=train_cfg,
        optim_wrapper=wrapper,
        param_scheduler=schedule,
        default_hooks=dict(
            checkpoint=dict(
                type='mmresnest.CheckpointHook',
                by_epoch=False,
                interval=interval,
                max_keep_ckpts=keep,
            ),
            signals=dict(type='mmresnest.StopOnSignal'),
            logger=dict(type='LoggerHook', interval=1),
        ),
        custom_hooks=[dict(type='EMAHook')],
        launcher=launcher,
        randomness=dict(seed=7),
        default_scope='mmengine',
        log_level='WARNING',
    )
    settings.update(more)
    return settings


def train(settings: dict, resume: str = '') -> Runner:
    """Trains; ``resume`` is a checkpoint to go on from."""
    # mmengine keeps what belongs to a run by its name and the second in which it starts.
    settings = dict(settings, experiment_name=f'toy_{random.SystemRandom().random()}')
    if resume:
        settings = dict(settings, resume=True, load_from=resume)
    runner = Runner.from_cfg(settings)
    runner.train()
    return runner


def state(path) -> dict:
    """All of a checkpoint that two runs must agree in."""
    content = torch.load(path, weights_only=False)
    content['meta'] = {key: content['meta'][key] for key in ('epoch', 'iter', 'seed')}
    hub = content['message_hub']
    logs = {key: value.data for key, value in hub['log_scalars'].items() if 'time' not in key}
    return dict(
        weights=content['state_dict'],
        averaged=content.get('ema_state_dict'),
        optimiser=content['optimizer'],
        schedule=content['param_schedulers'],
        logs=logs,
        meta=content['meta'],
        record={
            key: value
            for key, value in content['mmresnest'].items()
            if key not in ('settings', 'scored_at', 'written')
        },
    )


def same(first, second, where: str = '') -> list[str]:
    """Where two states differ, to the bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            line
            for key in dict.fromkeys([*first, *second])
            for line in same(first.get(key), second.get(key), f'{where}.{key}')
        ]
    if (
        isinstance(first, (list, tuple))
        and isinstance(second, (list, tuple))
        and (len(first) == len(second))
    ):
        return [
            line
            for number, pair in enumerate(zip(first, second))
            for line in same(*pair, f'{where}.{number}')
        ]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        equal = first.dtype == second.dtype and torch.equal(first, second)
    elif isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        equal = np.array_equal(first, second, equal_nan=True)
    else:
        equal = type(first) is type(second) and first == second
    return [] if equal else [f'{where}: {str(first)[:200]} and {str(second)[:200]}']
