"""Read annotation files in json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from .checks.findings import Finding
from .checks.images import pause_garbage_collection
from .checks.mend import mend_table
from .checks.rows import FIELDS, get_rows
from .text_files import refuse_encoding


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a json file.

    Raises:
        UserError: if it cannot be read, or is none.
    """
    try:
        with path.open(encoding='utf-8-sig') as file, pause_garbage_collection():
            table = json.load(file)
    except json.JSONDecodeError as error:
        raise UserError(
            f'{path} is not valid json: {error.msg} at line {error.lineno}, column '
            f'{error.colno}; export it again, or download it again if it is cut '
            'off',
            code='data.json',
        ) from None
    except UnicodeDecodeError as error:
        raise refuse_encoding(path, error) from None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}', code='data.json') from None
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise UserError(
            f'{path} cannot be read: {error}; export it again', code='data.json'
        ) from None
    if not isinstance(table, dict):
        raise UserError(
            f'{path} holds a {type(table).__name__}, and a COCO file is an object with '
            'the fields images, annotations and categories',
            code='data.json',
        )
    return table


def read_coco_file(path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Read an annotation file, its values mended where they have one meaning.

    Returns:
        what it holds, and what was mended.

    Raises:
        UserError: if it cannot be read.
    """
    with pause_garbage_collection():
        return mend_table(path, read_json(path))


def has_annotations(path: Path) -> bool:
    """Return whether a COCO file lists an annotation; of most, the beginning tells."""
    try:
        if get_rows(peek_json(path, 1), 'annotations'):
            return True
    except ValueError:  # what stands there is no list that ends within the window
        pass
    return bool(get_rows(read_coco_file(path)[0], 'annotations'))


def peek_json(path: Path, most: int, window: int = 2**24) -> dict[str, Any]:
    """Read the beginnings of a COCO file: all of it takes tens of seconds.

    Looks for the lists by their names, wherever they stand, and reads the categories and the first
    rows of the others. A name that stands deeper in the file can mislead it, so that what it says
    may acquit a file, but not condemn it.

    Args:
        path: the file.
        most: rows to read of every list but the categories.
        window: bytes of a list that are looked at.

    Returns:
        the lists found.

    Raises:
        ValueError: what stands there is not a list of objects that ends in the window.
    """
    import mmap

    table: dict[str, Any] = {}
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if not text[-1024:].rstrip().endswith(b'}'):
            raise ValueError('cut off')
        for name in FIELDS:
            key = text.find(f'"{name}"'.encode())
            if key >= 0:
                start = text.find(b'[', key)
                part = text[start + 1 : start + window].decode('utf-8', 'ignore')
                table[name] = _parse_rows(part, None if name == 'categories' else most)
    return table


def _parse_rows(text: str, most: int | None) -> list[Any]:
    """Return the first objects of a list, from behind its bracket."""
    rows: list[Any] = []
    at, decoder = 0, json.JSONDecoder()
    while most is None or len(rows) < most:
        while text[at : at + 1] in (' ', '\n', '\r', '\t', ','):
            at += 1
        if text[at : at + 1] == ']':
            break
        row, at = decoder.raw_decode(text, at)
        rows.append(row)
    return rows
