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
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ...data.checks.findings import Finding, raise_first
from ...data.checks.mend import mend_table
from ...data.checks.panoptic import check_masks
from ...data.checks.repair import is_repairable
from ...data.json_files import peek_json, read_coco_file
from .classes import check_splits
from .coco import HEADERS, check_listed_images, check_table
from .part import SAMPLED, Part, list_parts
from .semantic import check_label_images

TOLD = ('value-mended', *HEADERS)
"""Warnings that a run gives, too."""

SMALL = 2**26
"""Bytes of an annotation file that is read whole; of a larger one, the beginnings of its lists."""


def check_annotations(
    cfg: Config,
    splits: tuple[str, ...],
    data: str | os.PathLike | None = None,
    demo: bool | None = None,
) -> None:
    """Make sure that heads, data sets and annotation files speak of the same classes.

    Checks ``CocoDataset`` and ``CocoPanopticDataset`` of mmdet and the data sets of mmseg; others
    are left to themselves. Needs the packages registered and the paths checked.

    Args:
        cfg: the config.
        splits: the parts of the data that will be read.
        data: the folder that they come from, if they come from one.
        demo: whether they are the embedded data set.

    Raises:
        UserError: with file, field and remedy.
    """
    parts = list(list_parts(cfg, splits, in_folder=bool(demo or data)))
    for part in parts:
        borne = []
        for one in check_part(part):
            raise_first([one])
            borne += [one] if one.is_error or one.kind in TOLD else []
        if borne:
            fixable = part.kind == 'coco' and any(map(is_repairable, borne))
            print_log(
                f'{"; ".join(one.said for one in borne)}. `mmresnest check-data '
                f'{cfg.filename or "CONFIG"}` says more'
                + (', and with --fix OUT writes a mended file' if fixable else ''),
                'current',
                logging.WARNING,
            )
    raise_first(check_splits(parts))


def check_part(part: Part) -> Iterator[Finding]:
    """Yield what can be found before a run, in a second or so however large the data are."""
    if part.kind == 'semantic':
        yield from check_label_images(part)
    elif part.kind:
        if part.path.stat().st_size > SMALL:
            try:
                table, _ = mend_table(part.path, peek_json(part.path, SAMPLED))
                if not any(one.stops for one in _check_file(part, table, whole=False)):
                    return
            except ValueError:  # what stands there is no list of rows
                pass
            print_log(f'reading all of {part.path} to see what is wrong with it', 'current')
        table, mended = read_coco_file(part.path)
        yield from mended
        yield from _check_file(part, table, whole=True)


def _check_file(part: Part, table: dict[str, Any], whole: bool) -> Iterator[Finding]:
    yield from check_table(part, table, whole)
    yield from check_listed_images(part, table)
    if part.kind == 'panoptic' and table.get('annotations'):
        yield from check_masks(part.path, table, part.folder('seg'), SAMPLED)
