"""Which trunk a kind of network has, for all that builds one from a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .blocks import KINDS
from .dla import TREES, DLATrunk
from .trunk import ResTrunk, Trunk

#: kind of a network -> its trunk, built from the kind, the depths and further arguments
TRUNKS: dict[str, Callable[..., Trunk]] = {
    **dict.fromkeys(KINDS, ResTrunk),
    **dict.fromkeys(TREES, DLATrunk),
}


def build_trunk(kind: str, depths: Sequence[int], **arguments: Any) -> Trunk:
    """Build what ``Variant.trunk`` describes."""
    return TRUNKS[kind](kind, depths, **arguments)
