"""Choose the format that a data folder has, or say why none fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, nearest
from ..base import IMAGE_SUFFIXES, describe_contents, list_files
from .base import Format, Likeness
from .table import FORMATS
from .unread import describe_unread

NOUNS = {'coco': 'a detector', 'ade20k': 'a segmentor'}
"""Kind of data -> what is trained on it."""
_LOOKED_AT = 8
"""Folders below one that are compared with all formats."""


def recognize_format(root: Path, kind: str, name: str | None = None) -> Format:
    """Return the format of a data folder.

    Args:
        root: the folder.
        kind: ``coco`` or ``ade20k``, as the task wants it.
        name: what ``--format`` says.

    Raises:
        UserError: none fits, or more than one; or there is no format of that name.
    """
    if name is not None:
        if name not in FORMATS:
            raise UserError(
                f'--format: there is no {name!r}; {nearest(name, FORMATS)}', code='option.unknown'
            )
        return _check_named(root, FORMATS[name])
    rows = [row for row in FORMATS.values() if row.kind == kind]
    others = [row for row in FORMATS.values() if row.kind != kind]
    for some in (rows, others):
        fitting = [(row, like) for row in some if (like := row.compare(root)).is_whole]
        names = [row.name for row, _ in fitting]
        fitting = [(row, like) for row, like in fitting if row.yields_to not in names]
        if len(fitting) > 1:
            raise _refuse_ambiguous(root, fitting)
        if fitting:
            return fitting[0][0]
    raise _refuse_unknown(root, kind, rows)


def find_rival(root: Path, names: Sequence[str]) -> tuple[Format, Likeness] | None:
    """Return the first of some formats that a folder has beside another."""
    for name in names:
        like = FORMATS[name].compare(root)
        if like.is_whole:
            return FORMATS[name], like
    return None


def _check_named(root: Path, row: Format) -> Format:
    like = row.compare(root)
    if not like.is_whole:
        raise UserError(
            f'--format {row.name}: {root} is no folder of {row.title}, which has {row.looks}'
            + (f': {like.found} is there, and {like.missing} is missing' if like.missing else '')
            + f'; leave the option out to see what it is taken for. {describe_contents(root)}',
            code='data.no-annotations',
        )
    return row


def _refuse_ambiguous(root: Path, fitting: Sequence[tuple[Format, Likeness]]) -> UserError:
    readings = ' and as '.join(f'{row.title} ({like.found})' for row, like in fitting)
    return refuse_readings(root, readings, [row.name for row, _ in fitting])


def refuse_readings(root: Path, readings: str, names: Sequence[str]) -> UserError:
    """Return the error that a folder can be read in more than one way."""
    return UserError(
        f'{root} can be read as {readings}; say which by '
        + ' or '.join(f'--format {name}' for name in names),
        code='data.ambiguous',
    )


def _find_below(root: Path) -> list[tuple[Path, Format]]:
    """Return the data folders right below a folder, or one level deeper, with their formats."""
    level = [root]
    for _ in range(2):
        level = [
            path
            for folder in level
            for path in sorted(folder.iterdir())
            if path.is_dir() and path.name[0] not in '._'
        ][:_LOOKED_AT]
        found = [
            (folder, row)
            for folder in level
            if next(list_files(folder, IMAGE_SUFFIXES), None)  # no folder of labels alone
            for row in FORMATS.values()
            if row.compare(folder).is_whole
        ]
        if found:
            return found
    return []


def _refuse_unknown(root: Path, kind: str, rows: Sequence[Format]) -> UserError:
    looked = '; '.join(f'{row.title}: {row.looks}' for row in rows)
    likes = [(row, like) for row in FORMATS.values() if (like := row.compare(root)).found]
    below = [] if likes else _find_below(root)
    if below:
        resembles = '. Below it there is ' + ', and '.join(
            f'{row.title}: --data {folder}' for folder, row in below[:3]
        )
    elif not likes and (known := describe_unread(root)):
        resembles = f'. {known}'
    elif likes:
        row, like = likes[0]
        resembles = (
            f'. It resembles {row.title} most: {like.found} is there, and {like.missing} is '
            f'missing. This mends it: {like.command}'
        )
    else:
        resembles = (
            '. It resembles none of them. To see a folder that can be read: '
            'mmresnest make-shapes DIR'
        )
    return UserError(
        f'no annotations for {NOUNS[kind]} in {root}. Looked for: {looked}{resembles}. '
        f'{describe_contents(root)}',
        code='data.no-annotations',
    )
