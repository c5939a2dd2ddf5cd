"""Label images of a set: which values their pixels take."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .findings import Finding, make_finding
from .images import ImageFile, map_files, read_label_file

_CACHED_FROM = 1000

logger = logging.getLogger(__name__)


class LabelScan(NamedTuple):
    """What the label images of a set hold.

    Attributes:
        values: what their pixels hold -> the first mask that holds it.
        faults: the masks that cannot be read as such.
    """

    values: dict[int, Path]
    faults: dict[Path, ImageFile]

    def check(self) -> Iterator[Finding]:
        """Yield what is wrong with masks that cannot be read."""
        for path, seen in self.faults.items():
            if seen.fault == 'colours':
                kind, said = 'label-colours', f'the mask {path} {seen.why}'
            else:
                kind, said = 'label-unreadable', f'the mask {path} cannot be read: {seen.why}'
            yield make_finding(kind, said, example=path)


def scan_labels(masks: Sequence[Path], root: Path) -> LabelScan:
    """Read which values the pixels of masks take.

    Args:
        masks: image files of one channel.
        root: the folder the cache entry is named after; many masks are read once and remembered, as
            long as no file changes.
    """
    cache = _find_cache(masks, root) if len(masks) >= _CACHED_FROM else None
    if cache is not None and cache.is_file():
        try:
            held = json.loads(cache.read_text()).items()
            return LabelScan({int(value): Path(path) for value, path in held}, {})
        except (ValueError, OSError):
            logger.debug('the cache %s cannot be read, so the masks are', cache)
    scan = LabelScan({}, {})
    for mask, seen in zip(masks, map_files(read_label_file, masks, f'reading {len(masks)} masks')):
        if seen.fault:
            scan.faults[mask] = seen
        for value in seen.values:
            scan.values.setdefault(value, mask)
    if cache is not None and not scan.faults:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps({value: str(path) for value, path in scan.values.items()}))
        except OSError as error:
            logger.debug('the cache %s cannot be written: %s', cache, error)
    return scan


def _find_cache(masks: Sequence[Path], root: Path) -> Path:
    digest = hashlib.sha256()
    for mask in masks:
        stat = mask.stat()
        digest.update(f'{mask}\0{stat.st_size}\0{stat.st_mtime_ns}\n'.encode())
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return home / 'mmresnest' / f'{root.name}-{digest.hexdigest()[:16]}.json'
