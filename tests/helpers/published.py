"""Reference features of the authors' implementations, and the synthetic weights behind them.

``data/features.json.gz`` says in ``about`` how weights and image are drawn.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

CASES: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / 'data' / 'features.json.gz').read_bytes())
)['cases']

#: the arguments that give a case's output stride
STRIDES: dict[int, dict[str, Any]] = {
    32: {},
    16: dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=True),
    8: dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
}


def draw(key: str, shape: list[int]) -> Tensor:
    """The synthetic value of one tensor of a checkpoint."""
    if key.endswith('num_batches_tracked'):
        return torch.tensor(0)
    random = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    value = random.standard_normal(shape)
    if value.ndim >= 2:
        value = value * np.sqrt(1 / np.prod(shape[1:]))
    elif key.endswith('running_var'):
        value = 1 + 0.25 * np.tanh(value)
    elif key.endswith('.weight'):
        value = 1 + 0.1 * value
    else:
        value = 0.1 * value
    return torch.from_numpy(value.astype(np.float32))


def checkpoint(name: str) -> dict[str, Tensor]:
    """A case's whole checkpoint, classifier included, with its publisher's keys."""
    return {key: draw(key, shape) for key, shape in CASES[name]['state_dict'].items()}


def image(shape: Sequence[int] = (2, 3, 97, 129)) -> Tensor:
    """An image, of odd sizes unless told, where the forms of the pools differ."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


def distance(output: Tensor, reference: dict[str, Any]) -> float:
    """The largest difference of the samples, in standard deviations of the stage."""
    assert list(output.shape) == reference['shape']
    flat = output.detach().contiguous().flatten()
    places = [int(index * (flat.numel() - 1) // 15) for index in range(16)]
    samples = np.array(reference['samples'])
    return float(np.abs(flat[places].numpy() - samples).max() / reference['std'])
