"""Stand in for ``panopticapi``, which panoptic pipelines and scores of mmdet import.

That package is on no index: it is installed from its repository. mmdet takes five names of it, all
of them small; where nobody has installed it, this finder provides them, so that a panoptic config
runs without. As with :mod:`.mmcv_ext` the finder stands last: the real package is found first.

Panoptic quality is that of Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4: of the
pairs of segments whose IoU is above one half, the sum of IoUs over TP + FP / 2 + FN / 2.
Importing this module imports no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

OFFSET = 256**3
"""One more than the largest number that a color can stand for."""
VOID = 0
"""The number of pixels that are of no segment."""


def rgb2id(color: Any) -> Any:
    """Return the numbers that colors stand for: red + 256 green + 256**2 blue.

    Args:
        color: ... 3, integers 0 to 255, or three numbers.

    Returns:
        the number, or an array of the leading shape.
    """
    import numpy as np

    numbers = np.asarray(color).astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    return numbers if numbers.ndim else int(numbers)


def id2rgb(number: Any) -> np.ndarray | list[int]:
    """Return the colors that stand for numbers; the inverse of :func:`rgb2id`.

    Args:
        number: below ``OFFSET``, alone or in an array.

    Returns:
        three numbers, or a uint8 array of one more axis, of length 3.
    """
    import numpy as np

    parts = np.asarray(number)[..., None] // np.array([1, 256, 256**2]) % 256
    return parts.astype(np.uint8) if parts.ndim > 1 else parts.tolist()


@dataclass
class PQStatCat:
    """What was counted of one category.

    Attributes:
        iou: sum over matched segments.
        tp: matched segments.
        fp: predicted segments without a match.
        fn: true segments without a match.
    """

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: PQStatCat) -> PQStatCat:
        self.iou, self.tp = self.iou + other.iou, self.tp + other.tp
        self.fp, self.fn = self.fp + other.fp, self.fn + other.fn
        return self


class PQStat:
    """What was counted of every category, by id."""

    def __init__(self) -> None:
        self.pq_per_cat: dict[int, PQStatCat] = {}

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat.setdefault(category, PQStatCat())

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, counted in other.pq_per_cat.items():
            mine = self[category]
            mine += counted
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping[str, Any]], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Panoptic, segmentation and recognition quality, 0 to 1.

        Args:
            categories: their records by id.
            isthing: count only things, only stuff, or with None all.

        Returns:
            the averages over categories that occur, and ``n``, how many do; and the values of each
            category, zeros where it does not occur.
        """
        each: dict[int, dict[str, float]] = {}
        found: list[dict[str, float]] = []
        for category, record in categories.items():
            if isthing is not None and bool(record['isthing']) != isthing:
                continue
            one = self[category]
            weight = one.tp + one.fp / 2 + one.fn / 2
            each[category] = dict(
                pq=one.iou / weight if weight else 0.0,
                sq=one.iou / one.tp if one.tp else 0.0,
                rq=one.tp / weight if weight else 0.0,
            )
            if weight:
                found.append(each[category])
        mean = {
            key: sum(one[key] for one in found) / max(len(found), 1) for key in ('pq', 'sq', 'rq')
        }
        return {**mean, 'n': len(found)}, each


CONTENTS: dict[str, dict[str, Any]] = {
    'panopticapi': {},
    'panopticapi.utils': dict(rgb2id=rgb2id, id2rgb=id2rgb),
    'panopticapi.evaluation': dict(OFFSET=OFFSET, VOID=VOID, PQStat=PQStat, PQStatCat=PQStatCat),
}
"""Module -> what mmdet asks of it."""


class PanopticFinder(MetaPathFinder, Loader):
    """Find the stand-in; append an instance to ``sys.meta_path``, never put it before others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the package or of one of its two modules."""
        if fullname not in CONTENTS:
            return None
        return spec_from_loader(
            fullname, self, origin=__name__, is_package=fullname == 'panopticapi'
        )

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the names in place."""
        module.__doc__ = 'Stand-in for the module of panopticapi, by mmresnest.'
        vars(module).update(CONTENTS[module.__name__])
