"""All that is wrong with the data of a config, at once: ``mmresnest check-data``.

The looks of :mod:`mmresnest.config.checks` before a run, not stopped at the first finding, and
beyond them the files themselves, and what the splits have in common.
"""

from __future__ import annotations

import copy
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ..config.checks import (
    SAMPLED,
    Part,
    look_across,
    look_at_settings,
    look_at_table,
    look_at_values,
    lost_files,
    lost_images,
    masks_of,
    parts_of,
    rows_at,
)
from ..config.inspect import register, task_of, type_of
from ..config.load import load_config, merge
from ..config.paths import check_paths
from ..config.retarget import KINDS as LAYOUTS
from ..config.retarget import use_data
from ..data.checks.coco import have, is_id, rows_of, size_of
from ..data.checks.findings import ERROR, KINDS, Finding, finding, of_rows
from ..data.checks.images import (
    Seen,
    look_at_all,
    look_at_colours,
    look_at_image,
    look_at_label,
    shared,
    without_collecting,
)
from ..data.checks.panoptic import mask_name, segments_of
from ..data.checks.repair import check_target, is_mendable, mend, write_table
from ..data.folder import read_folder
from ..data.json_files import read_json
from ..engine.prepare import data_for
from ..errors import UserError

SPLITS = ('train', 'val', 'test')


@dataclass
class Report:
    """What an audit has found.

    Attributes:
        config: the file of the config.
        findings: the split and what is wrong with it.
        notes: what was looked at, left alone or written.
        written: the mended annotation files.
    """

    config: str
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings by which scores or weights suffer."""
        return [one for _, one in self.findings if one.severity == ERROR]

    def text(self) -> str:
        """All of it for people, errors first."""
        order = sorted(self.findings, key=lambda pair: pair[1].severity != ERROR)
        lines = [f'{one.severity}: {split}: {one.kind}: {one.message}' for split, one in order]
        count = len(self.findings) - len(self.errors)
        return '\n'.join(
            [*lines, *self.notes, f'{len(self.errors)} errors, {count} warnings ({self.config})']
        )

    def as_json(self) -> dict[str, Any]:
        """All of it for programs."""
        return dict(
            config=self.config,
            notes=self.notes,
            written=list(map(str, self.written)),
            findings=[
                dict(
                    split=split,
                    kind=one.kind,
                    severity=one.severity,
                    count=one.count,
                    example=one.example,
                    said=one.said,
                    remedy=one.remedy,
                )
                for split, one in self.findings
            ],
        )


class Looked(NamedTuple):
    """A data set of which all has been seen that was asked for: findings, files, and its table."""

    part: Part
    findings: list[Finding]
    files: list[Path]
    table: dict[str, Any] | None = None


def audit(
    config: str | os.PathLike | Config,
    *,
    data: str | os.PathLike | None = None,
    demo: bool = False,
    options: Mapping[str, Any] | None = None,
    splits: Sequence[str] = SPLITS,
    every: bool = False,
    fix: str | os.PathLike | None = None,
    force: bool = False,
) -> Report:
    """Looks over the data of a config.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        data: a folder in COCO or ADE20K layout to look over instead of the config's data.
        demo: look over the embedded data set, unless ``data`` is given.
        options: settings to override, dotted names to values.
        splits: the parts of the data.
        every: read every image instead of a sample of each split, and compare all contents.
        fix: write mended annotation files: a ``.json`` for one, a folder for several.
        force: replace what is there.

    Returns:
        what is wrong.

    Raises:
        UserError: what cannot be looked at, or a file that must not be written.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    wrong = [split for split in splits if split not in SPLITS]
    if wrong:
        raise UserError(f'there is no split {wrong[0]!r}; legal: {", ".join(SPLITS)}')
    if demo or data is not None:
        use_data(cfg, read_folder(data_for(cfg, data), LAYOUTS[task_of(cfg)], lenient=True))
    merge(cfg, options)
    check_paths(cfg, tuple(splits))
    register(cfg)
    report = Report(str(cfg.filename or 'the config'))
    parts = _distinct(list(parts_of(cfg, splits)), report)
    targets = _targets(parts, fix, force)
    with without_collecting():
        looked = [_look_over(part, every, report) for part in parts]
    for one in looked:
        report.findings += [(one.part.split, found) for found in one.findings]
    report.findings += [('all', found) for found in look_across(parts)]
    report.findings += [('all', found) for found in _leaks(looked, every)]
    if targets:
        _fix(looked, targets, report)
    return report


def _distinct(parts: list[Part], report: Report) -> list[Part]:
    """The data sets that can be looked at, each once."""
    seen: dict[str, Part] = {}
    for part in parts:
        what = [part.leaf.get(key) for key in ('data_root', 'ann_file', 'data_prefix', 'metainfo')]
        if not part.kind:
            report.notes.append(
                f'{part.split}: {type_of(part.leaf) or "a data set"} is left '
                'alone: only local CocoDataset, CocoPanopticDataset and data sets '
                'of mmseg are looked at'
            )
        elif str(what) in seen:
            report.notes.append(f'{part.split}: the same as {seen[str(what)].split}')
        else:
            seen[str(what)] = part
    return list(seen.values())


def _look_over(part: Part, every: bool, report: Report) -> Looked:
    if part.kind == 'semantic':
        files: list[Path] = []
        return Looked(part, list(_labels(part, every, files, report)), files)
    table = read_json(part.path)
    found = [
        *look_at_table(part, table, whole=True),
        *_images(part, table, every, report),
        *_left(part, table),
    ]
    if part.kind == 'panoptic':
        found += _panoptic_masks(part, table, every)
    files = [
        part.folder('img') / row['file_name']
        for row in rows_of(table, 'images')
        if have(row, 'file_name') and isinstance(row['file_name'], str)
    ]
    return Looked(part, found, files, table)


def _chosen(count: int, every: bool) -> list[int]:
    """Which of so many are looked at: the same ones each time."""
    return (
        list(range(count))
        if every or count <= SAMPLED
        else sorted(random.Random(0).sample(range(count), SAMPLED))
    )


def _say_sample(part: Part, looked: int, count: int, report: Report) -> None:
    report.notes.append(
        f'{part.split}: {looked} of {count} images were read'
        + ('' if looked == count else '; --all reads all')
    )


# ---- COCO ----------------------------------------------------------------------------------------


def _images(part: Part, table: Mapping[str, Any], every: bool, report: Report) -> Iterator[Finding]:
    """The image files that an annotation file lists."""
    rows = rows_of(table, 'images')
    named = [
        at
        for at, row in enumerate(rows)
        if have(row, 'file_name') and isinstance(row['file_name'], str)
    ]
    chosen = [named[at] for at in _chosen(len(named), every)]
    paths = [part.folder('img') / rows[at]['file_name'] for at in chosen]
    _say_sample(part, len(chosen), len(named), report)
    turned = _is_turned(part)
    faults: dict[str, list[int]] = defaultdict(list)
    words: dict[str, str] = {}
    seen = look_at_all(look_at_image, paths, f'reading {len(paths)} images')
    for at, path, one in zip(chosen, paths, seen):
        fault, why = one.fault, one.why
        stated, size = size_of(rows[at]), _shown_size(one, turned)
        if not fault and stated is not None and size != stated:
            fault = 'turned' if stated == one.size else 'size'
            why = f'is {size[0]} x {size[1]}, annotated {stated[0]} x {stated[1]}'
        if fault:
            faults[f'image-{fault}'].append(at)
            words.setdefault(f'image-{fault}', f'{path} ({why})')
    yield from lost_images(
        part,
        [part.folder('img') / rows[at]['file_name'] for at in faults.get('image-missing', ())],
        len(chosen),
        place='images',
        rows=faults.pop('image-missing', []),
    )
    for kind, bad in faults.items():
        yield of_rows(kind, part.path, 'images', bad, len(chosen), words[kind])


def _is_turned(part: Part) -> bool:
    """Whether the pipeline turns images as their EXIF says, as mmcv does unless told otherwise."""
    load: Mapping = next(
        (step for step in part.leaf.get('pipeline') or () if type_of(step).startswith('LoadImage')),
        {},
    )
    return load.get('color_type', 'color') in ('color', 'grayscale')


def _shown_size(seen: Seen, turned: bool) -> tuple[int, int]:
    """Width and height of an image as it is read in training."""
    width, height = seen.size
    return (height, width) if turned and seen.turned else (width, height)


def _left(part: Part, table: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the filters of the config leave any image to learn from."""
    filters = part.leaf.get('filter_cfg') or {}
    rows = rows_of(table, 'images')
    if part.split != 'train' or not filters or not rows:
        return
    classes = part.names.classes
    known = [
        row['id']
        for row in rows_of(table, 'categories')
        if have(row, 'id', 'name')
        and (row.get('isthing', 1))
        and (not classes or str(row['name']) in classes)
    ]
    objects = rows_of(table, 'annotations')
    objects = segments_of(objects) if part.kind == 'panoptic' else objects
    used = {
        row['image_id']
        for row in objects
        if have(row, 'image_id', 'category_id')
        and is_id(row['image_id'])
        and row['category_id'] in known
    }
    empty, least = filters.get('filter_empty_gt', False), filters.get('min_size', 0)
    if not any(
        min(size_of(row) or (0, 0)) >= least and (not empty or row.get('id') in used)
        for row in rows
        if have(row, 'id') and is_id(row['id'])
    ):
        yield finding(
            'set-empty',
            f'{part.path}: filter_cfg of {part.where} leaves none of '
            f'{len(rows)} images: none is at least {least} pixels wide and '
            'high' + (' and has an object of a class that is read' if empty else ''),
            'lower min_size, or correct classes and annotations',
            count=len(rows),
        )


def _panoptic_masks(part: Part, table: Mapping[str, Any], every: bool) -> Iterator[Finding]:
    """The masks of images, and whether their colours are those of the segments."""
    rows = [
        row
        for row in rows_of(table, 'images')
        if have(row, 'id', 'file_name') and isinstance(row['file_name'], str) and is_id(row['id'])
    ]
    rows = [rows[at] for at in _chosen(len(rows), every)]
    listed: dict[Any, set] = defaultdict(set)
    for one in segments_of(rows_of(table, 'annotations')):
        if have(one, 'id') and is_id(one['image_id']) and is_id(one['id']):
            listed[one['image_id']].add(one['id'])
    paths = [part.folder('seg') / mask_name(row['file_name']) for row in rows]
    faults: dict[str, list[tuple[int, str]]] = defaultdict(list)
    seen = look_at_all(look_at_colours, paths, f'reading {len(paths)} masks')
    for at, (row, path, one) in enumerate(zip(rows, paths, seen)):
        kind, why = _label_fault(one, size_of(row))
        colours = set(one.values) - {0}
        if not kind and colours != listed[row['id']]:
            odd = sorted(map(str, colours ^ listed[row['id']]))[0]
            kind, why = 'segment-ids', f'{odd} is only in one of them'
        if kind:
            faults[kind].append((at, f'{path} ({why})'))
    yield from _of_files(part, faults, len(rows))


# ---- label images --------------------------------------------------------------------------------


def _label_fault(seen: Seen, size: tuple[int, int] | None) -> tuple[str, str]:
    """The kind of what is wrong with a mask of an image of that size, and why."""
    if seen.fault:
        kind = seen.fault if seen.fault in ('missing', 'colours') else 'unreadable'
        return f'label-{kind}', seen.why
    if size is not None and seen.size != size:
        return 'label-size', f'is {seen.size[0]} x {seen.size[1]}, its image {size[0]} x {size[1]}'
    return '', ''


def _of_files(
    part: Part, faults: Mapping[str, list[tuple[int, str]]], total: int
) -> Iterator[Finding]:
    """Findings about files: kind -> their numbers and what is wrong with each."""
    for kind, hits in faults.items():
        words = KINDS[kind]
        said = (
            f'{len(hits)} of {total} {"masks" if kind[:3] in ("lab", "seg") else "images"} of '
            f'{part.where} {words.says or "cannot be used"}, such as {hits[0][1]}'
        )
        yield finding(
            kind,
            said,
            words.remedy or 'a mask is a png named like its image',
            count=len(hits),
            example=hits[0][1],
        )


def _labels(part: Part, every: bool, files: list[Path], report: Report) -> Iterator[Finding]:
    """A data set of mmseg: its settings, images and masks."""
    dataset = yield from look_at_settings(part)
    if dataset is None:
        return
    files += [Path(row['img_path']) for row in rows_at(dataset, range(len(dataset)))]
    chosen = _chosen(len(dataset), every)
    rows = rows_at(dataset, chosen)
    masks = yield from masks_of(part, dataset, rows)
    paths = [Path(row['img_path']) for row in rows]
    _say_sample(part, len(rows), len(dataset), report)
    faults: dict[str, list[tuple[int, str]]] = defaultdict(list)
    images = list(look_at_all(look_at_image, paths, f'reading {len(rows)} images'))
    for at, one in enumerate(images):
        if one.fault:
            faults[f'image-{one.fault}'].append((at, f'{paths[at]} ({one.why})'))
    yield from lost_files(
        part, 'image-missing', [paths[at] for at, _ in faults.pop('image-missing', [])], len(rows)
    )
    values: dict[int, Path] = {}
    turned = _is_turned(part)
    for at, one in enumerate(look_at_all(look_at_label, masks, f'reading {len(masks)} masks')):
        size = None if images[at].fault else _shown_size(images[at], turned)
        kind, why = _label_fault(one, size)
        if not kind and set(one.values) <= {dataset.ignore_index}:
            kind, why = 'label-ignored', f'{dataset.ignore_index}'
        if kind:
            faults[kind].append((at, f'{masks[at]} ({why})'))
        for value in one.values:
            values.setdefault(value, masks[at])
    lost = [masks[at] for at, _ in faults.pop('label-missing', [])]
    yield from _other_suffix(part, dataset, lost, len(masks)) or lost_files(
        part, 'label-missing', lost, len(masks)
    )
    yield from _of_files(part, faults, len(rows))
    yield from look_at_values(part, dataset, values)


def _other_suffix(part: Part, dataset: Any, lost: list[Path], total: int) -> list[Finding]:
    """Masks that are all there, under names that end otherwise."""
    if not lost or len(lost) < total:
        return []
    stem = lost[0].name.removesuffix(dataset.seg_map_suffix)
    near = sorted(lost[0].parent.glob(f'{stem}*')) if lost[0].parent.is_dir() else []
    if not near:
        return []
    suffix = near[0].name[len(stem) :]
    return [
        finding(
            'label-suffix',
            f'none of {total} masks looked for exists, such as {lost[0]}, '
            f'and beside it is {near[0].name}',
            f'write seg_map_suffix={suffix!r} in {part.where}',
            count=total,
            example=str(lost[0]),
        )
    ]


# ---- across the splits ---------------------------------------------------------------------------


def _leaks(looked: Sequence[Looked], every: bool) -> Iterator[Finding]:
    """Images that are learnt from and scored on."""
    for one in looked:
        for other in looked:
            if one.part.split == 'train' != other.part.split:
                pairs = shared(one.files, other.files, contents=every)
                if pairs:
                    yield finding(
                        'leak',
                        f'{len(pairs)} of {len(one.files)} images of '
                        f'{one.part.split} are also in {other.part.split}, such '
                        f'as {pairs[0][0]}, which is {pairs[0][1]}',
                        'take them out of one of the two: scores of what was learnt by '
                        'heart say nothing',
                        count=len(pairs),
                        example=str(pairs[0][0]),
                    )


# ---- mending -------------------------------------------------------------------------------------


def _targets(parts: Sequence[Part], fix: str | os.PathLike | None, force: bool) -> dict[Path, Path]:
    """Annotation file -> where its mended form goes; refused before the work rather than after."""
    targets: dict[Path, Path] = {}
    if fix is None:
        return targets
    for part in parts:
        if part.kind == 'coco' and part.path not in targets:
            target = Path(fix)
            if target.suffix != '.json':
                taken = {one.name for one in targets.values()}
                name = part.path.name
                target /= f'{part.split}_{name}' if name in taken else name
            check_target(target, part.path, force)
            targets[part.path] = target
    if not targets:
        raise UserError(
            '--fix mends annotation files of boxes and instance masks, and the config '
            'reads none; leave it out'
        )
    return targets


def _fix(looked: Sequence[Looked], targets: Mapping[Path, Path], report: Report) -> None:
    todo = {
        one.part.path: one
        for one in looked
        if one.table is not None
        and one.part.path in targets
        and any(map(is_mendable, one.findings))
    }
    if len({targets[path] for path in todo}) < len(todo):
        raise UserError(
            f'--fix: {len(todo)} files are to be mended, '
            f'{" and ".join(map(str, todo))}; give a folder, or one --split'
        )
    for path, one in todo.items():
        part, table = one.part, one.table
        assert table is not None
        files = [found for found in one.findings if found.kind.startswith('image-')]
        mended, done = mend(
            table,
            files,
            partial(look_at_table, part, whole=True),
            masks=task_of(part.cfg) == 'instance',
        )
        if not mended.get('images') or not mended.get('annotations'):
            report.notes.append(f'{path} was not mended: nothing that can be used would be left')
            continue
        write_table(mended, targets[path])
        report.written.append(targets[path])
        report.notes.append(
            f'written: {targets[path]} ('
            + ', '.join(f'{count} {what}' for what, count in done.items())
            + ')'
        )
    if not todo:
        report.notes.append('nothing that --fix could mend was found; no file was written')
