"""Tell whether data and settings of a run are those of its checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader

from ..utils.files import sha256_of
from .image_guard import unwrap_datasets

MAX_IMAGES = 100_000
"""Files of a data set whose size and time are compared at most, at equal steps over it."""


def fingerprint_data(dataset: Any) -> dict[str, str]:
    """Return what tells a data set from others: its length, and the hash of its annotation file.

    Where it has none, the hash of names and sizes of all files in its folders.
    """
    found: dict[str, str] = {}
    for number, leaf in enumerate(unwrap_datasets(dataset), 1):
        found[f'samples of data set {number}'] = str(len(leaf))
        file = getattr(leaf, 'ann_file', None) or ''
        if os.path.isfile(file):
            found[file] = sha256_of(file)
            continue
        for folder in (getattr(leaf, 'data_prefix', None) or {}).values():
            if isinstance(folder, str) and os.path.isdir(folder):
                found[folder] = _hash_listing(folder)
    return found


def list_images(dataset: Any) -> list[str]:
    """Return the paths of images and masks of all data sets, of large ones a sample."""
    found: list[str] = []
    for leaf in unwrap_datasets(dataset):
        if hasattr(leaf, 'get_data_info'):
            step = -(-len(leaf) // MAX_IMAGES) or 1
            infos = [leaf.get_data_info(index) for index in range(0, len(leaf), step)]
            keys = ('img_path', 'seg_map_path')
            found += [str(info[key]) for info in infos for key in keys if info.get(key)]
    return found


def hash_sizes(paths: Iterable[str]) -> str:
    """Return the sha256 of the sizes of files, in their order; -1 for a file that is not there."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f'{os.path.getsize(path) if os.path.exists(path) else -1}\n'.encode())
    return digest.hexdigest()


def list_newer(paths: Iterable[str], since: float) -> list[str]:
    """Return the files that were written after a time, in seconds since the epoch."""
    return [path for path in paths if os.path.exists(path) and os.path.getmtime(path) > since]


def _hash_listing(folder: str) -> str:
    """Return the sha256 of names and sizes of the files below a folder."""
    digest = hashlib.sha256()
    for where, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(where, name)
            size = os.path.getsize(path) if os.path.exists(path) else -1
            digest.update(f'{os.path.relpath(path, folder)}\0{size}\n'.encode())
    return digest.hexdigest()


def images_per_step(fingerprint: Mapping[str, Any]) -> int:
    """Return how many images a step of all processes takes."""
    return (fingerprint['batch_size'] or 1) * fingerprint['world_size']


def batch_size_of(loader: DataLoader) -> int | None:
    """Return the images of a step on one process, where all steps have the same."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)


SETTINGS = (
    'model',
    'train_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'custom_hooks',
)
"""Settings of a config that a training's result depends on."""
IGNORED_SETTINGS = (
    'ann_file',
    'data_root',
    'data_prefix',
    'backend_args',
    'num_workers',
    'prefetch_factor',
    'persistent_workers',
    'pin_memory',
    'max_epochs',
    'max_iters',
    'accept_changes',
    'init_cfg',
    'checkpoint',
    'pretrained',
    'worker_init_fn',
)
"""Names below them that it does not depend on, or that are compared by what they lead to."""


def flatten_settings(cfg: Mapping[str, Any], names: Sequence[str] = SETTINGS) -> dict[str, str]:
    """Return settings by their dotted names, as texts."""
    found: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping):
            pairs = [(key, node[key]) for key in node if key not in IGNORED_SETTINGS]
        elif isinstance(node, (list, tuple)) and any(
            isinstance(one, (Mapping, list, tuple)) for one in node
        ):
            pairs = list(enumerate(node))
        else:
            found[path] = repr(node)
            return
        for key, one in pairs:
            walk(one, f'{path}.{key}')

    for name in names:
        if cfg.get(name) is not None:
            walk(cfg[name], name)
    return found


def list_differences(
    before: Mapping[str, str], now: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return (name, text before, text now) of each setting that has changed."""
    return [
        (key, before.get(key, 'not set'), now.get(key, 'not set'))
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
