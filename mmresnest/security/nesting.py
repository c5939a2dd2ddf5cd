"""Refuse nested containers that take time or memory without end to walk, copy or compare."""

from collections.abc import Iterable
from pickle import UnpicklingError
from typing import Any

from ..errors import UserError

MOST_NODES = 10**6
"""Parts of all nested containers, with what is held twice counted twice."""

MOST_LEVELS = 100


class Unbuilt:
    """What a call would build, and what it was given."""

    __slots__ = ('parts',)

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)

    def __setstate__(self, state: Any) -> None:
        self.parts.append(state)


class OrderedItems(dict):
    """An OrderedDict, which carries attributes beside its items."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnpicklingError('Can only build dictionaries by their attributes')
        self.state = state


def check_nesting(root: Any, name: str, most_nodes: int = MOST_NODES) -> int:
    """Refuse containers whose parts are too many when each is counted wherever it is held.

    Whoever copies, compares or prints nested containers does so by recursion, and meets twice what
    is held twice.

    Returns:
        how many they are.

    Raises:
        UserError: they are too many, too deep, or hold themselves.
    """
    done: dict[int, tuple[int, int]] = {}  # by identity: parts, levels
    opened: set[int] = set()
    stack = [root]
    while stack:
        value = stack[-1]
        if id(value) in done:
            stack.pop()
            continue
        total, inner = 1, []
        for part in _parts_of(value):
            total += 1
            if isinstance(part, _NESTING):
                inner.append(part)
        waiting = [part for part in inner if id(part) not in done]
        if not waiting:
            known = [done[id(part)] for part in inner]
            total += sum(parts for parts, _ in known)
            levels = 1 + max((levels for _, levels in known), default=0)
            if total > most_nodes + 4 * len(done) or levels > MOST_LEVELS:
                raise UserError(
                    f'{name} cannot be read: what it holds is nested {levels} levels '
                    f'deep and has {total} parts when unfolded, of which '
                    f'{MOST_LEVELS} and {most_nodes} are accepted',
                    code='file.nested',
                )
            done[id(value)] = total, levels
            stack.pop()
        elif id(value) in opened:
            raise UserError(
                f'{name} cannot be read: it holds a container that holds itself', code='file.nested'
            )
        else:
            opened.add(id(value))
            stack.extend(waiting)
    return done[id(root)][0]


_NESTING = (dict, list, tuple, set, Unbuilt)


def _check_metadata(metadata: Any) -> None:
    """Refuse what torch would stumble over: versions of modules by name are what it saves."""
    if metadata is None:
        return
    modules = metadata.values() if isinstance(metadata, dict) else [None]
    if not all(
        isinstance(one, dict) and isinstance(one.get('version'), (int, type(None)))
        for one in modules
    ):
        raise UnpicklingError('Unsupported _metadata of weights')


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
        if isinstance(value, OrderedItems) and value.state is not None:
            _check_metadata(value.state.get('_metadata'))
            yield value.state
    elif isinstance(value, Unbuilt):
        yield from value.parts
    elif isinstance(value, (list, tuple, set)):
        yield from value
