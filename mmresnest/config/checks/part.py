"""A data set of a split, in the words of a config: its kind, its files, its classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..inspect import dataset_configs, task_of, type_of

SAMPLED = 128
"""Images or masks of a split that are read."""


@dataclass(frozen=True)
class Part:
    """A data set of a split, in the words of the config.

    Attributes:
        cfg: the config.
        split: ``train``, ``val`` or ``test``.
        leaf: the settings of the data set.
        in_folder: whether they come from a folder, ``--data DIR``, so that no setting of the config
            is to be corrected.
    """

    cfg: Config
    split: str
    leaf: Mapping
    in_folder: bool = False

    @cached_property
    def names(self) -> Names:
        """The classes it is read with."""
        return Names.read(self.cfg, self.leaf)

    @property
    def where(self) -> str:
        """How messages call it."""
        return f'{self.cfg.filename or "the config"}, {self.split}_dataloader.dataset'

    @property
    def type(self) -> Any:
        """The class of the data set, None where there is none of that name."""
        return find_dataset_type(self.cfg, self.leaf)

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

            known = isinstance(self.type, type) and issubclass(self.type, BaseSegDataset)
            return 'semantic' if known else ''
        kinds = {'CocoDataset': 'coco', 'CocoPanopticDataset': 'panoptic'}
        return kinds.get(type_of(self.leaf), '') if self.leaf.get('ann_file') else ''

    @property
    def path(self) -> Path:
        """The annotation file."""
        return self.join(self.leaf['ann_file'])

    def join(self, place: str) -> Path:
        """Return a path below the root of the data."""
        return Path(os.path.abspath(os.path.join(self.leaf.get('data_root') or '', place)))

    def folder(self, key: str) -> Path:
        """Return a folder of ``data_prefix``."""
        return self.join((self.leaf.get('data_prefix') or {}).get(key) or '')

    @property
    def follows_exif(self) -> bool:
        """Whether the pipeline turns images as their EXIF says, as mmcv does by default."""
        return self.find_step('LoadImage').get('color_type', 'color') in ('color', 'grayscale')

    @property
    def or_folder(self) -> str:
        """What a remedy adds that a folder would do."""
        return '' if self.in_folder else ', or give --data DIR, which does both'

    def find_step(self, start: str) -> Mapping:
        """Return the first step of the pipeline whose type begins so; empty without one."""
        steps = self.leaf.get('pipeline') or ()
        return next((step for step in steps if type_of(step).startswith(start)), {})


def list_parts(cfg: Config, splits: Iterable[str], in_folder: bool = False) -> Iterator[Part]:
    """Yield the data sets proper of some splits."""
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for leaf in dataset_configs(loader['dataset']) if loader else ():
            yield Part(cfg, split, leaf, in_folder)


@dataclass(frozen=True)
class Names:
    """The classes that a data set is read with.

    Attributes:
        classes: all of them.
        things: those that the config says can be counted, if it says so.
        known: the classes that come with the data set's type, if any.
    """

    classes: tuple[str, ...]
    things: tuple[str, ...]
    known: tuple[str, ...]

    @classmethod
    def read(cls, cfg: Config, leaf: Mapping) -> Names:
        """Read them off a data set's own words, and off its type for the rest."""
        metainfo = getattr(find_dataset_type(cfg, leaf), 'METAINFO', None) or {}
        own, known = leaf.get('metainfo') or {}, tuple(metainfo.get('classes') or ())
        things = _read_names(own.get('thing_classes', ()))
        return cls(_read_names(own.get('classes', known)), things, known)


def find_dataset_type(cfg: Config, leaf: Mapping) -> Any:
    """Return the class of a data set, or None where there is none of that name."""
    from mmengine.registry import DATASETS, DefaultScope

    kind = leaf.get('type')
    if not isinstance(kind, str):
        return kind
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        DATASETS.switch_scope_and_registry(None) as registry,
    ):
        return registry.get(kind)


def _read_names(value: Any) -> tuple[str, ...]:
    """Return names out of a list, or, as mmengine has it, out of a file with one a line."""
    if not isinstance(value, str):
        return tuple(map(str, value))
    if not os.path.isfile(value):
        return (value,)  # check_class_list tells of it
    return tuple(Path(value).read_text(encoding='utf-8').splitlines())
