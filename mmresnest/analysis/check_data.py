"""All that is wrong with the data of a config, at once: ``mmresnest check-data``.

The checks of :mod:`mmresnest.config.checks` before a run, not stopped at the first finding, and
beyond them the files themselves, and what the splits have in common.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from ..config.checks.classes import check_splits
from ..config.checks.coco import check_image_files, check_table, names_file
from ..config.checks.part import SAMPLED, Part, list_parts
from ..config.checks.semantic import (
    check_settings,
    check_values,
    find_masks,
    format_size,
    read_rows,
    report_files,
    report_lost_files,
)
from ..config.inspect import import_packages, task_of, type_of
from ..config.load import load_config, name_of
from ..config.option_keys import override_settings
from ..config.paths import check_paths
from ..config.retarget import KINDS as LAYOUTS
from ..config.retarget import use_data
from ..data.base import SPLITS, DataFolder
from ..data.checks.findings import Finding, make_finding
from ..data.checks.fixed_folder import SplitFiles, check_folder, complete_folder
from ..data.checks.images import (
    ImageFile,
    find_mismatch,
    find_shared_images,
    get_shown_size,
    map_files,
    pause_garbage_collection,
    read_image_file,
    read_label_file,
    read_panoptic_file,
)
from ..data.checks.panoptic import list_segments, name_mask
from ..data.checks.repair import check_target, is_repairable, repair_table, write_table
from ..data.checks.rows import get_rows, has_fields, is_id, parse_size
from ..data.folder import scan_folder
from ..data.formats.write import write_folder
from ..data.json_files import read_coco_file
from ..data.request import DataRequest
from ..engine.prepare import choose_data_folder
from ..errors import UserError


@dataclass
class Report:
    """What an audit has found.

    Attributes:
        config: the file of the config.
        findings: the split and what is wrong with it.
        notes: what was read, left alone or written.
        written: the mended annotation files.
    """

    config: str
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings by which scores or weights suffer."""
        return [one for _, one in self.findings if one.is_error]

    def format_text(self) -> str:
        """Return all of it for people, errors first."""
        order = sorted(self.findings, key=lambda pair: not pair[1].is_error)
        lines = [f'{one.severity}: {split}: {one.kind}: {one.message}' for split, one in order]
        count = len(self.findings) - len(self.errors)
        return '\n'.join(
            [*lines, *self.notes, f'{len(self.errors)} errors, {count} warnings ({self.config})']
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return dict(
            config=self.config,
            notes=self.notes,
            written=list(map(str, self.written)),
            findings=[
                dict(split=split, **{key: getattr(one, key) for key in _SAVED})
                for split, one in self.findings
            ],
        )


_SAVED = ('kind', 'severity', 'count', 'example', 'said', 'remedy')


class CheckedPart(NamedTuple):
    """A data set that was checked: what is wrong with it, its image files, and its table."""

    part: Part
    findings: list[Finding]
    files: list[Path]
    table: dict[str, Any] | None = None


def check_data(
    config: str | os.PathLike | Config,
    *,
    data: str | os.PathLike | None = None,
    mask_values: str | None = None,
    data_format: str | None = None,
    division: str | None = None,
    demo: bool = False,
    options: Mapping[str, Any] | None = None,
    splits: Sequence[str] = SPLITS,
    every: bool = False,
    fix: str | os.PathLike | None = None,
    force: bool = False,
) -> Report:
    """Check the data of a config.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        data: a folder in COCO or ADE20K layout to check instead of the config's data.
        mask_values: what the values of its masks stand for, as ``train --mask-values``.
        data_format: its format, as ``train --format``.
        division: the share of a validation part that is made, as ``train --split``.
        demo: check the embedded data set, unless ``data`` is given.
        options: settings to override, dotted names to values.
        splits: the parts of the data.
        every: read every image instead of a sample of each split, and compare all contents.
        fix: write mended annotation files: a ``.json`` for one; or a folder that ``--data``
            takes, with links to the images. With ``mask_values`` a folder of index masks.
        force: replace what is there.

    Returns:
        what is wrong.

    Raises:
        UserError: what cannot be checked, or a file that must not be written.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    wrong = [split for split in splits if split not in SPLITS]
    if wrong:
        raise UserError(
            f'there is no split {wrong[0]!r}; legal: {", ".join(SPLITS)}', code='option.unknown'
        )
    of_folder: list[Finding] = []
    folder: DataFolder | None = None
    if demo or data is not None:
        folder, of_folder = scan_folder(
            choose_data_folder(cfg, DataRequest.parse(data, mask_values, data_format, division)),
            LAYOUTS[task_of(cfg)],
        )
        if folder.kind == 'coco':  # an object without a mask is a finding, with its repair
            folder = replace(folder, has_masks=True)
        use_data(cfg, folder)
    override_settings(cfg, options)
    check_paths(cfg, tuple(splits))
    import_packages(cfg)
    report = Report(name_of(cfg))
    parts = _select_parts(list(list_parts(cfg, splits, in_folder=bool(demo or data))), report)
    mapped = folder if fix is not None and mask_values is not None else None
    targets = {} if mapped else _choose_targets(parts, fix, force)
    files = _list_split_files(cfg) if targets and Path(fix or '').suffix != '.json' else {}
    check_folder(Path(fix or ''), files, force)
    with pause_garbage_collection():
        checked = [_check_part(part, every, report) for part in parts]
    for one in checked:
        report.findings += [(one.part.split, found) for found in one.findings]
    report.findings += [('all', found) for found in check_splits(parts)]
    report.findings += [('all', found) for found in _check_leaks(checked, every)]
    known = {found.kind for _, found in report.findings}
    report.findings += [('all', found) for found in of_folder if found.kind not in known]
    if mapped is not None and fix is not None:
        _write_mapped_folder(mapped, Path(fix), report)
    if targets:
        _repair(checked, targets, report)
        if files and report.written:
            out = Path(fix or '')
            complete_folder(out, files, report.written)
            report.notes.append(f'the images are linked beside it: --data {out}')
    return report


def _write_mapped_folder(folder: DataFolder, out: Path, report: Report) -> None:
    """Write index masks beside links to the images: a folder that ``--data`` takes by itself."""
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UserError(
            f'--fix {out}: it is not an empty folder; name another', code='option.exists'
        )
    if folder.cache is not None:  # images and masks lie as another format has them
        write_folder(folder, out, 'ade20k')
        report.written.append(out)
        report.notes.append(f'written: {out}, index masks beside links to the images: --data {out}')
        return
    for split in filter(lambda one: one.scored, folder.splits.values()):
        shutil.copytree(split.annotations, out / 'annotations' / split.name)
    (out / 'images').symlink_to(folder.root / 'images', target_is_directory=True)
    (out / 'classes.txt').write_text('\n'.join(folder.classes) + '\n', encoding='utf-8')
    report.written.append(out)
    report.notes.append(f'written: {out}, index masks beside a link to the images: --data {out}')


def _select_parts(parts: list[Part], report: Report) -> list[Part]:
    """Return the data sets that can be checked, each once."""
    seen: dict[str, Part] = {}
    for part in parts:
        what = [part.leaf.get(key) for key in ('data_root', 'ann_file', 'data_prefix', 'metainfo')]
        if not part.kind:
            report.notes.append(
                f'{part.split}: {type_of(part.leaf) or "a data set"} is left '
                'alone: only local CocoDataset, CocoPanopticDataset and data sets '
                'of mmseg are checked'
            )
        elif str(what) in seen:
            report.notes.append(f'{part.split}: the same as {seen[str(what)].split}')
        else:
            seen[str(what)] = part
    return list(seen.values())


def _check_part(part: Part, every: bool, report: Report) -> CheckedPart:
    if part.kind == 'semantic':
        files: list[Path] = []
        return CheckedPart(part, list(_check_label_files(part, every, files, report)), files)
    table, mended = read_coco_file(part.path)
    found = [
        *mended,
        *check_table(part, table, whole=True),
        *_check_image_files(part, table, every, report),
        *_check_filter(part, table),
    ]
    if part.kind == 'panoptic':
        found += _check_panoptic_files(part, table, every)
    files = [
        part.folder('img') / row['file_name']
        for row in get_rows(table, 'images')
        if names_file(row)
    ]
    return CheckedPart(part, found, files, table)


def _choose(count: int, every: bool) -> list[int]:
    """Return which of so many are read: the same ones each time."""
    return (
        list(range(count))
        if every or count <= SAMPLED
        else sorted(random.Random(0).sample(range(count), SAMPLED))
    )


def _note_sample(part: Part, read: int, count: int, report: Report) -> None:
    report.notes.append(
        f'{part.split}: {read} of {count} images were read'
        + ('' if read == count else '; --all reads all')
    )


def _check_image_files(
    part: Part, table: Mapping[str, Any], every: bool, report: Report
) -> Iterator[Finding]:
    """Yield what is wrong with the image files that an annotation file lists."""
    named = [at for at, row in enumerate(get_rows(table, 'images')) if names_file(row)]
    chosen = [named[at] for at in _choose(len(named), every)]
    _note_sample(part, len(chosen), len(named), report)
    yield from check_image_files(part, table, chosen, _read_images)


def _check_filter(part: Part, table: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield that the filters of the config leave no image to learn from."""
    filters, rows = part.leaf.get('filter_cfg') or {}, get_rows(table, 'images')
    if part.split != 'train' or not filters or not rows or count_filtered_images(part) != 0:
        return
    yield make_finding(
        'set-empty',
        path=part.path,
        where=part.where,
        least=filters.get('min_size', 0),
        with_object=' and has an object of a class that is read'
        if filters.get('filter_empty_gt', False)
        else '',
        count=len(rows),
    )


def count_filtered_images(part: Part) -> int | None:
    """Return how many images mmdet's filters leave, None where mmdet cannot read the file."""
    settings = {**part.leaf, 'pipeline': [], 'serialize_data': False}
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            DefaultScope.overwrite_default_scope(part.cfg.default_scope),
        ):
            return len(DATASETS.build(settings))
    except Exception:  # whatever it trips over has a finding of its own
        return None


def _check_panoptic_files(part: Part, table: Mapping[str, Any], every: bool) -> Iterator[Finding]:
    """Yield masks whose colors are not those of the segments, or that cannot be read."""
    rows = [
        row
        for row in get_rows(table, 'images')
        if names_file(row) and has_fields(row, 'id') and is_id(row['id'])
    ]
    rows = [rows[at] for at in _choose(len(rows), every)]
    listed: dict[Any, set] = defaultdict(set)
    for one in list_segments(get_rows(table, 'annotations')):
        if has_fields(one, 'id') and is_id(one['image_id']) and is_id(one['id']):
            listed[one['image_id']].add(one['id'])
    paths = [part.folder('seg') / name_mask(row['file_name']) for row in rows]
    faults: dict[str, list[str]] = defaultdict(list)
    seen = map_files(read_panoptic_file, paths, f'reading {len(paths)} masks')
    for row, path, one in zip(rows, paths, seen):
        kind, why = _find_label_fault(one, parse_size(row))
        colors = set(one.values) - {0}
        if not kind and colors != listed[row['id']]:
            odd = sorted(map(str, colors ^ listed[row['id']]))[0]
            kind, why = 'segment-ids', f'{odd} is only in one of them'
        if kind:
            faults[kind].append(f'{path} ({why})')
    yield from report_files(part, faults, len(rows))


def _find_label_fault(seen: ImageFile, size: tuple[int, int] | None) -> tuple[str, str]:
    """Return the kind of what is wrong with a mask of an image of that size, and why."""
    if seen.fault:
        kind = seen.fault if seen.fault in ('missing', 'colours') else 'unreadable'
        return f'label-{kind}', seen.why
    if size is not None and seen.size != size:
        return 'label-size', f'is {format_size(seen.size)}, its image {format_size(size)}'
    return '', ''


def _read_images(paths: Sequence[Path]) -> Iterator[ImageFile]:
    return map_files(read_image_file, paths, f'reading {len(paths)} images')


def _check_label_files(
    part: Part, every: bool, files: list[Path], report: Report
) -> Iterator[Finding]:
    """Yield what is wrong with settings, images and masks of a data set of mmseg."""
    dataset = yield from check_settings(part)
    if dataset is None:
        return
    files += [Path(row['img_path']) for row in read_rows(dataset, range(len(dataset)))]
    chosen = _choose(len(dataset), every)
    rows = read_rows(dataset, chosen)
    masks = yield from find_masks(part, dataset, rows)
    paths = [Path(row['img_path']) for row in rows]
    _note_sample(part, len(rows), len(dataset), report)
    faults: dict[str, list[str]] = defaultdict(list)
    images = list(_read_images(paths))
    labels = list(map_files(read_label_file, masks, f'reading {len(masks)} masks'))
    for at, (path, one) in enumerate(zip(paths, images)):
        stated = labels[at].size if masks and not labels[at].fault else None
        kind, why = find_mismatch(one, stated, part.follows_exif)
        if kind and kind not in ('image-size', 'image-turned'):  # told of the mask
            faults[kind].append(f'{path} ({why})' if kind != 'image-missing' else str(path))
    yield from report_lost_files(part, 'image-missing', faults.pop('image-missing', []), len(rows))
    values: dict[int, Path] = {}
    lost: list[Path] = []
    for mask, image, one in zip(masks, images, labels):
        size = None if image.fault else get_shown_size(image, part.follows_exif)
        kind, why = _find_label_fault(one, size)
        if not kind and set(one.values) <= {dataset.ignore_index}:
            kind, why = 'label-ignored', f'{dataset.ignore_index}'
        if kind == 'label-missing':
            lost.append(mask)
        elif kind:
            faults[kind].append(f'{mask} ({why})')
        for value in one.values:
            values.setdefault(value, mask)
    yield from _find_other_suffix(part, dataset, lost, len(masks)) or report_lost_files(
        part, 'label-missing', lost, len(masks)
    )
    yield from report_files(part, faults, len(rows))
    yield from check_values(part, dataset, values)


def _find_other_suffix(part: Part, dataset: Any, lost: list[Path], total: int) -> list[Finding]:
    """Return a finding if all masks are there under names that end otherwise."""
    if not lost or len(lost) < total:
        return []
    stem = lost[0].name.removesuffix(dataset.seg_map_suffix)
    near = sorted(lost[0].parent.glob(f'{stem}*')) if lost[0].parent.is_dir() else []
    if not near:
        return []
    suffix = near[0].name[len(stem) :]
    return [
        make_finding(
            'label-suffix',
            total=total,
            near=near[0].name,
            suffix=suffix,
            where=part.where,
            count=total,
            example=lost[0],
        )
    ]


def _check_leaks(checked: Sequence[CheckedPart], every: bool) -> Iterator[Finding]:
    """Yield images that are learned from and scored on."""
    for one in checked:
        for other in checked:
            if one.part.split == 'train' != other.part.split:
                pairs = find_shared_images(one.files, other.files, contents=every)
                if pairs:
                    yield make_finding(
                        'leak',
                        total=len(one.files),
                        split=one.part.split,
                        other=other.part.split,
                        same=pairs[0][1],
                        count=len(pairs),
                        example=pairs[0][0],
                    )


def _choose_targets(
    parts: Sequence[Part], fix: str | os.PathLike | None, force: bool
) -> dict[Path, Path]:
    """Return annotation file -> where its repaired form goes; refuse before the work, not after."""
    targets: dict[Path, Path] = {}
    if fix is None:
        return targets
    for part in parts:
        if part.kind == 'coco' and part.path not in targets:
            target = Path(fix)
            if target.suffix != '.json':
                taken = {one.name for one in targets.values()}
                name = f'{part.split}.json'  # as --data reads it
                target /= f'{part.split}_{part.path.name}' if name in taken else name
            check_target(target, part.path, force)
            targets[part.path] = target
    if not targets:
        raise UserError(
            '--fix mends annotation files of boxes and instance masks, and the config '
            'reads none; leave it out',
            code='option.conflict',
        )
    return targets


def _list_split_files(cfg: Config) -> dict[str, SplitFiles]:
    """Return the files of each split, for a folder that ``--data`` takes.

    It is empty where a split is made of several sets, which such a folder cannot hold.
    """
    files: dict[str, SplitFiles] = {}
    for part in list_parts(cfg, SPLITS):
        if part.kind != 'coco' or part.split in files:
            return {}
        files[part.split] = SplitFiles(part.path, part.folder('img'))
    if files.get('test') == files.get('val'):  # which stands in for it
        files.pop('test', None)
    return files


def _repair(checked: Sequence[CheckedPart], targets: Mapping[Path, Path], report: Report) -> None:
    todo = {
        one.part.path: one
        for one in checked
        if one.table is not None
        and one.part.path in targets
        and any(is_repairable(found) or found.kind == 'value-mended' for found in one.findings)
    }
    if len({targets[path] for path in todo}) < len(todo):
        raise UserError(
            f'--fix: {len(todo)} files are to be mended, '
            f'{" and ".join(map(str, todo))}; give a folder, or one --split',
            code='option.conflict',
        )
    for path, one in todo.items():
        part, table = one.part, one.table
        assert table is not None
        files = [found for found in one.findings if found.kind.startswith('image-')]
        mended, done = repair_table(
            table,
            files,
            partial(check_table, part, whole=True),
            needs_masks=task_of(part.cfg) == 'instance',
        )
        for found in one.findings:
            if found.kind == 'value-mended':
                done['values written as they are read'] += found.count
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
