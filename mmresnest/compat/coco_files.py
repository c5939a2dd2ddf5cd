"""The reading of COCO's annotation files by mmdet."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any


def patch_coco_api(module: ModuleType) -> None:
    """Have mmdet's ``COCO`` read a file as our checks do.

    Data sets and metrics of mmdet, those derived from them, and panoptic ones all read by this
    class. pycocotools, which it leaves that to, stops at a byte order mark, and takes the values as
    they are: an ``iscrowd`` of ``"0"`` for true, a ``category_id`` of ``"3"`` for none of the
    categories, a text for an area. :mod:`mmresnest.data.checks.mend` says what is read as what.
    """
    theirs = module.COCO.__init__

    def __init__(self: Any, annotation_file: Any = None) -> None:
        theirs(self)
        if annotation_file is not None:
            from ..data.json_files import read_coco_file

            self.dataset, _ = read_coco_file(Path(annotation_file))
            for name in ('categories', 'annotations'):  # images alone are predicted on, too
                self.dataset.setdefault(name, [])
            with redirect_stdout(io.StringIO()):  # pycocotools prints that it begins and ends
                self.createIndex()
            self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    module.COCO.__init__ = __init__
