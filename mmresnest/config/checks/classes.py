"""The classes of a config, held against its heads, its files and its other splits, by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from mmengine.config import Config

from ...data.checks.findings import Finding, make_finding
from ...data.checks.panoptic import check_things_first, count_things
from ...errors import close_to, nearest
from ...utils.text import format_count
from ..inspect import model_of
from .part import Part

LISTED = 100
"""Class names that a message writes out."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a config beside the categories of its annotation file.

    Attributes:
        part: the data set.
        categories: those of the file that have an id and a name.
    """

    part: Part
    categories: Sequence[Mapping]

    @cached_property
    def listed(self) -> list[str]:
        """The names in the file."""
        return [str(row['name']) for row in self.categories]

    @cached_property
    def rows(self) -> list[Mapping]:
        """The categories that are read; mmdet keeps them in the file's order."""
        return select_categories(self.part, self.categories)

    @cached_property
    def read(self) -> tuple[str, ...]:
        """The names of the categories that are read."""
        return tuple(str(row['name']) for row in self.rows)

    @property
    def things(self) -> int:
        """How many of them can be counted."""
        return count_things(self.rows) if self.part.kind == 'panoptic' else len(self.rows)


def select_categories(part: Part, categories: Iterable[Mapping]) -> list[Mapping]:
    """Return the categories that a data set is read with."""
    classes = part.names.classes
    return [row for row in categories if not classes or str(row['name']) in classes]


def check_repeated_names(table: ClassTable) -> Iterator[Finding]:
    """Yield classes that the config names twice."""
    classes = table.part.names.classes
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        yield make_finding(
            'class-twice',
            where=table.part.where,
            names=format_count(twice),
            count=len(twice),
            example=twice[0],
        )


def check_missing_names(table: ClassTable) -> Iterator[Finding]:
    """Yield classes of the config that the file lacks."""
    names, there, part = table.part.names, table.listed, table.part
    lost = [name for name in names.classes if name not in there]
    if not lost:
        return
    origin = ', which come with its type' if names.classes == names.known else ''
    free = [name for name in there if name not in names.classes]
    meant = {name: near[0] for name in lost if (near := close_to(name, free))}
    read = {meant.get(name, name) for name in names.classes}
    pairs = ''.join(
        f'{ours!r} is {theirs!r} in the file, ' for ours, theirs in [*meant.items()][:5]
    )
    yield make_finding(
        'class-misspelt' if meant else 'class-missing',
        f'{part.path} has {format_count(there, "categories")}, and {part.where} reads '
        f'{format_count(names.classes)}{origin}, of which it lacks {format_count(lost)}; '
        f'{nearest(lost[0], there)}',
        f'{pairs}{write_classes([name for name in there if name in read] or there, part)}',
        count=len(lost),
        example=lost[0],
    )


def check_thing_order(table: ClassTable) -> Iterator[Finding]:
    """Yield stuff that stands before a thing."""
    if table.part.kind == 'panoptic':
        yield from check_things_first(table.part.path, table.rows)


def check_order(table: ClassTable) -> Iterator[Finding]:
    """Yield classes that stand in another order in the file."""
    classes = table.part.names.classes
    moved = [pair for pair in zip(table.read, classes) if pair[0] != pair[1]]
    if moved and len(table.read) == len(classes):
        yield make_finding(
            'class-order',
            where=table.part.where,
            path=table.part.path,
            ours=moved[0][0],
            theirs=moved[0][1],
            line=write_classes(table.read, table.part),
            count=len(moved),
            example=', '.join(moved[0]),
        )


def check_extra_names(table: ClassTable) -> Iterator[Finding]:
    """Yield categories that are not read."""
    extra = [name for name in table.listed if name not in table.read]
    if extra and table.read:
        yield make_finding(
            'class-extra',
            path=table.part.path,
            where=table.part.where,
            names=format_count(extra, 'categories'),
            line=write_classes(table.listed, table.part),
            count=len(extra),
            example=extra[0],
        )


def check_thing_names(table: ClassTable) -> Iterator[Finding]:
    """Yield things that are stuff by the file, and the other way round."""
    if table.part.kind != 'panoptic':
        return
    ours, theirs = table.part.names.things, table.read[: table.things]
    if ours and set(ours) != set(theirs):
        yield make_finding(
            'thing-classes',
            where=table.part.where,
            path=table.part.path,
            names=format_count(ours),
            things=format_count(theirs),
        )


def check_class_counts(table: ClassTable) -> Iterator[Finding]:
    """Yield heads that do not fit the categories that are read."""
    part, count = table.part, len(table.rows)
    reason = f'{part.path} has {len(table.listed)} categories, of which {part.where} reads {count}'
    yield from check_heads(
        part.cfg, count, table.things, reason, write_classes(table.read, table.part)
    )


CLASS_CHECKS = (
    check_repeated_names,
    check_missing_names,
    check_thing_order,
    check_order,
    check_extra_names,
    check_thing_names,
    check_class_counts,
)


def check_classes(part: Part, categories: Sequence[Mapping]) -> Iterator[Finding]:
    """Hold the classes of the config against the categories of the file, by name."""
    fault = check_class_list(part)
    if fault:
        yield fault
        return
    table = ClassTable(part, categories)
    for check in CLASS_CHECKS:
        yield from check(table)


def check_class_list(part: Part) -> Finding | None:
    """Return what is wrong with classes given as a string that is no file."""
    own = part.leaf.get('metainfo') or {}
    for key in ('classes', 'thing_classes'):
        value = own.get(key)
        if isinstance(value, str) and not os.path.isfile(value):
            letters = ', '.join(map(repr, value[:3]))
            return make_finding(
                'class-list', key=key, where=part.where, value=value, letters=letters, example=value
            )
    return None


def list_class_counts(node: Any, path: str) -> Iterator[tuple[str, str, int]]:
    """Yield (head, key, number) of every number of classes in the heads below a part of a model."""
    if isinstance(node, (list, tuple)):
        for index, one in enumerate(node):
            yield from list_class_counts(one, f'{path}[{index}]')
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
                yield from list_class_counts(value, f'{path}.{key}')


def check_heads(cfg: Config, count: int, things: int, reason: str, line: str) -> Iterator[Finding]:
    """Yield heads that tell another number of classes apart than the data are read with."""
    model = model_of(cfg)
    if not count or reads_texts(model):
        return
    for head, key, number in list_class_counts(model, 'model'):
        wanted = dict(
            num_things_classes=things,
            num_stuff_classes=count - things,
            num_classes=count if head == 'model.semantic_head' else things,
        )[key]
        if number != wanted:
            yield make_finding(
                'head-classes',
                head=head,
                key=key,
                number=number,
                wanted=wanted,
                reason=reason,
                line=line,
                example=f'{head}.{key}',
            )


def reads_texts(model: Mapping) -> bool:
    """Return whether classes are texts to a model, so that no head counts them."""
    return bool({'language_model', 'text_encoder'} & set(model))


def write_classes(names: Iterable[str], part: Part) -> str:
    """Return what to write into the config for these classes."""
    names = list(names)
    line = ', '.join(map(repr, names[:LISTED])) + (', ...' if names[LISTED:] else '')
    return (
        f'write metainfo=dict(classes=({line}{"," if len(names) == 1 else ""})) in the data '
        f'set and num_classes={len(names)} in the heads{part.or_folder}'
    )


def check_splits(parts: Iterable[Part]) -> Iterator[Finding]:
    """Yield data sets that are read with other classes than the first of them."""
    parts = [part for part in parts if part.kind and not check_class_list(part)]
    for part in parts[1:]:
        ours, theirs = parts[0].names.classes, part.names.classes
        if not (ours and theirs) or ours == theirs or reads_texts(model_of(part.cfg)):
            continue
        pairs = enumerate(zip_longest(map(repr, ours), map(repr, theirs), fillvalue='nothing'))
        label, (one, two) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        yield make_finding(
            'split-order',
            first=parts[0].where,
            second=part.where,
            label=label,
            ours=one,
            theirs=two,
            example=f'{one}, {two}',
        )
