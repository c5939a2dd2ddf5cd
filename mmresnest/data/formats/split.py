"""Divide images into training and validation: stratified by class, duplicates together.

Images are put aside one group of duplicates after the other, the rarest class first: among the
classes that the validation part still needs objects of, take that with the fewest images left, and
from its images that which brings the part nearest to the wanted share of all classes (iterative
stratification: Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011). Chance, by the seed, decides
between equals.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from ...errors import UserError
from ..checks.images import group_duplicates

_COMPARED = 200
"""Images, chosen by chance, of which the best is put aside: comparing all takes quadratic time."""


@dataclass(frozen=True)
class Division:
    """How a validation part is made.

    Attributes:
        share: of the images, between 0 and 1.
        seed: of what chance decides.
    """

    share: float
    seed: int = 0

    @classmethod
    def parse(cls, text: str | float) -> Division:
        """Read ``0.2`` or ``0.2:SEED``.

        Raises:
            UserError: no share between 0 and 1, or no seed.
        """
        share, colon, seed = str(text).partition(':')
        try:
            found = cls(float(share), int(seed) if colon else 0)
        except ValueError:
            found = cls(0)
        if not 0 < found.share < 1:
            raise UserError(
                f'--split {text}: write the share of the images that are put aside for '
                'validation, between 0 and 1, such as 0.2; a seed may follow, as in 0.2:1',
                code='option.value',
            )
        return found

    def __str__(self) -> str:
        return f'{self.share:g}' + (f':{self.seed}' if self.seed else '')


def choose_images(
    paths: Sequence[Path], contents: Sequence[Mapping[Hashable, int]], division: Division
) -> list[int]:
    """Return the positions of the images that are put aside for validation.

    Args:
        paths: the files.
        contents: for each of them, class -> how many objects it has.
        division: how many, and the seed.

    Raises:
        UserError: too few images to leave some in both parts.
    """
    groups = group_images(paths)
    wanted_images = division.share * len(paths)
    if len(groups) < 2:
        raise UserError(
            f'--split {division}: there are {len(paths)} images, {len(groups)} of them different, '
            'and both parts need one; give a folder with more',
            code='data.no-split',
        )
    order = list(range(len(groups)))
    random.Random(division.seed).shuffle(order)
    rank = {group: at for at, group in enumerate(order)}
    counts = [_add_up([contents[at] for at in group]) for group in groups]
    need = Counter({name: division.share * n for name, n in _add_up(counts).items()})
    has: defaultdict[Hashable, set[int]] = defaultdict(set)
    for group, found in enumerate(counts):
        for name in found:
            has[name].add(group)
    left, chosen = set(range(len(groups))), []
    taken_images = 0

    def count_gain(group: int) -> tuple[float, int]:
        """Return by how much a group brings the part nearer to what it needs."""
        gain = sum(
            (abs(need[name]) - abs(need[name] - number)) / max(total[name], 1)
            for name, number in counts[group].items()
        )
        return gain, -rank[group]

    total = _add_up(counts)
    while taken_images + 0.5 <= wanted_images and len(left) > 1:
        open_names = [name for name in has if need[name] >= 0.5 and has[name]]
        if open_names:
            name = min(open_names, key=lambda one: (len(has[one]), str(one)))
            # An only group of a class stays in training, where it can be learned.
            pool = has[name] if len(has[name]) > 1 or total[name] == 0 else set()
            if not pool:
                need[name] = 0
                continue
        else:
            pool = left
        best = max(nsmallest(_COMPARED, pool, key=rank.__getitem__), key=count_gain)
        left.discard(best)
        for name in counts[best]:
            has[name].discard(best)
            need[name] -= counts[best][name]
        chosen.append(best)
        taken_images += len(groups[best])
    if not chosen:
        chosen = [max(left, key=count_gain)]
    return sorted(at for group in chosen for at in groups[group])


def group_images(paths: Sequence[Path]) -> list[list[int]]:
    """Return the positions of images that belong together, each group in order.

    Equal files do, and the augmented copies that Roboflow names ``NAME.rf.HASH.jpg``.
    """
    groups: list[list[int]] = []
    known: dict[tuple[Path, str], list[int]] = {}
    for same in group_duplicates(paths):
        keys = {
            (paths[at].parent, paths[at].name.partition('.rf.')[0])
            for at in same
            if '.rf.' in paths[at].name
        }
        found = [known[key] for key in keys if key in known]
        group = found[0] if found else []
        for other in found[1:]:
            if other is not group:
                group += other
                groups = [one for one in groups if one is not other]
                known.update({key: group for key, one in known.items() if one is other})
        group += same
        known.update(dict.fromkeys(keys, group))
        if not found:
            groups.append(group)
    return [sorted(group) for group in groups]


def _add_up(rows: Sequence[Mapping[Hashable, int]]) -> Counter[Hashable]:
    total: Counter[Hashable] = Counter()
    for row in rows:
        total.update(row)
    return total
