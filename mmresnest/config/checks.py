"""What a config says of its classes, held against the files it names, before the first step.

With ``--data`` classes are read off the folder. A config that names its data itself can contradict
them; mmdet then drops the classes that it does not find, and mmseg fails in the middle of a loss.
So can options, whatever the data.

Each check yields findings: a run is refused at the first that it cannot bear, and
:mod:`mmresnest.analysis.check_data` collects them all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..data.ade20k_folder import mask_values
from ..data.checks import coco
from ..data.checks.coco import have, rows_of
from ..data.checks.findings import ERROR, Finding, finding, raise_first
from ..data.checks.masks import is_coded
from ..data.checks.panoptic import (
    count_things,
    look_for_masks,
    look_over_segments,
    look_over_things,
    segments_of,
)
from ..data.checks.repair import is_mendable
from ..data.json_files import peek_json, read_json
from ..errors import close_to, nearest
from .inspect import dataset_leaves, model_of, task_of, type_of

SMALL = 2**24
"""Bytes of an annotation file that is read whole; of a larger one, the beginnings of its lists."""
SAMPLED = 128
"""Images or masks of a split that are looked at."""
LISTED = 100
"""Class names that a message writes out."""


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
    parts = list(parts_of(cfg, splits))
    for part in parts:
        borne = []
        for one in look(part):
            raise_first([one])
            borne += [one] if one.severity == ERROR else []
        if borne:
            mends = part.kind == 'coco' and any(map(is_mendable, borne))
            print_log(
                f'{"; ".join(one.said for one in borne)}. `mmresnest check-data '
                f'{cfg.filename or "CONFIG"}` says more'
                + (', and with --fix OUT writes a mended file' if mends else ''),
                'current',
                logging.WARNING,
            )
    raise_first(look_across(parts))


# ---- the parts of the data -----------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A data set of a split, in the words of the config.

    Attributes:
        cfg: the config.
        split: ``train``, ``val`` or ``test``.
        leaf: the settings of the data set.
    """

    cfg: Config
    split: str
    leaf: Mapping

    @cached_property
    def names(self) -> Names:
        """The classes it is read with."""
        return Names.of(self.cfg, self.leaf, self.split)

    @property
    def where(self) -> str:
        """How messages call it."""
        return f'{self.cfg.filename or "the config"}, {self.split}_dataloader.dataset'

    @cached_property
    def kind(self) -> str:
        """``coco``, ``panoptic`` or ``semantic``; empty for what is left to itself."""
        places = [
            self.leaf.get('data_root'),
            self.leaf.get('ann_file'),
            *(self.leaf.get('data_prefix') or {}).values(),
        ]
        backend = (self.leaf.get('backend_args') or {}).get('backend', 'local')
        if backend != 'local' or any('://' in str(place) for place in places):
            return ''
        if task_of(self.cfg) == 'semantic':
            from mmseg.datasets import BaseSegDataset

            type_ = _kind_of(self.cfg, self.leaf)
            return (
                'semantic' if isinstance(type_, type) and issubclass(type_, BaseSegDataset) else ''
            )
        known = {'CocoDataset': 'coco', 'CocoPanopticDataset': 'panoptic'}
        return known.get(type_of(self.leaf), '') if self.leaf.get('ann_file') else ''

    @property
    def path(self) -> Path:
        """The annotation file."""
        return self.join(self.leaf['ann_file'])

    def join(self, place: str) -> Path:
        """A path below the root of the data."""
        return Path(os.path.abspath(os.path.join(self.leaf.get('data_root') or '', place)))

    def folder(self, key: str) -> Path:
        """A folder of ``data_prefix``."""
        return self.join((self.leaf.get('data_prefix') or {}).get(key) or '')


def parts_of(cfg: Config, splits: Iterable[str]) -> Iterator[Part]:
    """The data sets proper of some splits."""
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for leaf in dataset_leaves(loader['dataset']) if loader else ():
            yield Part(cfg, split, leaf)


def look(part: Part) -> Iterator[Finding]:
    """What a look before a run finds, in a second or so however large the data are."""
    if part.kind == 'semantic':
        yield from look_at_labels(part)
    elif part.kind:
        if part.path.stat().st_size > SMALL:
            try:
                seen = list(_look_at(part, peek_json(part.path, SAMPLED), whole=False))
                if not any(one.stops for one in seen):
                    return
            except ValueError:  # what stands there is no list of rows
                pass
            print_log(f'reading all of {part.path} to see what is wrong with it', 'current')
        yield from _look_at(part, read_json(part.path), whole=True)


def _look_at(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    yield from look_at_table(part, table, whole)
    yield from _look_for_images(part, table)
    if part.kind == 'panoptic' and table.get('annotations'):
        yield from look_for_masks(part.path, table, part.folder('seg'), SAMPLED)


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
        known = getattr(_kind_of(cfg, leaf), 'METAINFO', None) or {}
        own = leaf.get('metainfo') or {}
        come = tuple(known.get('classes') or ())
        return cls(
            _listed(own.get('classes', come)),
            _listed(own.get('thing_classes', ())),
            Part(cfg, split, leaf).where,
            come,
        )


def _kind_of(cfg: Config, leaf: Mapping) -> Any:
    """The class of a data set, or None where there is none of that name."""
    from mmengine.registry import DATASETS, DefaultScope

    kind = leaf.get('type')
    if not isinstance(kind, str):
        return kind
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        DATASETS.switch_scope_and_registry(None) as registry,
    ):
        return registry.get(kind)


def _listed(value: Any) -> tuple[str, ...]:
    """Names out of a list, or, as mmengine has it, out of a file with one a line."""
    if not isinstance(value, str):
        return tuple(map(str, value))
    if not os.path.isfile(value):
        return (value,)  # look_at_list tells of it
    return tuple(Path(value).read_text(encoding='utf-8').splitlines())


def look_at_list(part: Part) -> Finding | None:
    """Classes given as a string that is no file."""
    own = part.leaf.get('metainfo') or {}
    for key in ('classes', 'thing_classes'):
        value = own.get(key)
        if isinstance(value, str) and not os.path.isfile(value):
            return finding(
                'class-list',
                f'metainfo.{key} of {part.where} is the string {value!r}, which would '
                f'be taken for the names {", ".join(map(repr, value[:3]))} ...',
                f'write a list, for one class with a comma: ({value!r},). It may also '
                'be a file with one name a line, and there is none of this name',
                example=value,
            )
    return None


def _some(names: Iterable[str], what: str = 'classes') -> str:
    names = list(names)
    many = what if len(names) != 1 else {'classes': 'class', 'categories': 'category'}[what]
    return f'{len(names)} {many} ({", ".join(names[:5])}{", ..." if names[5:] else ""})'


# ---- heads ---------------------------------------------------------------------------------------


def class_counts(node: Any, path: str) -> Iterator[tuple[str, str, int]]:
    """(head, key, number) of every number of classes in the heads below a part of the model."""
    if isinstance(node, (list, tuple)):
        for index, one in enumerate(node):
            yield from class_counts(one, f'{path}[{index}]')
    elif isinstance(node, dict) and 'boundary_threshold' not in node:  # STDC's tells two apart
        for key, value in node.items():
            if key in ('num_classes', 'num_things_classes', 'num_stuff_classes'):
                yield path, key, value
            elif (
                key.endswith('_head')
                and key != 'rpn_head'
                # HTC's learns from masks of its own
                and (key != 'semantic_head' or path == 'model')
            ):
                yield from class_counts(value, f'{path}.{key}')


def _look_at_heads(cfg: Config, count: int, things: int, said: str, mend: str) -> Iterator[Finding]:
    """Heads that tell another number of classes apart than the data are read with."""
    model = model_of(cfg)
    if not count or reads_texts(model):
        return
    for head, key, number in class_counts(model, 'model'):
        wanted = dict(
            num_things_classes=things,
            num_stuff_classes=count - things,
            num_classes=count if head == 'model.semantic_head' else things,
        )[key]
        if number != wanted:
            yield finding(
                'head-classes',
                f'{head}.{key} is {number}, and must be {wanted}: {said}',
                mend,
                example=f'{head}.{key}',
            )


def reads_texts(model: Mapping) -> bool:
    """Whether classes are texts to a model, so that no head counts them."""
    return bool({'language_model', 'text_encoder'} & set(model))


def _mend(names: Iterable[str]) -> str:
    """The line to write for these classes."""
    names = list(names)
    line = ', '.join(map(repr, names[:LISTED])) + (', ...' if names[LISTED:] else '')
    return (
        f'write metainfo=dict(classes=({line}{"," if len(names) == 1 else ""})) in the data '
        f'set and num_classes={len(names)} in the heads, or give --data DIR, which does both'
    )


def look_across(parts: Iterable[Part]) -> Iterator[Finding]:
    """Data sets that are read with other classes than the first of them."""
    parts = [part for part in parts if part.kind and not look_at_list(part)]
    for part in parts[1:]:
        ours, theirs = parts[0].names, part.names
        if (
            ours.classes
            and theirs.classes
            and ours.classes != theirs.classes
            and (not reads_texts(model_of(part.cfg)))
        ):
            at = next(
                (
                    at
                    for at, pair in enumerate(zip(ours.classes, theirs.classes))
                    if pair[0] != pair[1]
                ),
                min(len(ours.classes), len(theirs.classes)),
            )
            one, two = ([*map(repr, names.classes), 'nothing'][at] for names in (ours, theirs))
            yield finding(
                'split-order',
                f'{theirs.where} reads {two} as label {at}, and '
                f'{ours.where} {one}: what is learnt as the one would be '
                'scored as the other',
                'give both the same metainfo, and their files the same order of categories',
                example=f'{one}, {two}',
            )


# ---- COCO ----------------------------------------------------------------------------------------


def look_at_table(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    """What is wrong with an annotation file, and between it and the config.

    Args:
        part: the data set.
        table: what the file holds.
        whole: whether that is all of it.
    """
    path, where, panoptic = part.path, part.where, part.kind == 'panoptic'
    # Images to be submitted elsewhere come without annotations.
    needed = ('images', 'categories', *(('annotations',) if part.split != 'test' else ()))
    purpose = 'learn from' if part.split == 'train' else 'score against'
    for name in needed:
        if not rows_of(table, name):
            yield finding(
                'list-missing',
                f'{path}: the list {name!r} is missing or empty, so there is nothing to {purpose}',
                f'export the file again, or name another in ann_file of {where}',
                example=name,
            )
    images, categories = rows_of(table, 'images'), rows_of(table, 'categories')
    keys = (*coco.FIELDS['categories'], *(('isthing',) if panoptic else ()))
    yield from coco.missing_fields(path, 'images', images, coco.FIELDS['images'])
    yield from coco.missing_fields(path, 'categories', categories, keys)
    yield from coco.look_over_ids(path, 'images', images)
    yield from coco.look_over_ids(path, 'categories', categories)
    yield from coco.look_over_images(path, images)
    yield from coco.look_over_categories(path, categories)
    sound = [row for row in categories if have(row, *keys)]
    if sound:
        yield from _look_at_classes(part, sound)
    if rows_of(table, 'annotations'):
        look_at = _look_at_segments if panoptic else _look_at_objects
        yield from look_at(part, table, whole)


def _read_rows(part: Part, categories: Iterable[Mapping]) -> list[Mapping]:
    """The categories that the data set is read with; mmdet keeps them in the file's order."""
    classes = part.names.classes
    return [row for row in categories if not classes or str(row['name']) in classes]


def _look_at_classes(part: Part, categories: list[Mapping]) -> Iterator[Finding]:
    """Holds the classes of the config against the categories of the file, by name."""
    fault = look_at_list(part)
    if fault:
        yield fault
        return
    names, path = part.names, part.path
    there = [str(row['name']) for row in categories]
    twice = {name for name in names.classes if names.classes.count(name) > 1}
    if twice:
        yield finding(
            'class-twice',
            f'metainfo.classes of {names.where} names {_some(sorted(twice))} more than once',
            'name each class once',
            count=len(twice),
            example=min(twice),
        )
    yield from _look_for_names(names, path, there)
    read = _read_rows(part, categories)
    things = len(read)
    if part.kind == 'panoptic':
        things = count_things(read)
        yield from look_over_things(path, read)
    ordered = tuple(str(row['name']) for row in read)
    moved = [pair for pair in zip(ordered, names.classes) if pair[0] != pair[1]]
    if moved and len(ordered) == len(names.classes):
        yield finding(
            'class-order',
            f'metainfo.classes of {names.where} and {path} name classes in different '
            f'orders. Labels follow the file and names the config, so that '
            f'{moved[0][0]!r} would be called {moved[0][1]!r}',
            _mend(ordered),
            count=len(moved),
            example=f'{moved[0][0]}, {moved[0][1]}',
        )
    extra = [name for name in there if name not in ordered]
    if extra and ordered:
        yield finding(
            'class-extra',
            f'{path} has {_some(extra, "categories")} that {names.where} does not read',
            'nothing, if that is meant; otherwise ' + _mend(there),
            count=len(extra),
            example=extra[0],
        )
    if part.kind == 'panoptic':
        if names.things and set(ordered[:things]) != set(names.things):
            yield finding(
                'thing-classes',
                f'metainfo.thing_classes of {names.where} names {_some(names.things)}, '
                f'and by "isthing" of {path} they are {_some(ordered[:things])}',
                'name those',
            )
    yield from _look_at_heads(
        part.cfg,
        len(read),
        things,
        f'{path} has {len(there)} categories, of which {names.where} reads {len(read)}',
        _mend(ordered),
    )


def _look_for_names(names: Names, path: Path, there: list[str]) -> Iterator[Finding]:
    """Classes of the config that the file lacks."""
    lost = [name for name in names.classes if name not in there]
    if not lost:
        return
    why = ', which come with its type' if names.classes == names.known else ''
    free = [name for name in there if name not in names.classes]
    meant = {name: near[0] for name in lost if (near := close_to(name, free))}
    read = {meant.get(name, name) for name in names.classes}
    pairs = ''.join(
        f'{name!r} is {there_!r} in the file, ' for name, there_ in list(meant.items())[:5]
    )
    yield finding(
        'class-misspelt' if meant else 'class-missing',
        f'{path} has {_some(there, "categories")}, and {names.where} reads '
        f'{_some(names.classes)}{why}, of which it lacks {_some(lost)}; '
        f'{nearest(lost[0], there)}',
        f'{pairs}{_mend([name for name in there if name in read] or there)}',
        count=len(lost),
        example=lost[0],
    )


def _look_at_objects(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    rows, path = rows_of(table, 'annotations'), part.path
    if have(rows[0], 'segments_info'):
        yield finding(
            'annotation-kind',
            f'{path} has panoptic annotations ("segments_info"), and {part.where} reads boxes',
            'name an instances file in ann_file, or choose a config for '
            'panoptic segmentation, such as panoptic_fpn_resnest50_fpn',
        )
        return
    # What mmdet and pycocotools ask of every row; the flag only matters to the score.
    yield from coco.missing_fields(
        path,
        'annotations',
        rows,
        (
            'id',
            'image_id',
            'category_id',
            'bbox',
            'area',
            *(('iscrowd',) if part.split != 'train' else ()),
        ),
    )
    masks = task_of(part.cfg) == 'instance'
    bare = [
        at for at, row in enumerate(rows) if isinstance(row, dict) and not row.get('segmentation')
    ]
    if bare and masks:
        example = str(rows[bare[0]].get('id'))[:80]
        yield finding(
            'mask-missing',
            f'{path}: {len(bare)} of {len(rows)} annotations have no "segmentation", '
            f'such as {example}, and {part.cfg.filename or "the config"} learns instance '
            'masks',
            'add the masks, or choose a config that needs boxes only, such as '
            'faster_rcnn_resnest50_fpn; --fix drops the annotations',
            count=len(bare),
            example=example,
            place='annotations',
            rows=bare,
        )
    if masks and part.split == 'train':
        yield from _look_at_form(part, rows)
    if whole:
        yield from coco.look_over_ids(path, 'annotations', rows)
        yield from coco.look_over_objects(path, table, masks='needed' if masks else 'there')


def _look_at_form(part: Part, rows: list[Any]) -> Iterator[Finding]:
    """Run lengths where the pipeline reads polygons: mmdet passes over such objects in silence."""
    step = next(
        (
            at
            for at, step in enumerate(part.leaf.get('pipeline') or ())
            if step.get('with_mask') and step.get('poly2mask') is False
        ),
        None,
    )
    coded = [at for at, row in enumerate(rows) if is_coded(row)]
    if step is not None and coded:
        yield finding(
            'mask-form',
            f'{part.path}: {len(coded)} of {len(rows)} annotations have run lengths for '
            f'a mask, and step {step} of the pipeline of {part.where} reads polygons '
            'only (poly2mask=False), so that they are passed over',
            'set poly2mask=True there, or give --data DIR, which does',
            count=len(coded),
            example=str(rows[coded[0]].get('id'))[:80],
        )


def _look_at_segments(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    categories = [row for row in rows_of(table, 'categories') if have(row, 'id', 'name')]
    known = [row['id'] for row in _read_rows(part, categories)]
    yield from look_over_segments(part.path, table, known)
    if whole:
        rows = segments_of(rows_of(table, 'annotations'))
        yield from coco.look_over_ids(part.path, 'segments', rows)
        yield from coco.look_over_objects(part.path, table, place='segments', rows=rows)


def _look_for_images(part: Part, table: dict[str, Any]) -> Iterator[Finding]:
    rows = [row for row in rows_of(table, 'images') if have(row, 'file_name')]
    sample = [
        part.folder('img') / str(row['file_name']) for row in rows[:: max(1, len(rows) // SAMPLED)]
    ]
    yield from lost_images(part, [path for path in sample if not os.path.isfile(path)], len(sample))


def lost_images(part: Part, lost: list[Path], looked: int, **more: Any) -> Iterator[Finding]:
    """Images that an annotation file lists and that are not there."""
    if lost:
        yield finding(
            'image-missing',
            f'{part.path} lists images of which {len(lost)} of {looked} looked for do '
            f'not exist, such as {lost[0]}',
            f'put them there, or correct data_prefix of {part.where}',
            count=len(lost),
            example=str(lost[0]),
            **more,
        )


# ---- masks ---------------------------------------------------------------------------------------


def look_at_labels(part: Part) -> Iterator[Finding]:
    """What is wrong with a data set of label images, by a sample of them."""
    dataset = yield from look_at_settings(part)
    if dataset is None:
        return
    rows = rows_at(dataset, range(0, len(dataset), max(1, len(dataset) // SAMPLED)))
    lost = [row['img_path'] for row in rows if not os.path.isfile(row['img_path'])]
    yield from lost_files(part, 'image-missing', lost, len(rows))
    masks = yield from masks_of(part, dataset, rows)
    there = [mask for mask in masks if mask.is_file()]
    yield from lost_files(
        part, 'label-missing', [mask for mask in masks if not mask.is_file()], len(masks)
    )
    yield from look_at_values(
        part, dataset, mask_values(there, Path(part.leaf.get('data_root') or '.'))
    )


def rows_at(dataset: Any, indices: Iterable[int]) -> list[dict]:
    """What a data set of mmseg says of some of its images."""
    return [dataset.get_data_info(index) for index in indices]


def look_at_settings(part: Part) -> Any:
    """Yields what is wrong with the settings; returns the data set, or None without one."""
    from mmengine.registry import DATASETS, DefaultScope

    cfg, leaf = part.cfg, part.leaf
    fault = look_at_list(part)
    if fault:
        yield fault
        return None
    names, kind = part.names, _kind_of(cfg, leaf)
    unknown = [name for name in names.classes if names.known and name not in names.known]
    if unknown:
        yield finding(
            'class-unknown',
            f'metainfo.classes of {names.where} names {_some(unknown)} that '
            f'{kind.__name__} lacks, which has {_some(names.known)}; '
            f'{nearest(unknown[0], names.known)}',
            'for classes of your own take type=BaseSegDataset',
            count=len(unknown),
            example=unknown[0],
        )
        return None
    yield from _look_at_heads(
        cfg,
        len(names.classes),
        len(names.classes),
        f'{names.where} reads {_some(names.classes)}',
        _mend(names.classes),
    )
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            # Serializing collects all garbage first, half a second of it.
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'serialize_data': False})
    except (ValueError, OSError, AssertionError) as error:
        yield finding(
            'dataset-settings', f'{names.where} cannot be built: {error}', 'correct its settings'
        )
        return None
    except TypeError:
        return None  # a wrong argument, or a class that does not take these: told later
    if not len(dataset):
        folder = part.join(dataset.data_prefix.get('img_path') or '')
        yield finding(
            'images-none',
            f'no images in {folder} with names ending in {dataset.img_suffix!r}',
            f'correct data_prefix or img_suffix of {names.where}, or give --data DIR',
        )
        return None
    return dataset


def lost_files(part: Part, kind: str, lost: list[Any], looked: int) -> Iterator[Finding]:
    """Images or masks that are not there."""
    if lost:
        what, key = (
            ('images', 'img_suffix or ann_file')
            if kind == 'image-missing'
            else ('masks', 'seg_map_suffix')
        )
        yield finding(
            kind,
            f'{len(lost)} of {looked} {what} looked for do not exist, such as {lost[0]}',
            f'put them there, or correct data_prefix, {key} of {part.where}',
            count=len(lost),
            example=str(lost[0]),
        )


def masks_of(part: Part, dataset: Any, rows: list[dict]) -> Any:
    """Yields what is wrong with the loading of masks; returns those of the rows."""
    load = next(
        (step for step in part.leaf.get('pipeline') or () if type_of(step) == 'LoadAnnotations'),
        None,
    )
    if load is None or not all('seg_map_path' in row for row in rows):
        return []  # images to be submitted elsewhere, or a reader of the user's own
    asked = load.get('reduce_zero_label')
    if asked is not None and bool(asked) != bool(dataset.reduce_zero_label):
        yield finding(
            'label-reduce',
            f'reduce_zero_label is {dataset.reduce_zero_label} in '
            f'{part.where} and {asked} in LoadAnnotations of its '
            'pipeline',
            'leave it out of the pipeline',
        )
    return [Path(row['seg_map_path']) for row in rows]


def look_at_values(part: Part, dataset: Any, values: Mapping[int, Path]) -> Iterator[Finding]:
    """Pixels that become labels that the heads do not know.

    Args:
        part: the data set in the words of the config.
        dataset: the same, built.
        values: what pixels hold -> a mask that holds it.
    """
    head = model_of(part.cfg).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    count = head.get('num_classes', len(part.names.classes))
    ignored = head.get('ignore_index', 255)
    beyond = []
    for value, mask in sorted(values.items()):
        label = _label(value, bool(dataset.reduce_zero_label), dataset.label_map or {})
        if label != ignored and (label >= count or (value > 255 and label != 255)):
            became = f', which is read as label {label}' if label != value else ''
            beyond.append(f'the mask {mask} holds the value {value}{became}')
    if beyond:
        yield finding(
            'label-value',
            f'{beyond[0]}, and model.decode_head.num_classes is {count}: labels run from '
            f'0 to {count - 1}, and {ignored} is left out',
            f'correct the mask, or reduce_zero_label of {part.where}, or set '
            'metainfo=dict(classes=(...)) of the data set and num_classes of the heads '
            'to what the data have, or give --data DIR, which does both',
            count=len(beyond),
            example=beyond[0],
        )


def _label(value: int, reduced: bool, label_map: Mapping[int, int]) -> int:
    """The label that mmseg's LoadAnnotations makes of a mask's value."""
    label = value & 255  # it keeps eight bits
    if reduced:
        label = 255 if label in (0, 255) else label - 1
    return label_map.get(label, label)
