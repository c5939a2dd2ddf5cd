"""Complete a folder of repaired annotation files, so that ``--data`` takes it.

Beside ``train.json`` and the like, which were repaired, come the annotation files of the other
splits as they are, and under the name of each split a link to the folder of its images. Where the
system makes no links, the images are copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from .repair import check_target


class SplitFiles(NamedTuple):
    """The files of a split: its annotations, and the folder its image names start from."""

    annotations: Path
    images: Path


def check_folder(out: Path, splits: Mapping[str, SplitFiles], force: bool) -> None:
    """Make sure that completing the folder replaces nothing.

    Raises:
        UserError: something else stands where a link goes.
    """
    for split, files in splits.items():
        check_target(out / f'{split}.json', files.annotations, force)
        place = out / split
        if os.path.lexists(place) and not _is_link_to(place, files.images):
            if not place.is_symlink():
                raise UserError(
                    f'--fix {out}: {place} is there, and a link to {files.images} goes to that '
                    'place; name another folder',
                    code='option.exists',
                )
            if not force:
                raise UserError(
                    f'--fix {out}: {place} links to {os.readlink(place)}; name another folder, or '
                    'give --force to replace it',
                    code='option.exists',
                )


def complete_folder(out: Path, splits: Mapping[str, SplitFiles], written: Collection[Path]) -> None:
    """Add to a folder of annotation files what it lacks, after :func:`check_folder`.

    Args:
        out: the folder.
        splits: what belongs there.
        written: repaired files, which are there.

    Raises:
        UserError: it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for split, files in splits.items():
            table, images = out / f'{split}.json', out / split
            if table not in written:
                shutil.copyfile(files.annotations, table)
            if _is_link_to(images, files.images):
                continue
            if images.is_symlink():
                images.unlink()
            try:
                images.symlink_to(files.images, target_is_directory=True)
            except OSError:  # Windows asks for a privilege
                shutil.copytree(files.images, images)
    except OSError as error:
        raise UserError(
            f'--fix {out} cannot be completed: {error.filename}: {error.strerror}; make room, or '
            'name another folder',
            code='file.unwritable',
        ) from error


def _is_link_to(place: Path, folder: Path) -> bool:
    return place.is_symlink() and place.exists() and os.path.samefile(place, folder)
