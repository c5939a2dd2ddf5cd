"""``mmresnest list``: configs, networks and published checkpoints, without torch."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config.shipped import shipped_configs
from ..errors import UserError, close_to
from ..models.variants import ALIASES, TABLE, Variant
from .arguments import Command, Parser
from .printing import show


class Section(NamedTuple):
    """A part of the list: its title, and a row of cells for each entry, the name first."""

    title: str
    rows: Sequence[tuple[str, ...]]


def add_list_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'words',
        nargs='*',
        metavar='WORD',
        help='only what has all of these words in its line, such as: deeplabv3 resnest101',
    )


def run_list(args: argparse.Namespace) -> int:
    """Print the lists."""
    sections = select_rows(list_sections(), args.words)
    if not any(section.rows for section in sections):
        word = ' '.join(args.words)
        close = close_to(word, [*shipped_configs(), *(row.name for row in TABLE), *ALIASES])
        hint = f'nearest: {", ".join(close)}' if close else '`mmresnest list` shows all'
        raise UserError(f'nothing is listed that has {word!r}; {hint}', code='option.unknown')
    show('\n\n'.join(format_section(section) for section in sections if section.rows))
    return 0


def list_sections() -> list[Section]:
    """Return all there is: configs, networks, and checkpoints of both."""
    headers = {name: read_header(path) for name, path in shipped_configs().items()}
    configs = [
        (name, header['Title'], _drop_source(header['Expect'])) for name, header in headers.items()
    ]
    networks = [_describe_network(row) for row in TABLE]
    checkpoints: list[tuple[str, ...]] = [
        (name, header['Weights']) for name, header in headers.items()
    ]
    checkpoints += [
        (f'{row.name} (ImageNet)', weights.url, weights.license)
        for row in TABLE
        for weights in row.weights[:1]
    ]
    return [
        Section('configs: mmresnest train NAME', configs),
        Section('networks: name, type, parameters, ImageNet top-1', networks),
        Section('published checkpoints', [row for row in checkpoints if row[1]]),
    ]


def read_header(path: Path) -> dict[str, str]:
    """Return the title of a config, what to expect of it and its weights, from its docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    header = {'Title': text.partition('\n')[0].rstrip('.')}
    for word in ('Expect', 'Weights'):
        found = re.search(rf'^{word}:\s+(.+(?:\n {{2,}}.+)*)', text, re.MULTILINE)
        header[word] = ' '.join(found.group(1).split()) if found else ''
    return header


def _drop_source(expected: str) -> str:
    """Return an expected result without what follows it and without who published it."""
    return re.sub(r' \([^()]*\)$', '', expected.partition(';')[0].rstrip('.'))


def _describe_network(row: Variant) -> tuple[str, ...]:
    top1 = 'no published weights' if not row.weights else f'top-1 {row.top1 or "not published"}'
    return row.name, row.type, f'{row.params:.1f} M', top1


def select_rows(sections: Sequence[Section], words: Sequence[str]) -> list[Section]:
    """Return the sections with the rows that have all of the words, in any case of letters."""
    wanted = [word.lower() for word in words]
    return [
        Section(
            title, [row for row in rows if all(word in ' '.join(row).lower() for word in wanted)]
        )
        for title, rows in sections
    ]


def format_section(section: Section) -> str:
    """Return a section as aligned text."""
    return '\n'.join([section.title, *_format_rows(section.rows)])


def _format_rows(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        yield ('  ' + '  '.join([*cells, *row[len(widths) :]])).rstrip()


COMMAND = Command(add_list_arguments, run_list)
