"""What the parts are made of: items, each with a name and a function that returns figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A part of the check.

    Attributes:
        name: equality, speed or training.
        module: with ``list_items(plan)``.
        share: of the time; what it leaves is the next part's.
    """

    name: str
    module: str
    share: float


PARTS = tuple(
    Part(name, f'{__package__}.{name}', seconds / 480)
    for name, seconds in (('equality', 110), ('speed', 195), ('training', 160))
)
"""Starting the processes included; 15 s are left for an end that is late, and the page."""
BUDGET, TOY_BUDGET = 480.0, 3600.0


@dataclass(frozen=True)
class CheckPlan:
    """What is checked, and where.

    Attributes:
        out: the folder of the results, which does not exist yet.
        device: ``cuda``, or ``cpu`` for toy sizes.
        toy: small images and few rounds, to try the check itself.
        data: a folder of images and annotations to train on; the embedded data set if None.
        budget: seconds of the whole; at toy sizes the check is tried, and has its time.
        parts: of the check, in order.
    """

    out: Path
    device: str = 'cuda'
    toy: bool = False
    data: str | None = None
    budget: float = BUDGET
    parts: tuple[Part, ...] = PARTS

    @property
    def backend(self) -> str:
        """The backend of ``torch.compile``: at toy sizes one that needs no compiler."""
        return 'eager' if self.toy else 'inductor'


class ItemRun:
    """One run of an item: how long it may take, and where its figures go.

    Args:
        file: of the records, which is appended to.
        part, item: their names.
        until: end of the time, by ``time.monotonic``.
    """

    def __init__(self, file: Path, part: str, item: str, until: float) -> None:
        self.file, self.part, self.item, self.until = file, part, item, until

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.until - time.monotonic()

    def write_record(self, event: str, **values: Any) -> None:
        """Append a record, so that it is there whatever happens next."""
        with open(self.file, 'a', encoding='utf-8') as file:
            record = dict(event=event, part=self.part, item=self.item, **values)
            file.write(json.dumps(record) + '\n')

    def note_values(self, values: dict[str, Any]) -> None:
        """Record figures that hold even if the item does not come to its end."""
        self.write_record('values', values=values)


class CheckFailed(Exception):
    """Something differs by more than its tolerance.

    Args:
        message: what, and by how much.
        values: the figures.
    """

    def __init__(self, message: str, values: dict[str, Any]) -> None:
        super().__init__(message)
        self.values = values


class LeftOut(Exception):
    """An item cannot be run here; the message says why."""


class Item(NamedTuple):
    """One check or measurement.

    Attributes:
        name: within its part.
        run: returns figures; raises ``CheckFailed`` or ``LeftOut``.
        weight: its share of the time that is left, relative to the items after it; None for an
            item of seconds, which is not told how long it may take.
    """

    name: str
    run: Callable[[ItemRun], dict[str, Any]]
    weight: float | None = None


def release_memory() -> bool:
    """Free what is kept for later, and return whether the device still does what it is told."""
    import gc

    import torch

    gc.collect()
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True
