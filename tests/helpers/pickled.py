"""Pickles that call what they name, and a small model whose runner loads files."""

import zipfile
from pathlib import Path

import torch
from mmengine.model import BaseModule
from mmengine.runner import Runner

REBUILD = torch._utils._rebuild_tensor_v2


class Toy(torch.nn.Module):
    """A model that mmengine can train in a moment."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        """The loss where one is asked for."""
        return {'loss': self.layer(x).square().mean()} if mode == 'loss' else self.layer(x)

    def train_step(self, data, optim_wrapper):
        """One step of the optimiser."""
        loss = self(torch.stack(data), 'loss')
        optim_wrapper.update_params(loss['loss'])
        return loss


def runner(work_dir: Path, epochs: int, **settings: object) -> Runner:
    return Runner(
        Toy(),
        str(work_dir),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        train_dataloader=dict(
            dataset=[torch.ones(2)] * 4,
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}{epochs}',
        log_level='ERROR',
        **settings,
    )


class Call:
    """Pickles as the call of a function, as an attacker would have it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Written(Call):
    """Pickles as a call with a state to set on the result."""

    def __init__(self, function, arguments, state):
        super().__init__(function, *arguments)
        self.state = state

    def __reduce__(self):
        return (*self.call, self.state)


def pretrained(path: str) -> None:
    """As a config with a ``Pretrained`` backbone does."""
    module = BaseModule(init_cfg=dict(type='Pretrained', checkpoint=path))
    module.init_weights()


def archive_of(content: bytes, path: Path, **records: bytes) -> Path:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', content)
        archive.writestr('archive/version', b'3')
        for key, data in records.items():
            archive.writestr(f'archive/data/{key.lstrip("_")}', data)
    return path


def laughs(levels: int, first: object = ()) -> object:
    value: object = [first]
    for _ in range(levels):
        value = [value, value]
    return value


def deep(levels: int) -> bytes:
    return b'\x80\x02' + b']' * levels + b'a' * (levels - 1) + b'.'


def hashed(levels: int) -> bytes:
    """A dictionary whose key is a tuple of itself twice, many times."""
    return b'\x80\x02})' + b'q\0h\0\x86' * levels + b'Ns.'
