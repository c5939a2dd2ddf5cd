"""Read the names of classes from a text file, and name the encoding of one that is not UTF-8."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from ..errors import UserError
from .checks.findings import Finding, make_finding

_NUMBERED = re.compile(r'(\d+)\s*[\s:,;.=]\s*(\S.*)')
_CJK = re.compile('[\u4e00-\u9fff]')


def name_encoding(data: bytes) -> str:
    """Return which encoding bytes seem to have that are not UTF-8."""
    if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
        return 'UTF-16'
    for encoding, name, script in (
        ('gb18030', 'GBK', _CJK),
        ('shift_jis', 'Shift-JIS', re.compile('[\u3040-\u30ff]')),
    ):
        try:
            letters = [letter for letter in data.decode(encoding) if not letter.isascii()]
        except UnicodeDecodeError:
            continue
        if letters and 2 * sum(map(bool, map(script.match, letters))) > len(letters):
            return name
    return 'another encoding, such as Latin-1'


def refuse_encoding(path: Path, error: UnicodeDecodeError) -> UserError:
    """Return the error that a file is not UTF-8."""
    return UserError(
        f'{path} is not text in UTF-8, but seems to be in {name_encoding(error.object)} '
        f'(byte {error.start}); save it as UTF-8',
        code='data.encoding',
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without a byte order mark.

    Raises:
        UserError: it is not text in UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise refuse_encoding(path, error) from None


def read_class_names(path: Path) -> Generator[Finding, None, tuple[str, ...]]:
    """Yield what is wrong with a list of class names; return the names, one of each line.

    A byte order mark is no part of the first name, and numbers 0, 1, 2 ... in front of the names no
    part of them.

    Raises:
        UserError: it is not text in UTF-8.
    """
    lines = [line.strip() for line in read_lines(path)]
    names = [line for line in lines if line]
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbered = [match for match in found if match is not None]
    if names and len(numbered) == len(names):
        numbers = [int(match[1]) for match in numbered]
        if numbers == list(range(len(names))):
            names = [match[2] for match in numbered]
        else:
            yield make_finding('names-numbered', path=path, numbers=numbers[:8], example=names[0])
    name, count = Counter(names).most_common(1)[0] if names else ('', 0)
    if count > 1:
        yield make_finding('names-twice', path=path, name=name, count=count, example=name)
    return tuple(names)
