"""What MkDocs adds to docs/ when it builds the site: `make docs`.

The pages at the top of the repository (README.md is the first), the command line from its parser,
and the files that pages link to. In the repository links are relative to the file they stand in;
here they are turned into those of the site.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: page of the site -> file at the top; one that is not there makes no page
TOP = {
    'index.md': 'README.md',
    'changelog.md': 'CHANGELOG.md',
    'contributing.md': 'CONTRIBUTING.md',
    'releasing.md': 'RELEASING.md',
}
FILES = ('LICENSE', 'CITATION.cff', 'configs/*.py', 'examples/*.ipynb')  # that pages link to
LINK = re.compile(r'(?<=\]\()([^)\s#]+)')
COMMANDS = """# Command line

Every command takes `--help`, and `--debug`, which shows the traceback of an error. In a clone that
is not installed, `python tools/train.py`, `tools/test.py` and so on take the same arguments.

| status | |
|---|---|
| 0 | done |
| 1 | a doctor or a check has found something |
| 2 | something that you can mend, named in one message |
| 75 | a training that a signal ended, saved |

"""


def on_files(files: Any, config: Any) -> Any:
    """Add pages and files: an event of MkDocs."""
    from mkdocs.structure.files import File

    for page, name in TOP.items():
        if (ROOT / name).is_file():
            files.append(
                File.generated(config, page, content=(ROOT / name).read_text(encoding='utf-8'))
            )
    files.append(File.generated(config, 'commands.md', content=make_command_page()))
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            files.append(
                File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
            )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Convert the links of a page: an event of MkDocs."""
    return convert_links(markdown, page.file.src_uri)


def convert_links(markdown: str, page: str) -> str:
    """Return a text whose links point to pages of the site."""
    source = PurePosixPath(TOP.get(page, f'docs/{page}'))
    pages = {name: page for page, name in TOP.items()}

    def convert_link(link: re.Match) -> str:
        if re.match('[a-z]+:', link[1]):
            return link[1]
        path = os.path.normpath(source.parent / link[1]).replace(os.sep, '/')
        target = pages.get(path, path.removeprefix('docs/'))
        return os.path.relpath(target, PurePosixPath(page).parent).replace(os.sep, '/')

    return LINK.sub(convert_link, markdown)


def make_command_page() -> str:
    """Return the page of the command line."""
    from mmresnest.cli.main import build_parser

    parser = build_parser()
    subparsers = next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    sections = [make_section(name, command) for name, command in subparsers.choices.items()]
    return '\n'.join([COMMANDS, *sections])


def make_section(name: str, command: argparse.ArgumentParser) -> str:
    """Return the section of a command: what it does, its usage, and a line for each argument."""
    actions = [
        action
        for action in command._actions
        if action.help != argparse.SUPPRESS and action.dest not in ('help', 'debug')
    ]
    positional = [action for action in actions if not action.option_strings]
    typed = ' '.join(['mmresnest', name, '[OPTIONS]', *map(format_value, positional)])
    return '\n'.join(
        [
            f'## {name}\n',
            f'{make_sentence(command.description)}\n',
            f'    {typed}\n',
            *list_arguments(actions),
            '',
        ]
    )


def list_arguments(actions: list[argparse.Action]) -> Iterator[str]:
    """Yield a line for each argument."""
    for action in actions:
        shown = [format_value(action)]
        if action.option_strings:
            takes = '' if action.nargs == 0 else f' {format_value(action)}'
            shown = [option + takes for option in action.option_strings]
        yield f'- {", ".join(f"`{one}`" for one in shown)}: {escape_text(action.help)}'


def format_value(action: argparse.Action) -> str:
    """Return what stands for the value of an argument, as argparse shows it."""
    name = action.metavar or action.dest.upper()
    if action.choices:
        name = '{' + ','.join(map(str, action.choices)) + '}'
    if isinstance(name, tuple):
        return ' '.join(name)
    return {'+': f'{name} ...', '*': f'[{name} ...]', '?': f'[{name}]'}.get(action.nargs, name)


def make_sentence(text: str | None) -> str:
    """Return a description as a sentence of its own."""
    text = text or ''
    return escape_text(text[:1].upper() + text[1:]) + '.'


def escape_text(text: str | None) -> str:
    """Return a text of argparse in Markdown."""
    text = (text or '').replace('%%', '%').replace('<', '&lt;')
    return re.sub(r'([*_`\[\]|\\])', r'\\\1', text)
