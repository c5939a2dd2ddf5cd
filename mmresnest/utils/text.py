"""Names and texts in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SINGULAR = {'classes': 'class', 'categories': 'category'}


CONTROL = re.compile(
    '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]'
)
"""Characters that move a terminal's cursor, run its commands, turn the order of a line, or cannot
be written, other than new lines and tabs."""


def printable(text: object) -> str:
    """Return a text with control characters escaped, as a terminal or a log may have it.

    Names of files, classes and weights are given by whoever made the files.
    """
    return CONTROL.sub(lambda found: found[0].encode('unicode_escape').decode(), str(text))


def format_some(names: Sequence[str], count: int = 8) -> str:
    """Return the first ``count`` names, and how many more there are: ``a, b and 2 more``."""
    rest = len(names) - count
    return ', '.join(names[:count]) + (f' and {rest} more' if rest > 0 else '')


def format_count(names: Iterable[str], what: str = 'classes', count: int = 5) -> str:
    """Return how many names there are, and the first of them: ``3 classes (a, b, ...)``."""
    names = list(names)
    noun = what if len(names) != 1 else SINGULAR[what]
    return f'{len(names)} {noun} ({", ".join(names[:count])}{", ..." if names[count:] else ""})'


def align_columns(rows: Sequence[Sequence[str]], left: int | None = None) -> str:
    """Return rows as lines of text; the cells of the first ``left`` columns begin in line."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        [
            cell.ljust(width) if left is None or place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ]
        for row in rows
    ]
    return '\n'.join('  '.join(line).rstrip() for line in lines)
