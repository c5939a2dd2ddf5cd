"""The Markdown of the repository: pages, and the links, headings, blocks and commands in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
    for path in sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])
}
PROGRAMS = r'(mmresnest|python|make|pip|mim|tools/\w+\.sh)'  # whose lines are also read in prose


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks."""
    return re.findall(r'^```(\w*)\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """What is outside of them."""
    return re.sub(r'^```.*?^```$', '', text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Code in the prose, in one line each."""
    found = re.findall(r'(?<!`)`([^`]+)`(?!`)', prose(text))
    return [' '.join(span.split()) for span in found]


def links(text: str) -> list[str]:
    """The targets of links and pictures."""
    return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`]+`', '', prose(text)))


def anchors(text: str) -> set[str]:
    """What ``#...`` finds: the headings, spelt as GitHub and the site spell them."""
    headings = re.findall(r'^#+ (.+)$', prose(text), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of its tables, heads left out."""
    return [
        [cell.strip() for cell in line.strip('| ').split(' | ')]
        for line in re.findall(
            r'^\| [^\n]+', re.sub(r'^.*\n\|---.*$', '', text, flags=re.M), re.MULTILINE
        )
    ]


class Command(NamedTuple):
    """A line that somebody may type.

    Attributes:
        environment: what is set before it.
        words: the program and what it is given.
        whole: stands in a block, and not in the prose, where it may be the name of a command.
    """

    environment: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    whole: bool


def command(line: str, whole: bool) -> Command | None:
    """A line as a shell reads it; None for a comment."""
    words = shlex.split(line, comments=True)
    environment = []
    while words and (match := re.fullmatch(r'([A-Z_]+)=(.*)', words[0])):
        environment.append((match[1], match[2]))
        words.pop(0)
    if words[:2] == ['/usr/bin/time', '-v']:
        words = words[2:]
    return Command(tuple(environment), tuple(words), whole) if words else None


def commands() -> dict[Command, str]:
    """Every command of every page -> the page; one in a block as well as in prose counts once."""
    found: dict[Command, str] = {}
    for page, text in PAGES.items():
        typed = [
            line
            for language, block in blocks(text)
            if language in ('bash', 'sh')
            for whole in block.replace('\\\n', ' ').splitlines()
            for line in whole.split(' && ')
        ]
        found.update((one, page) for line in typed if (one := command(line, True)))
    for page, text in PAGES.items():
        for span in spans(text):
            one = command(span, False) if re.match(rf'{PROGRAMS} ', span) else None
            if one and one._replace(whole=True) not in found:
                found[one] = page
    return found
