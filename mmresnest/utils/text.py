"""Names in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SINGULAR = {'classes': 'class', 'categories': 'category'}


def format_some(names: Sequence[str], count: int = 8) -> str:
    """Return the first ``count`` names, and how many more there are: ``a, b and 2 more``."""
    rest = len(names) - count
    return ', '.join(names[:count]) + (f' and {rest} more' if rest > 0 else '')


def format_count(names: Iterable[str], what: str = 'classes', count: int = 5) -> str:
    """Return how many names there are, and the first of them: ``3 classes (a, b, ...)``."""
    names = list(names)
    noun = what if len(names) != 1 else SINGULAR[what]
    return f'{len(names)} {noun} ({", ".join(names[:count])}{", ..." if names[count:] else ""})'
