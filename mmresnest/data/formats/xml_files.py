"""Read xml as data, by expat itself: no document type, so that no entities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ...errors import UserError
from ..text_files import refuse_encoding

_DEPTH = 100


@dataclass
class Node:
    """An element of an xml file: its tag, line, attributes, text and children."""

    tag: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ''
    children: list[Node] = field(default_factory=list)

    def find_child(self, *tags: str) -> Node | None:
        """Return the first element at the end of a path of tags."""
        node: Node | None = self
        for tag in tags:
            node = next((one for one in node.children if one.tag == tag), None) if node else None
        return node

    def read_text(self, *tags: str) -> str:
        """Return the text at the end of a path of tags, empty without it."""
        node = self.find_child(*tags)
        return node.text.strip() if node else ''

    def iterate(self, tag: str) -> Iterator[Node]:
        """Yield the elements of a tag, at any depth."""
        for one in self.children:
            if one.tag == tag:
                yield one
            yield from one.iterate(tag)


def read_xml(path: Path) -> Node:
    """Read an xml file as data: no document type, no entities.

    Raises:
        UserError: it cannot be read, or has one.
    """
    parser = expat.ParserCreate()
    top = Node('', 0)
    open_nodes = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(open_nodes) > _DEPTH:
            raise UserError(
                f'{path}:{parser.CurrentLineNumber}: more than {_DEPTH} elements inside each '
                'other; export the file again',
                code='data.xml',
            )
        node = Node(tag, parser.CurrentLineNumber, attributes)
        open_nodes[-1].children.append(node)
        open_nodes.append(node)

    def add_text(text: str) -> None:
        open_nodes[-1].text += text

    def refuse(*_: Any) -> None:
        raise UserError(
            f'{path}:{parser.CurrentLineNumber}: a document type (<!DOCTYPE>), which can define '
            'entities, and no annotation needs one; take the line away',
            code='data.xml',
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_nodes.pop()
    parser.CharacterDataHandler = add_text
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    try:
        data = path.read_bytes()
        parser.Parse(data, True)
    except expat.ExpatError as error:
        _check_encoding(path, data)
        raise UserError(
            f'{path}:{error.lineno}: no valid xml ({expat.errors.messages[error.code]}); export '
            'the file again',
            code='data.xml',
        ) from None
    except (OSError, LookupError, ValueError) as error:
        raise UserError(
            f'{path}: cannot be read: {error}; export it again, in UTF-8', code='data.xml'
        ) from None
    return top.children[0]


def _check_encoding(path: Path, data: bytes) -> None:
    """Refuse a file that says nothing of its encoding, or UTF-8, and is in another."""
    declared = re.match(rb'[^>]*encoding=["\']([^"\']*)', data[:200])
    if declared is None or declared[1].lower() == b'utf-8':
        try:
            data.decode('utf-8')
        except UnicodeDecodeError as error:
            raise refuse_encoding(path, error) from None
