"""What a config says of its classes, held against the files it names, before the first step.

With ``--data`` classes are read off the folder. A config that names its data itself can contradict
them; mmdet then drops the classes that it does not find, and mmseg fails in the middle of a loss.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..data.folder import IGNORED, mask_values, read_json
from ..errors import UserError
from .config import dataset_leaves, model_of, task_of

LARGEST = 256 * 2 ** 20
"""Bytes of the largest annotation file that is read twice: COCO's own 448 MB are not."""
SAMPLED = 32
"""Images or masks of a split that are looked at."""
REMEDY = ('set metainfo=dict(classes=(...)) of the data set and num_classes of the heads to what '
          'the file has, or give --data DIR, which does both')


def check_annotations(cfg: Config, splits: tuple[str, ...]) -> None:
    """Makes sure that heads, data sets and annotation files speak of the same classes.

    Looks at ``CocoDataset`` and ``CocoPanopticDataset`` of mmdet and at the data sets of mmseg;
    others are left to themselves. Needs the packages registered and the paths checked.

    Args:
        cfg: the config.
        splits: the parts of the data that will be read.

    Raises:
        UserError: with file, field and remedy.
    """
    semantic = task_of(cfg) == 'semantic'
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for leaf in dataset_leaves(loader['dataset']) if loader else ():
            if semantic:
                _check_masks(cfg, leaf, split)
            elif _name(leaf) in ('CocoDataset', 'CocoPanopticDataset') and leaf.get('ann_file'):
                _check_table(cfg, leaf, split)


def _name(leaf: Mapping) -> str:
    type_ = leaf.get('type', '')
    return type_.rpartition('.')[2] if isinstance(type_, str) else type_.__name__


def _metainfo(cfg: Config, leaf: Mapping) -> dict[str, Any]:
    """The data set's own words, and those of its class for the rest."""
    from mmengine.registry import DATASETS, DefaultScope
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        kind = leaf['type'] if isinstance(leaf['type'], type) else DATASETS.get(leaf['type'])
    own = leaf.get('metainfo') or {}
    return {**getattr(kind, 'METAINFO', {}), **own}


def _where(cfg: Config, split: str) -> str:
    return f'{cfg.filename or "the config"}, {split}_dataloader'


# ---- COCO ----------------------------------------------------------------------------------------

def _check_table(cfg: Config, leaf: Mapping, split: str) -> None:
    path = Path(os.path.abspath(os.path.join(leaf.get('data_root') or '', leaf['ann_file'])))
    metainfo = _metainfo(cfg, leaf)
    classes = [metainfo['classes']] if isinstance(metainfo.get('classes'), str) else list(
        metainfo.get('classes') or ())
    _check_heads(cfg, len(classes), len(metainfo.get('thing_classes') or classes),
                 f'{path} is read with {len(classes)} classes ({_where(cfg, split)})')
    if '://' in leaf['ann_file'] or not path.is_file() or path.stat().st_size > LARGEST:
        return
    table = read_json(path)
    for name in ('images', 'categories', *(('annotations',) if split != 'test' else ())):
        if not isinstance(table.get(name), list) or not table[name]:
            raise UserError(f'{path}: the list {name!r} is missing or empty, so there is nothing '
                            f'to {split} with; export the file again, or name another in '
                            f'{_where(cfg, split)}.dataset.ann_file')
    panoptic = _name(leaf) == 'CocoPanopticDataset'
    if panoptic and split != 'test' and 'segments_info' not in table['annotations'][0]:
        raise UserError(f'{path}: its annotations have no "segments_info": these are boxes of '
                        'plain COCO, and this config needs panoptic annotations; name '
                        f'panoptic_{split}2017.json in {_where(cfg, split)}.dataset.ann_file, or '
                        'choose a config for boxes or masks, such as mask_rcnn_resnest50_fpn')
    there = [str(row.get('name')) for row in table['categories']]
    lost = [name for name in classes if name not in there]
    if lost:
        raise UserError(f'{path}: its categories are {len(there)} ({_some(there)}), and '
                        f'{_where(cfg, split)} asks for {len(classes)} classes, of which '
                        f'{len(lost)} are not among them ({_some(lost)}); {REMEDY}')
    prefix = (leaf.get('data_prefix') or {}).get('img') or ''
    if '://' not in f'{leaf.get("data_root")}{prefix}':
        folder = Path(os.path.abspath(os.path.join(leaf.get('data_root') or '', prefix)))
        step = max(1, len(table['images']) // SAMPLED)
        names = [str(row.get('file_name')) for row in table['images'][::step]]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise UserError(f'{path} lists {len(table["images"])} images, and {len(missing)} of '
                            f'{len(names)} looked for do not exist, such as {folder / missing[0]}; '
                            f'put them there, or correct {_where(cfg, split)}.dataset.data_prefix')


def _some(names: list[str]) -> str:
    return ', '.join(names[:5]) + (' ...' if names[5:] else '')


def _counts(node: Any, path: str) -> Iterator[tuple[str, str, int]]:
    """(place, key, number) of every number of classes in the heads below a part of the model."""
    if isinstance(node, (list, tuple)):
        for index, one in enumerate(node):
            yield from _counts(one, f'{path}[{index}]')
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ('num_classes', 'num_things_classes', 'num_stuff_classes'):
                yield f'{path}.{key}', key, value
            elif key.endswith('_head') and key not in ('rpn_head', 'semantic_head'):
                yield from _counts(value, f'{path}.{key}')
            elif key == 'semantic_head' and path == 'model':      # HTC's counts pixels of its own
                yield from _counts(value, f'{path}.{key}')


def _check_heads(cfg: Config, count: int, things: int, said: str) -> None:
    model = model_of(cfg)
    if not count or 'language_model' in model:      # classes are texts there
        return
    wanted = dict(num_classes=things, num_things_classes=things, num_stuff_classes=count - things)
    for place, key, number in _counts(model, 'model'):
        if number != wanted[key]:
            raise UserError(f'{place} is {number}, and must be {wanted[key]}: {said}; {REMEDY}')


# ---- masks ---------------------------------------------------------------------------------------

def _check_masks(cfg: Config, leaf: Mapping, split: str) -> None:
    from mmengine.registry import DATASETS, DefaultScope
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build({**leaf, 'pipeline': [], 'serialize_data': False})
    where = f'{leaf.get("data_root") or ""} ({_where(cfg, split)})'
    classes = dataset.metainfo.get('classes') or ()
    if not len(dataset):
        raise UserError(f'no images in {where}: looked in data_prefix {leaf.get("data_prefix")} '
                        f'for names ending in {dataset.img_suffix!r}; correct data_prefix or '
                        'img_suffix, or give --data DIR')
    _check_heads(cfg, len(classes), len(classes), f'{where} is read with {len(classes)} classes')
    rows = [dataset.get_data_info(index)
            for index in range(0, len(dataset), max(1, len(dataset) // SAMPLED))]
    if any(row.get('label_map') for row in rows):       # labels are changed as they are read
        return
    masks = [Path(row['seg_map_path']) for row in rows if row.get('seg_map_path')]
    lost = [mask for mask in masks if not mask.is_file()]
    if lost:
        raise UserError(f'{len(lost)} of {len(masks)} masks looked for do not exist, such as '
                        f'{lost[0]}; correct data_prefix or seg_map_suffix of {where}')
    shift = int(bool(dataset.reduce_zero_label))
    ignored = {IGNORED, dataset.ignore_index}
    for value, mask in sorted(mask_values(masks, Path(leaf.get('data_root') or '.')).items()):
        label = value - shift
        if value not in ignored and label >= len(classes) > 0:
            raise UserError(
                f'the mask {mask} holds the value {value}, '
                + (f'that is label {label} (reduce_zero_label), ' if shift else '')
                + f'and model.decode_head.num_classes is {len(classes)}: labels run from 0 to '
                f'{len(classes) - 1}, and {IGNORED} is left out; correct the mask, or {REMEDY}')
