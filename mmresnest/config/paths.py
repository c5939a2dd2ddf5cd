"""Check that the files which a config names are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError
from .inspect import dataset_configs, task_of
from .load import name_of

_SOURCES = {
    'coco': (
        'COCO 2017, from https://cocodataset.org: train2017.zip, val2017.zip and '
        'annotations_trainval2017.zip, unpacked so that there are {root}/train2017/, '
        '{root}/val2017/ and {root}/annotations/instances_train2017.json'
    ),
    'ade': (
        'ADE20K, from http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip, '
        'unpacked so that there are {root}/images/training/ and {root}/annotations/training/'
    ),
    'cityscapes': (
        'Cityscapes, from https://www.cityscapes-dataset.com: '
        'leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, label ids turned '
        'into train ids by cityscapesscripts, so that there are '
        '{root}/leftImg8bit/train/ and {root}/gtFine/train/'
    ),
}


def check_paths(cfg: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Make sure that the data a run will read is there.

    Args:
        cfg: the config.
        splits: the parts that will be read.

    Raises:
        UserError: for the first path that is missing: which, how to get the data, and what to do
            without.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        for leaf in dataset_configs(loader['dataset']):
            for path in _paths_of(leaf):
                if not path.exists():
                    raise UserError(_describe_missing_data(cfg, leaf, path), code='data.missing')


def _paths_of(leaf: Mapping) -> Iterator[Path]:
    root = leaf.get('data_root') or ''
    prefixes = leaf.get('data_prefix') or {}
    for part in [leaf.get('ann_file') or '', *prefixes.values()]:
        if isinstance(part, str) and (part or root) and '://' not in f'{root}{part}':
            yield Path(os.path.abspath(os.path.join(root, part)))


def _describe_missing_data(cfg: Config, leaf: Mapping, path: Path) -> str:
    root = Path(os.path.abspath(leaf.get('data_root') or '.'))
    known = root.parts[-2:] if root.name.startswith('ADE') else root.parts[-1:]
    source = next(
        (
            text
            for key, text in _SOURCES.items()
            if any(part.lower().startswith(key) for part in known)
        ),
        None,
    )
    how = f'Get {source.format(root=root)}' if source else 'Put the data there'
    return (
        f'no data: {path} does not exist (looked for by {name_of(cfg)}). '
        f'{_describe_other_data(cfg, root)}{how}. If it is elsewhere on this machine, make '
        f'{root} a link to it. To use data of your own, give --data DIR, a folder in COCO or '
        'ADE20K layout; to try mmresnest without any, give --demo, which draws a small set and '
        'trains on that'
    )


def _describe_other_data(cfg: Config, root: Path) -> str:
    """Return what to say of a folder that holds data for another task than the config's."""
    tables = sorted(
        path
        for place in ('', 'annotations/')
        for split in ('train', 'val')
        for path in root.glob(f'{place}*{split}*.json')
    )
    masks = sorted(
        folder
        for folder in root.glob('annotations/*')
        if folder.is_dir() and not folder.name.startswith('panoptic')
    )
    if task_of(cfg) == 'semantic' and tables and not masks:
        return (
            f'{root} holds annotations in COCO format ({tables[0].name}), which a segmentor '
            'cannot use: choose a config of a detector, such as faster_rcnn_resnest50_fpn. '
        )
    if task_of(cfg) != 'semantic' and masks and not tables:
        return (
            f'{root} holds masks for semantic segmentation ({masks[0]}), which a detector '
            'cannot use: choose a config of a segmentor, such as deeplabv3_resnest50_ade20k. '
        )
    return ''
