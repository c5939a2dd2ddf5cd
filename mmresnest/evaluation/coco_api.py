"""COCO's annotations with ids that every evaluator takes.

pycocotools takes the id 0 of an annotation for "no match", cannot hold ids that are no numbers,
and sorts those of categories, so that the scores of classes go by other names where a file does
not have them in ascending order. faster-coco-eval reads ids as floating-point numbers of 53 bits.
Files in the wild number from 0, in any order, and carry floats, numeric text, UUIDs and numbers
beyond. So ids of another kind are replaced by numbers here, once, for both evaluators; what is
written out has them as they were given.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from mmdet.datasets.api_wrappers import COCO

LARGEST = 2**53
"""Up to here a floating-point number tells all whole ones apart."""


class IdNumbers:
    """Numbers for the ids of a list, in its order.

    Args:
        given: ids as they stand in the file.
        least: the smallest id that an evaluator takes. If all are whole numbers from there on, and
            differ, they keep their values.
        ascending: they do so only in ascending order.
    """

    def __init__(self, given: Sequence[Any], least: int, ascending: bool = False) -> None:
        self.changed = len({_as_key(one) for one in given}) < len(given) or not all(
            type(one) is int and least <= one <= LARGEST for one in given
        )
        self.changed = self.changed or (ascending and list(given) != sorted(given))
        numbers = range(1, len(given) + 1) if self.changed else given
        self.given = dict(zip(numbers, given))
        self.exact = {_as_key(one): number for number, one in self.given.items()}
        spelled = Counter(_spell(one) for one in given)
        self.spelled = {
            _spell(one): number for number, one in self.given.items() if spelled[_spell(one)] == 1
        }

    def find(self, given: Any) -> int | None:
        """Return the number of an id, which may be spelled as another type; None if it is new."""
        number = self.exact.get(_as_key(given))
        return self.spelled.get(_spell(given)) if number is None else number


def _as_key(given: Any) -> Any:
    """Return what a dictionary takes: ids of broken files may be lists."""
    return given if isinstance(given, (int, float, str)) else repr(given)


def _spell(given: Any) -> str:
    """Return an id as text: 3, 3.0 and '3' are one, where a file mixes them."""
    whole = isinstance(given, float) and given.is_integer()
    return str(int(given) if whole else given).strip()


class NumberedCOCO(COCO):
    """mmdet's ``COCO`` of a file, its ids numbered where an evaluator would not take them.

    Its results are given in the ids of the file. A list of none is evaluated as it is: pycocotools
    looks at the first one to see what they are, and fails where there is none.
    """

    images: IdNumbers
    categories: IdNumbers

    @classmethod
    def from_api(cls, api: COCO) -> NumberedCOCO:
        """Copy annotations that were read, with numbers for ids."""
        rows = {key: api.dataset.get(key) or [] for key in ('images', 'categories', 'annotations')}
        ids = {key: [row['id'] for row in several] for key, several in rows.items()}
        images, annotations = IdNumbers(ids['images'], 0), IdNumbers(ids['annotations'], 1)
        categories = IdNumbers(ids['categories'], 0, ascending=True)
        dataset = dict(api.dataset)
        if images.changed or categories.changed or annotations.changed:
            dataset.update(
                images=[dict(row, id=number) for number, row in zip(images.given, rows['images'])],
                categories=[
                    dict(row, id=number)
                    for number, row in zip(categories.given, rows['categories'])
                ],
                annotations=[
                    dict(
                        row,
                        id=number,
                        image_id=images.find(row['image_id']),
                        category_id=categories.find(row['category_id']),
                    )
                    for number, row in zip(annotations.given, rows['annotations'])
                ],
            )
        self = cls._from_dataset(dataset)
        self.images, self.categories = images, categories
        return self

    @classmethod
    def _from_dataset(cls, dataset: Mapping[str, Any]) -> NumberedCOCO:
        self = cls()
        self.dataset = dict(dataset)
        with redirect_stdout(io.StringIO()):  # as when the file is read
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs
        return self

    def loadRes(self, resFile: Any) -> COCO:  # noqa: N802, N803 - pycocotools' names
        """Return detections as an API of their own.

        Args:
            resFile: rows with ids as in the file, or what pycocotools takes otherwise.
        """
        if not isinstance(resFile, list):
            return super().loadRes(resFile)
        if not resFile:
            return self._from_dataset(dict(self.dataset, annotations=[]))
        if not (self.images.changed or self.categories.changed):
            return super().loadRes(resFile)
        return super().loadRes(
            [
                dict(
                    row,
                    image_id=self.images.find(row['image_id']),
                    category_id=self.categories.find(row['category_id']),
                )
                for row in resFile
            ]
        )
