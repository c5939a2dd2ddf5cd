"""What can be wrong with data: the table of kinds, and one finding of a kind.

The checks before a run and the audit of ``mmresnest check-data`` speak in findings; the former stop
at the first that a run cannot bear, the latter collects all.
"""

from __future__ import annotations

import reprlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ...errors import UserError

Read = TypeVar('Read')

ERROR, WARNING = 'error', 'warning'


@dataclass(frozen=True)
class Kind:
    """One way in which data can be wrong.

    Attributes:
        says: what is wrong: of rows and files what follows their number, otherwise a sentence with
            fields for :func:`make_finding`; empty where every finding has words of its own.
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
_RELABEL = (
    'write the masks again with one channel of class indices, or give --data DIR with '
    '--mask-values and the class of each color or value, as in 0:0:0=background,128:0:0=plane'
)

# fmt: off
KINDS: dict[str, Kind] = {
    # classes of the config
    'class-list': Kind('metainfo.{key} of {where} is the string {value!r}, which would be taken '
                       'for the names {letters} ...',
                       'write a list, for one class with a comma: ({value!r},). It may also be a '
                       'file with one name a line, and there is none of this name', stops=True),
    'class-twice': Kind('metainfo.classes of {where} names {names} more than once',
                        'name each class once', stops=True),
    'class-misspelt': Kind(stops=True),
    'class-missing': Kind(stops=True),
    'class-order': Kind('metainfo.classes of {where} and {path} name classes in different orders. '
                        'Labels follow the file and names the config, so that {ours!r} would be '
                        'called {theirs!r}', '{line}', stops=True),
    'class-unknown': Kind('metainfo.classes of {where} names {names} that {type} lacks, which has '
                          '{known}; {near}', 'for classes of your own take type=BaseSegDataset',
                          stops=True),
    'class-extra': Kind('{path} has {names} that {where} does not read',
                        'nothing, if that is meant; otherwise {line}', WARNING),
    'split-order': Kind('{second} reads {theirs} as label {label}, and {first} {ours}: what is '
                        'learnt as the one would be scored as the other',
                        'give both the same metainfo, and their files the same order of '
                        'categories', stops=True),
    'head-classes': Kind('{head}.{key} is {number}, and must be {wanted}: {reason}', '{line}',
                         stops=True),
    'thing-classes': Kind('metainfo.thing_classes of {where} names {names}, and by "isthing" of '
                          '{path} they are {things}', 'name those', stops=True),
    'thing-order': Kind('{path}: the categories must list all things (isthing 1) before all stuff '
                        '(isthing 0), and {stuff} stands before {thing}', 'reorder the list',
                        stops=True),
    # lists, fields and ids of an annotation file
    'list-missing': Kind('{path}: the list {name!r} {what}, so there is nothing to '
                         '{purpose}', 'export the file again{or_name}', stops=True),
    'categories-differ': Kind('the categories of {first} and {second} differ: entry {entry} is '
                              '{ours} in the one and {theirs} in the other',
                              'copy the categories list of {first} into {second}, and correct the '
                              'category_id of its annotations if they change', stops=True),
    'field-missing': Kind(stops=True, repair='drop'),
    'area-missing': Kind(stops=True, repair='area'),
    'iscrowd-missing': Kind(stops=True, repair='iscrowd'),
    'annotation-kind': Kind('{path} has panoptic annotations ("segments_info"), and {where} reads '
                            'boxes', 'name an instances file in ann_file, or choose a config for '
                            'panoptic segmentation, such as panoptic_fpn_resnest50_fpn',
                            stops=True),
    'id-type': Kind('have an "id" that is no number and no text', 'number them', stops=True,
                    repair='renumber'),
    'id-zero': Kind('have the "id" 0, which pycocotools by itself takes for no match; here it is '
                    'read as another', 'nothing, unless other programs score by this file; --fix '
                    'numbers annotations from 1', WARNING, repair='renumber'),
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
    'category-gap': Kind('{path}: {left} ids are left out between the first and the last category, '
                         'such as {free}',
                         'nothing, if that is meant: labels are positions in the list', WARNING),
    'set-empty': Kind('{path}: filter_cfg of {where} leaves none of {count} images: none is at '
                      'least {least} pixels wide and high{with_object}',
                      'lower min_size, or correct classes and annotations', stops=True),
    'value-mended': Kind('{path}: {count} of {total} {name} have a "{key}" that is {was}, and is '
                         'read as {read}', 'write it so, as --fix does', WARNING),
    'objects-none': Kind('{path}: none of {total} annotations can be {purpose}: {reasons}',
                         '{advice}', stops=True),
    # boxes
    'box-type': Kind('have a "bbox" that is no list of four numbers [x, y, width, height]',
                     _DROPPED, stops=True, repair='drop'),
    'box-nonfinite': Kind('have a "bbox" with a number that is not finite', _DROPPED, stops=True,
                          repair='drop'),
    'box-empty': Kind('have a "bbox" without area (width or height <= 0)',
                      f'draw them again, or {_DROPPED}', repair='drop'),
    'box-small': Kind('have a "bbox" narrower or lower than a pixel, and are passed over', _DROPPED,
                      WARNING, repair='drop'),
    'box-repeated': Kind('are another object of their image once more: a model cannot find both',
                         _DROPPED, WARNING, repair='drop'),
    'box-outside': Kind('have a "bbox" outside of the image',
                        f'see whether the image is the right one, or {_DROPPED}', repair='drop'),
    'box-partly': Kind('have a "bbox" that reaches beyond the image', '--fix clips them', WARNING,
                       repair='clip'),
    'box-huge': Kind('have a "bbox" more than four times as wide or high as the image',
                     f'see whether boxes and images are of the same scale, or {_DROPPED}',
                     repair='drop'),
    'box-normalised': Kind('all have a "bbox" within 0 and 1: shares of the image and not pixels',
                           'multiply x and width by the width of the image, y and height by its '
                           'height', stops=True),
    'box-corners': Kind('all have a "bbox" that reads like corners [x0, y0, x1, y1]',
                        'write [x, y, width, height]', stops=True),
    'area-type': Kind('have an "area" that is no finite number', '--fix writes width * height',
                      stops=True, repair='area'),
    'area-negative': Kind('have an "area" <= 0, and are passed over, in scores too',
                          '--fix writes width * height', stops=True, repair='area'),
    'area-large': Kind('have an "area" larger than their "bbox"',
                       'write the area of the mask, or width * height; it sorts scores by size',
                       WARNING),
    'iscrowd-value': Kind('have an "iscrowd" other than 0 and 1', '--fix writes 0 or 1', stops=True,
                          repair='iscrowd'),
    # instance masks
    'mask-missing': Kind('have no "segmentation"',
                         'add the masks, which {config} learns, or choose a config that needs '
                         'boxes only, such as '
                         'faster_rcnn_resnest50_fpn; --fix drops the annotations', stops=True,
                         repair='drop'),
    'mask-form': Kind('have run lengths for a mask, and step {step} of the pipeline of {dataset} '
                      'reads polygons only (poly2mask=False), so that they are passed over',
                      'set poly2mask=True there, or give --data DIR, which does', stops=True),
    'mask-type': Kind('have a "segmentation" that is neither a list of polygons nor run lengths',
                      _DROPPED, stops=True, repair='mask'),
    'mask-odd': Kind('have a polygon with an odd number of coordinates', _POLYGONS, stops=True,
                     repair='polygons'),
    'mask-points': Kind('have a polygon of fewer than three points', _POLYGONS, stops=True,
                        repair='polygons'),
    'mask-number': Kind('have a polygon with a coordinate that is no finite number', _POLYGONS,
                        stops=True, repair='polygons'),
    'mask-rle': Kind('have run lengths that cannot be read', _DROPPED, stops=True, repair='mask'),
    'mask-size': Kind('have run lengths of another size than the image', _DROPPED, stops=True,
                      repair='mask'),
    'mask-empty': Kind('have a "segmentation" without any pixel', _DROPPED, repair='mask'),
    'mask-far': Kind('have a "segmentation" that reaches out of their "bbox"',
                     'see whether both are of the same object', WARNING),
    'segments-type': Kind('have a "segments_info" that is no list',
                          'list the segments of the image', stops=True),
    'segment-category': Kind('{path}: the segment {id} of image {image} has category_id '
                             '{category}, which is not among the categories {known}',
                             'add it there', stops=True),
    'segment-ids': Kind('hold other colours than "segments_info" of the image lists',
                        'write mask and list again from the same source'),
    # image files
    'image-missing': Kind('{path} lists images of which {count} of {total} looked for do not '
                          'exist, such as {example}',
                          'put them there, or correct {setting}{hint}', stops=True,
                          repair='drop'),
    'image-empty': Kind('are files of no bytes', _FILES, repair='drop'),
    'image-unreadable': Kind('cannot be read as images', _FILES, repair='drop'),
    'image-truncated': Kind('are cut off', _FILES, repair='drop'),
    'image-size': Kind('have another size than annotated',
                       'annotate the files that are there, or correct width and height, before '
                       'anything else is corrected', stops=True),
    'image-turned': Kind('are annotated as they lie in the file, or with width and height swapped, '
                         'and are turned when they are read (EXIF)', 'annotate them as shown, or '
                         'take the EXIF orientation out', stops=True),
    'image-oriented': Kind('carry an EXIF orientation, by which they are turned or mirrored when '
                           'they are read', 'nothing if they are annotated as shown; otherwise '
                           'take the orientation out of the files', WARNING),
    'image-dark': Kind('use 12 of 16 bits or less, and are read nearly black: the upper 8 are kept',
                       'scale their values to 16 bits, or write them with 8', WARNING),
    'leak': Kind('{count} of {total} images of {split} are also in {other}, such as {example}, '
                 'which is {same}', 'take them out of one of the two: scores of what was learnt by '
                 'heart say nothing', WARNING),
    # label images
    'dataset-settings': Kind('{where} cannot be built: {error}', 'correct its settings',
                             stops=True),
    'images-none': Kind('no images in {folder} with names ending in {suffix}',
                        'correct {setting}', stops=True),
    'images-mixed': Kind('the images of {folder} are of several kinds ({kinds})',
                         'convert them to one', stops=True),
    'labels-none': Kind(stops=True),
    'label-missing': Kind(stops=True),
    'label-suffix': Kind('none of {total} masks looked for exists, such as {example}, and beside '
                         'it is {near}', 'write seg_map_suffix={suffix!r} in {where}', stops=True),
    'label-suffixes': Kind('images and masks end in {ours} in train, and in {theirs} in {split} '
                           '({folder})', 'use the same in all', stops=True),
    'label-reduce': Kind('reduce_zero_label is {data} in {where} and {step} in LoadAnnotations of '
                         'its pipeline', 'leave it out of the pipeline', stops=True),
    'label-unreadable': Kind(remedy='write the mask again', stops=True),
    'label-colours': Kind(remedy=_RELABEL, stops=True),
    'label-value': Kind(stops=True),
    'label-pattern': Kind('the masks of {folder} hold the values {values} (as {example}): gray '
                          'levels, no class indices, and 255 is ignored in training',
                          'say what they stand for: --mask-values {mapping}', stops=True),
    'label-single': Kind('the masks of {folder} know one class only ({name}), so that every pixel '
                         'is right whatever is learned', 'give what is around the objects a value '
                         'of its own, and name both in classes.txt', stops=True),
    'label-far': Kind('the masks of {folder} hold the values {values}: that looks like colours '
                      '(such as {example})', 'a pixel must hold the index of its class, 0, 1, 2 '
                      '...', stops=True),
    'label-shifted': Kind('the masks of {folder} hold the values 1 to {last}, and never 0, the '
                          'first class', 'if 1 stands for the first class, give --mask-values '
                          '{mapping}', stops=True),
    'names-twice': Kind('{path} names {name!r} {count} times', 'give each class its own name',
                        stops=True),
    'names-numbered': Kind('{path} has numbers before the names, {numbers}, and a line stands for '
                           'the value 0, 1, 2 ... in this order', 'write the names alone, in the '
                           'order of the values', stops=True),
    'labels-ignored': Kind('the masks of {folder} hold nothing but {value}, which is left out',
                           'label the images', stops=True),
    'label-size': Kind('have another size than their image', 'make each from its image again',
                       stops=True),
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
    def is_error(self) -> bool:
        """Whether scores or weights suffer."""
        return self.severity == ERROR

    @property
    def stops(self) -> bool:
        """Whether a run is refused for it."""
        return self.is_error and KINDS[self.kind].stops

    @property
    def message(self) -> str:
        """All of it in a sentence."""
        return f'{self.said}; {self.remedy}'

    def to_error(self) -> UserError:
        """Return the error that refuses data for it."""
        return UserError(self.message, code=f'data.{self.kind}')


def make_finding(
    kind: str,
    said: str = '',
    remedy: str = '',
    *,
    severity: str = '',
    count: int = 1,
    example: Any = '',
    place: str = '',
    rows: Sequence[int] = (),
    **facts: Any,
) -> Finding:
    """Return a finding in the words of its kind, which name the facts, or in words of its own."""
    row = KINDS[kind]
    facts |= dict(count=count, example=example)
    said, remedy = said or row.says.format(**facts), remedy or row.remedy.format(**facts)
    return Finding(
        kind,
        _escape(said),
        _escape(remedy),
        severity or row.severity,
        count,
        _escape(str(example)),
        place,
        rows,
    )


def make_rows_finding(
    kind: str,
    where: Any,
    place: str,
    rows: Sequence[int],
    total: int,
    example: Any,
    *,
    severity: str = '',
    **facts: Any,
) -> Finding:
    """Return a finding about rows of a list, or about files of a set."""
    shown = shorten(example)
    says = KINDS[kind].says.format(**facts) if facts else KINDS[kind].says
    said = f'{where}: {len(rows)} of {total} {place} {says}, such as {shown}'
    return make_finding(
        kind,
        said,
        severity=severity,
        count=len(rows),
        example=shown,
        place=place,
        rows=rows,
        **facts,
    )


_SHORT = reprlib.Repr()
_SHORT.maxdict = _SHORT.maxlist = 8
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3


def shorten(value: Any, most: int = 160) -> str:
    """Return a value for a message: short, printable, whatever it is."""
    return _escape((value if isinstance(value, str) else _SHORT.repr(value))[:most])


def _escape(text: str) -> str:
    """Return a text of which a terminal shows every letter: json can hold halves of letters."""
    if text.isprintable():
        return text
    return ''.join(
        letter if letter.isprintable() else letter.encode('unicode_escape').decode()
        for letter in text
    )


def finish_reading(reading: Generator[Finding, None, Read]) -> Read:
    """Return what a reader reads, which yields findings on the way.

    Raises:
        UserError: the first finding that is an error.
    """
    while True:
        try:
            found = next(reading)
        except StopIteration as end:
            return end.value
        if found.is_error:
            raise found.to_error()


def raise_first(findings: Iterable[Finding]) -> None:
    """Refuse what a run cannot bear.

    Raises:
        UserError: the first finding that stops a run.
    """
    for one in findings:
        if one.stops:
            raise one.to_error()
