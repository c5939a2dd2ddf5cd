"""What a config says of its classes, held against the files it names, before the first step.

With ``--data`` classes are read off the folder. A config that names its data itself can contradict
them; mmdet then drops the classes that it does not find, and mmseg fails in the middle of a loss.
So can options, whatever the data.
"""
from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..data.folder import (
    check_masks,
    check_rows,
    check_segments,
    count_things,
    mask_values,
    peek_json,
    read_json,
)
from ..errors import UserError, nearest
from .config import dataset_leaves, model_of, task_of, type_of

SMALL = 2 ** 24
"""Bytes of an annotation file that is read whole; of a larger one, the beginnings of its lists."""
SAMPLED = 128
"""Images or masks of a split that are looked at."""
REMEDY = ('set metainfo=dict(classes=(...)) of the data set and num_classes of the heads to what '
          'the data have, or give --data DIR, which does both')


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
    check = _check_labels if task_of(cfg) == 'semantic' else _check_table
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for leaf in dataset_leaves(loader['dataset']) if loader else ():
            places = [leaf.get('data_root'), leaf.get('ann_file'),
                      *(leaf.get('data_prefix') or {}).values()]
            backend = (leaf.get('backend_args') or {}).get('backend', 'local')
            if backend == 'local' and not any('://' in str(place) for place in places):
                check(cfg, leaf, split)


@dataclass(frozen=True)
class Names:
    """The classes that a data set is read with.

    Attributes:
        classes: all of them.
        things: those that the config says can be counted, if it says so.
        where: where the config says so.
        known: the classes that come with the data set's type, if any.
    """
    classes: tuple[str, ...]
    things: tuple[str, ...]
    where: str
    known: tuple[str, ...]

    @classmethod
    def of(cls, cfg: Config, leaf: Mapping, split: str) -> Names:
        """Reads them off a data set's own words, and off its type for the rest."""
        where = f'{cfg.filename or "the config"}, {split}_dataloader.dataset'
        known = getattr(_kind_of(cfg, leaf), 'METAINFO', None) or {}
        own = leaf.get('metainfo') or {}
        come = tuple(known.get('classes') or ())
        return cls(_listed(own.get('classes', come), f'metainfo.classes of {where}'),
                   _listed(own.get('thing_classes', ()), f'metainfo.thing_classes of {where}'),
                   where, come)


def _kind_of(cfg: Config, leaf: Mapping) -> Any:
    """The class of a data set, or None where there is none of that name."""
    from mmengine.registry import DATASETS, DefaultScope
    kind = leaf.get('type')
    if not isinstance(kind, str):
        return kind
    with (DefaultScope.overwrite_default_scope(cfg.default_scope),
          DATASETS.switch_scope_and_registry(None) as registry):
        return registry.get(kind)


def _listed(value: Any, place: str) -> tuple[str, ...]:
    """Names out of a list, or, as mmengine has it, out of a file with one a line."""
    if not isinstance(value, str):
        return tuple(map(str, value))
    if not os.path.isfile(value):
        raise UserError(f'{place} is the string {value!r}, which would be taken for the names '
                        f'{", ".join(map(repr, value[:3]))} ...; write a list, for one class with '
                        f'a comma: ({value!r},). It may also be a file with one name a line, and '
                        'there is none of this name')
    return tuple(Path(value).read_text(encoding='utf-8').splitlines())


def _some(names: Iterable[str], what: str = 'classes') -> str:
    names = list(names)
    many = what if len(names) != 1 else {'classes': 'class', 'categories': 'category'}[what]
    return f'{len(names)} {many} ({", ".join(names[:5])}{", ..." if names[5:] else ""})'


def _join(leaf: Mapping, part: str) -> Path:
    return Path(os.path.abspath(os.path.join(leaf.get('data_root') or '', part)))


# ---- heads ---------------------------------------------------------------------------------------

def _counts(node: Any, path: str) -> Iterator[tuple[str, str, int]]:
    """(head, key, number) of every number of classes in the heads below a part of the model."""
    if isinstance(node, (list, tuple)):
        for index, one in enumerate(node):
            yield from _counts(one, f'{path}[{index}]')
    elif isinstance(node, dict) and 'boundary_threshold' not in node:       # STDC's tells two apart
        for key, value in node.items():
            if key in ('num_classes', 'num_things_classes', 'num_stuff_classes'):
                yield path, key, value
            elif (key.endswith('_head') and key != 'rpn_head'
                    # HTC's learns from masks of its own
                    and (key != 'semantic_head' or path == 'model')):
                yield from _counts(value, f'{path}.{key}')


def _check_heads(cfg: Config, count: int, things: int, said: str) -> None:
    """Makes sure that heads tell as many classes apart as the data are read with."""
    model = model_of(cfg)
    if not count or {'language_model', 'text_encoder'} & set(model):    # there, classes are texts
        return
    for head, key, number in _counts(model, 'model'):
        wanted = dict(num_things_classes=things, num_stuff_classes=count - things,
                      num_classes=count if head == 'model.semantic_head' else things)[key]
        if number != wanted:
            raise UserError(f'{head}.{key} is {number}, and must be {wanted}: {said}; {REMEDY}')


# ---- COCO ----------------------------------------------------------------------------------------

def _check_table(cfg: Config, leaf: Mapping, split: str) -> None:
    if type_of(leaf) not in ('CocoDataset', 'CocoPanopticDataset') or not leaf.get('ann_file'):
        return
    names, path = Names.of(cfg, leaf, split), _join(leaf, leaf['ann_file'])
    if path.stat().st_size > SMALL:
        try:
            return _judge(cfg, leaf, split, names, path, peek_json(path, SAMPLED))
        except ValueError:              # a UserError is one; the whole file has the last word
            print_log(f'reading all of {path} to see what is wrong with it', 'current')
    _judge(cfg, leaf, split, names, path, read_json(path))


def _judge(cfg: Config, leaf: Mapping, split: str, names: Names, path: Path,
           table: dict[str, Any]) -> None:
    """Raises a UserError for the first thing that is wrong with an annotation file."""
    panoptic = type_of(leaf) == 'CocoPanopticDataset'
    # Images to be submitted elsewhere come without annotations.
    needed = ('images', 'categories', *(('annotations',) if split != 'test' else ()))
    for name in needed:
        if not isinstance(table.get(name), list) or not table[name]:
            purpose = 'learn from' if split == 'train' else 'score against'
            raise UserError(f'{path}: the list {name!r} is missing or empty, so there is nothing '
                            f'to {purpose}; export the file again, or name another in ann_file of '
                            f'{names.where}')
    check_rows(path, 'images', table['images'], ('id', 'file_name', 'width', 'height'))
    check_rows(path, 'categories', table['categories'],
               ('id', 'name', *(('isthing',) if panoptic else ())))
    _check_classes(names, path, table)
    read = [row for row in table['categories']
            if not names.classes or str(row['name']) in names.classes]
    things = count_things(path, read) if panoptic else len(read)
    counted = [str(row['name']) for row in read[:things]]
    if panoptic and names.things and set(counted) != set(names.things):
        raise UserError(f'metainfo.thing_classes of {names.where} names {_some(names.things)}, and '
                        f'by "isthing" of {path} they are {_some(counted)}; name those')
    _check_heads(cfg, len(read), things, f'{path} has {len(table["categories"])} categories, of '
                                         f'which {names.where} reads {len(read)}')
    if table.get('annotations'):
        if panoptic:
            check_segments(path, table, [row['id'] for row in read])
        else:
            _check_objects(cfg, split, names, path, table['annotations'])
    prefix = leaf.get('data_prefix') or {}
    folder = _join(leaf, prefix.get('img') or '')
    sample = table['images'][::max(1, len(table['images']) // SAMPLED)]
    lost = [str(row['file_name']) for row in sample
            if not (folder / str(row['file_name'])).is_file()]
    if lost:
        raise UserError(f'{path} lists images of which {len(lost)} of {len(sample)} looked for do '
                        f'not exist, such as {folder / lost[0]}; put them there, or correct '
                        f'data_prefix of {names.where}')
    if panoptic and table.get('annotations'):
        check_masks(path, table, _join(leaf, prefix.get('seg') or ''), SAMPLED)


def _check_classes(names: Names, path: Path, table: dict[str, Any]) -> None:
    there = [str(row['name']) for row in table['categories']]
    lost = [name for name in names.classes if name not in there]
    if lost:
        why = ', which come with its type' if names.classes == names.known else ''
        raise UserError(f'{path} has {_some(there, "categories")}, and {names.where} reads '
                        f'{_some(names.classes)}{why}, of which it lacks {_some(lost)}; '
                        f'{nearest(lost[0], there)}. To mend it, {REMEDY}')
    twice = {name for name in names.classes if names.classes.count(name) > 1}
    if twice:
        raise UserError(f'metainfo.classes of {names.where} names {_some(sorted(twice))} more than '
                        'once; name each class once')
    ordered = tuple(name for name in there if name in names.classes)
    if names.classes and ordered != names.classes:
        print_log(f'labels follow the order of {path}, whatever that of metainfo.classes: pictures '
                  'and scores by class will show wrong names unless it lists them as '
                  f'{ordered[:20]}', 'current', logging.WARNING)


def _check_objects(cfg: Config, split: str, names: Names, path: Path, rows: list[Any]) -> None:
    if isinstance(rows[0], dict) and 'segments_info' in rows[0]:
        raise UserError(f'{path} has panoptic annotations ("segments_info"), and {names.where} '
                        'reads boxes; name an instances file in ann_file, or choose a config for '
                        'panoptic segmentation, such as panoptic_fpn_resnest50_fpn')
    # What mmdet and pycocotools ask of every row; the flag only matters to the score.
    check_rows(path, 'annotations', rows, ('id', 'image_id', 'category_id', 'bbox', 'area',
                                           *(('iscrowd',) if split != 'train' else ())))
    maskless = [row['id'] for row in rows if not row.get('segmentation')]
    if maskless and task_of(cfg) == 'instance':
        raise UserError(f'{path}: {len(maskless)} of {len(rows)} annotations have no '
                        f'"segmentation", such as {maskless[0]}, and {cfg.filename or "the config"}'
                        ' learns instance masks; add the masks, or choose a config that needs '
                        'boxes only, such as faster_rcnn_resnest50_fpn')


# ---- masks ---------------------------------------------------------------------------------------

def _check_labels(cfg: Config, leaf: Mapping, split: str) -> None:
    from mmengine.registry import DATASETS, DefaultScope
    from mmseg.datasets import BaseSegDataset
    kind = _kind_of(cfg, leaf)
    if not isinstance(kind, type) or not issubclass(kind, BaseSegDataset):
        return
    names = Names.of(cfg, leaf, split)
    unknown = [name for name in names.classes if names.known and name not in names.known]
    if unknown:
        raise UserError(f'metainfo.classes of {names.where} names {_some(unknown)} that '
                        f'{kind.__name__} lacks, which has {_some(names.known)}; '
                        f'{nearest(unknown[0], names.known)}. For classes of your own take '
                        'type=BaseSegDataset')
    _check_heads(cfg, len(names.classes), len(names.classes),
                 f'{names.where} reads {_some(names.classes)}')
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            # Serializing collects all garbage first, half a second of it.
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'serialize_data': False})
    except ValueError as error:
        raise UserError(f'{names.where} cannot be built, correct its settings: '
                        f'{error}') from error
    except TypeError:
        return              # a wrong argument, or a class that does not take these: told later
    if not len(dataset):
        raise UserError(f'no images in {_join(leaf, dataset.data_prefix.get("img_path") or "")} '
                        f'with names ending in {dataset.img_suffix!r}; correct data_prefix or '
                        f'img_suffix of {names.where}, or give --data DIR')
    rows = [dataset.get_data_info(index)
            for index in range(0, len(dataset), max(1, len(dataset) // SAMPLED))]
    lost = [row['img_path'] for row in rows if not os.path.isfile(row['img_path'])]
    if lost:
        raise UserError(f'{len(lost)} of {len(rows)} images looked for do not exist, such as '
                        f'{lost[0]}; correct data_prefix, img_suffix or ann_file of {names.where}')
    _check_values(cfg, leaf, names, dataset, rows)


def _check_values(cfg: Config, leaf: Mapping, names: Names, dataset: Any, rows: list[dict]) -> None:
    """Makes sure that pixels become labels that the heads know, by a sample of the masks."""
    load = next((step for step in leaf.get('pipeline') or () if type_of(step) == 'LoadAnnotations'),
                None)
    if load is None or not all('seg_map_path' in row for row in rows):
        return              # images to be submitted elsewhere, or a reader of the user's own
    asked = load.get('reduce_zero_label')
    if asked is not None and bool(asked) != bool(dataset.reduce_zero_label):
        raise UserError(f'reduce_zero_label is {dataset.reduce_zero_label} in {names.where} and '
                        f'{asked} in LoadAnnotations of its pipeline; leave it out of the pipeline')
    masks = [Path(row['seg_map_path']) for row in rows]
    lost = [mask for mask in masks if not mask.is_file()]
    if lost:
        raise UserError(f'{len(lost)} of {len(masks)} masks looked for do not exist, such as '
                        f'{lost[0]}; put them there, or correct data_prefix or seg_map_suffix of '
                        f'{names.where}')
    head = model_of(cfg).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    count, ignored = head.get('num_classes', len(names.classes)), head.get('ignore_index', 255)
    root = Path(leaf.get('data_root') or '.')
    for value, mask in sorted(mask_values(masks, root).items()):
        label = _label(value, bool(dataset.reduce_zero_label), dataset.label_map or {})
        wrapped = value > 255 and label != 255
        if label != ignored and (label >= count or wrapped):
            became = f', which is read as label {label}' if label != value else ''
            raise UserError(f'the mask {mask} holds the value {value}{became}, and '
                            f'model.decode_head.num_classes is {count}: labels run from 0 to '
                            f'{count - 1}, and {ignored} is left out; correct the mask, or '
                            f'reduce_zero_label of {names.where}, or {REMEDY}')


def _label(value: int, reduced: bool, label_map: Mapping[int, int]) -> int:
    """The label that mmseg's LoadAnnotations makes of a mask's value."""
    label = value & 255                     # it keeps eight bits
    if reduced:
        label = 255 if label in (0, 255) else label - 1
    return label_map.get(label, label)
