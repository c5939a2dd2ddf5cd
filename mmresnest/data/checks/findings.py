"""What can be wrong with data: the table of kinds, and one finding of a kind.

The checks before a run and the audit of ``mmresnest check-data`` speak in findings; the former stop
at the first that a run cannot bear, the latter collects all.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UserError

ERROR, WARNING = 'error', 'warning'


@dataclass(frozen=True)
class Kind:
    """One way in which data can be wrong.

    Attributes:
        says: what is wrong, behind the number of rows or files; empty where every finding has
            words of its own.
        remedy: what to do; likewise.
        severity: ``error`` where scores or weights suffer, ``warning`` where it may be meant.
        stops: whether a run is refused: it would end in a traceback, or learn other classes than
            the config names.
        repair: how ``--fix`` mends it: a name in :mod:`mmresnest.data.checks.repair`.
    """

    says: str = ''
    remedy: str = ''
    severity: str = ERROR
    stops: bool = False
    repair: str = ''


_EXPORT = 'export the file again'
_DROPPED = '--fix drops them'
_FILES = 'put the files there again; --fix drops the images that were looked at'
_POLYGONS = '--fix drops such polygons'
_RELABEL = 'write the masks again with one channel of class indices'

# fmt: off
KINDS: dict[str, Kind] = {
    # ---- classes of the config
    'class-list': Kind(stops=True),
    'class-twice': Kind(stops=True),
    'class-misspelt': Kind(stops=True),
    'class-missing': Kind(stops=True),
    'class-order': Kind(stops=True),
    'class-unknown': Kind(stops=True),
    'class-extra': Kind(severity=WARNING),
    'split-order': Kind(stops=True),
    'head-classes': Kind(stops=True),
    'thing-classes': Kind(stops=True),
    'thing-order': Kind(stops=True),
    # ---- lists, fields and ids of an annotation file
    'list-missing': Kind(stops=True),
    'field-missing': Kind(stops=True, repair='drop'),
    'area-missing': Kind(stops=True, repair='area'),
    'iscrowd-missing': Kind(stops=True, repair='iscrowd'),
    'annotation-kind': Kind(stops=True),
    'id-type': Kind('have an "id" that is no number and no text', 'number them', stops=True,
                    repair='renumber'),
    'id-zero': Kind('have the "id" 0, which pycocotools takes for no match when it scores',
                    'number annotations from 1, as --fix does', WARNING, repair='renumber'),
    'name-type': Kind('have a name that is no text', 'write it in quotes', stops=True),
    'size-type': Kind('have a width or height that is no positive whole number',
                      "write the image's size in pixels", stops=True),
    'image-twice': Kind('have an "id" that an image before them has', '--fix drops the later rows',
                        stops=True, repair='drop'),
    'image-id-shared': Kind('have the "id" of an image before them that is another file',
                            'give each its own, in the annotations too', stops=True),
    'annotation-twice': Kind('have an "id" that an annotation before them has',
                             '--fix gives them new ones', stops=True, repair='renumber'),
    'category-twice': Kind('have an "id" that a category before them has',
                           'give each its own, in the annotations too', stops=True),
    'category-name-twice': Kind('have a name that a category before them has',
                                'give each its own, or merge them', stops=True),
    'file-twice': Kind('have a "file_name" that an image before them has',
                       'list each file once, with all of its annotations', WARNING),
    'name-outside': Kind('have a "file_name" that is absolute or leads out of the folder',
                         'write it relative to the folder of the images', WARNING),
    'link-type': Kind('have an "image_id" or "category_id" that is no number and no text', _DROPPED,
                      stops=True, repair='drop'),
    'image-unknown': Kind('have an "image_id" that no image has, and are passed over', _DROPPED,
                          repair='drop'),
    'category-unknown': Kind('have a "category_id" that no category has, and are passed over',
                             f'add the category, or {_DROPPED}', repair='drop'),
    'category-gap': Kind('ids are left out between the first and the last category',
                         'nothing, if that is meant: labels are positions in the list', WARNING),
    'set-empty': Kind(stops=True),
    # ---- boxes
    'box-type': Kind('have a "bbox" that is no list of four numbers [x, y, width, height]',
                     _DROPPED, stops=True, repair='drop'),
    'box-nonfinite': Kind('have a "bbox" with a number that is not finite', _DROPPED,
                          repair='drop'),
    'box-empty': Kind('have a "bbox" without area (width or height <= 0)',
                      f'draw them again, or {_DROPPED}', repair='drop'),
    'box-small': Kind('have a "bbox" narrower or lower than a pixel, and are passed over', _DROPPED,
                      WARNING, repair='drop'),
    'box-outside': Kind('have a "bbox" outside of the image',
                        f'see whether the image is the right one, or {_DROPPED}', repair='drop'),
    'box-partly': Kind('have a "bbox" that reaches beyond the image', '--fix clips them', WARNING,
                       repair='clip'),
    'box-huge': Kind('have a "bbox" more than four times as wide or high as the image',
                     f'see whether boxes and images are of the same scale, or {_DROPPED}',
                     repair='drop'),
    'box-normalised': Kind('all have a "bbox" within 0 and 1: shares of the image and not pixels',
                           'multiply x and width by the width of the image, y and height by its '
                           'height'),
    'box-corners': Kind('all have a "bbox" that reads like corners [x0, y0, x1, y1]',
                        'write [x, y, width, height]'),
    'area-type': Kind('have an "area" that is no finite number', '--fix writes width * height',
                      stops=True, repair='area'),
    'area-negative': Kind('have an "area" <= 0, and are passed over', '--fix writes width * height',
                          repair='area'),
    'area-large': Kind('have an "area" larger than their "bbox"',
                       'write the area of the mask, or width * height; it sorts scores by size',
                       WARNING),
    'iscrowd-value': Kind('have an "iscrowd" other than 0 and 1', '--fix writes 0 or 1',
                          repair='iscrowd'),
    # ---- instance masks
    'mask-missing': Kind(stops=True, repair='drop'),
    'mask-form': Kind(stops=True),
    'mask-type': Kind('have a "segmentation" that is neither a list of polygons nor run lengths',
                      _DROPPED, repair='mask'),
    'mask-odd': Kind('have a polygon with an odd number of coordinates', _POLYGONS,
                     repair='polygons'),
    'mask-points': Kind('have a polygon of fewer than three points', _POLYGONS, repair='polygons'),
    'mask-number': Kind('have a polygon with a coordinate that is no finite number', _POLYGONS,
                        repair='polygons'),
    'mask-rle': Kind('have run lengths that cannot be read', _DROPPED, repair='mask'),
    'mask-size': Kind('have run lengths of another size than the image', _DROPPED, repair='mask'),
    'mask-empty': Kind('have a "segmentation" without any pixel', _DROPPED, repair='mask'),
    'mask-far': Kind('have a "segmentation" that reaches out of their "bbox"',
                     'see whether both are of the same object', WARNING),
    'segments-type': Kind('have a "segments_info" that is no list',
                          'list the segments of the image', stops=True),
    'segment-category': Kind(stops=True),
    'segment-ids': Kind('hold other colours than "segments_info" of the image lists',
                        'write mask and list again from the same source'),
    # ---- image files
    'image-missing': Kind(stops=True, repair='drop'),
    'image-empty': Kind('are files of no bytes', _FILES, repair='drop'),
    'image-unreadable': Kind('cannot be read as images', _FILES, repair='drop'),
    'image-truncated': Kind('are cut off', _FILES, repair='drop'),
    'image-size': Kind('have another size than annotated',
                       'annotate the files that are there, or correct width and height, before '
                       'anything else is mended'),
    'image-turned': Kind('are annotated as they lie in the file, and are turned when they are read '
                         '(EXIF)', 'annotate them as shown, or take the EXIF orientation out'),
    'leak': Kind(severity=WARNING),
    # ---- label images
    'dataset-settings': Kind(stops=True),
    'images-none': Kind(stops=True),
    'label-missing': Kind(stops=True),
    'label-suffix': Kind(stops=True),
    'label-reduce': Kind(stops=True),
    'label-unreadable': Kind(remedy='write the mask again', stops=True),
    'label-colours': Kind(remedy=_RELABEL, stops=True),
    'label-value': Kind(stops=True),
    'label-size': Kind('have another size than their image', 'make each from its image again'),
    'label-ignored': Kind('hold nothing but the value that is left out', 'leave such images out, '
                          'or label them', WARNING),
}
# fmt: on
"""Every kind of finding, by its name."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with the data.

    Attributes:
        kind: a name of ``KINDS``.
        said: what is wrong and where, with an example.
        remedy: what to do.
        severity: ``error`` or ``warning``.
        count: how many rows or files are concerned.
        example: the first of them.
        place: the list of the annotation file the rows stand in, if they do.
        rows: their positions there.
    """

    kind: str
    said: str
    remedy: str
    severity: str
    count: int = 1
    example: str = ''
    place: str = ''
    rows: Sequence[int] = ()

    @property
    def stops(self) -> bool:
        """Whether a run is refused for it."""
        return self.severity == ERROR and KINDS[self.kind].stops

    @property
    def message(self) -> str:
        """All of it in a sentence."""
        return f'{self.said}; {self.remedy}'


def finding(kind: str, said: str, remedy: str = '', *, severity: str = '', **more: Any) -> Finding:
    """A finding in words of its own; what is left out is the kind's."""
    row = KINDS[kind]
    more['example'] = _printable(more.get('example', ''))
    return Finding(
        kind, _printable(said), _printable(remedy or row.remedy), severity or row.severity, **more
    )


def of_rows(
    kind: str,
    where: Any,
    place: str,
    rows: Sequence[int],
    total: int,
    example: Any,
    *,
    severity: str = '',
) -> Finding:
    """A finding in the words of the table, about rows of a list or files of a set."""
    shown = brief(example)
    said = f'{where}: {len(rows)} of {total} {place} {KINDS[kind].says}, such as {shown}'
    return finding(
        kind, said, severity=severity, count=len(rows), example=shown, place=place, rows=rows
    )


_SHORT = reprlib.Repr()
_SHORT.maxdict = _SHORT.maxlist = 8
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3


def brief(value: Any, most: int = 160) -> str:
    """A value for a message: short, printable, whatever it is."""
    return _printable((value if isinstance(value, str) else _SHORT.repr(value))[:most])


def _printable(text: str) -> str:
    """A text of which a terminal shows every letter: json can hold halves of letters, too."""
    return (
        text
        if text.isprintable()
        else ''.join(
            letter if letter.isprintable() else letter.encode('unicode_escape').decode()
            for letter in text
        )
    )


def raise_first(findings: Iterable[Finding]) -> None:
    """Refuses what a run cannot bear.

    Raises:
        UserError: the first finding that stops a run.
    """
    for one in findings:
        if one.stops:
            raise UserError(one.message)
