"""Errors for users: each has a code, and docs/errors.md lists them."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from mmresnest.data.checks.findings import KINDS
from mmresnest.errors import ArgumentError, UserError

ROOT = Path(__file__).resolve().parents[2]


def find_makers(tree: ast.Module) -> list[ast.Call]:
    """List the calls in a module that make a UserError, or give a kind of it its code."""
    kinds = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and 'UserError' in map(ast.unparse, node.bases)
    ]
    sought = [(tree, ('UserError', 'ArgumentError', 'BadImage'))]
    sought += [(kind, ('super().__init__',)) for kind in kinds]
    return [
        node
        for part, names in sought
        for node in ast.walk(part)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]


def find_raised() -> list[tuple[str, str | None, str]]:
    """List where errors are made, with their code: None for none, '' for one that is computed."""
    found = []
    for path in sorted((ROOT / 'mmresnest').rglob('*.py')):
        if '.mim' in path.parts:
            continue
        for node in find_makers(ast.parse(path.read_text(encoding='utf-8'))):
            maker = ast.unparse(node.func)
            named = [key.value for key in node.keywords if key.arg == 'code']
            before = 2 if maker == 'BadImage' else 1
            code = next(iter([*node.args[before:], *named]), None)
            choices = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
            place = f'{path.relative_to(ROOT)}:{node.lineno}'
            for one in choices:
                literal = one.value if isinstance(one, ast.Constant) else ''
                found.append((place, None if one is None else literal, maker))
    return found


def test_every_error_has_a_code():
    found = find_raised()
    assert len(found) > 300
    by_itself = ('ArgumentError', 'BadImage')
    missing = [place for place, code, name in found if code is None and name not in by_itself]
    assert missing == []
    wrong = [
        (place, code)
        for place, code, _ in found
        if code and not re.fullmatch(r'[a-z]+\.[a-z]+(-[a-z0-9]+)*', code)
    ]
    assert wrong == []


def test_the_page_lists_the_codes():
    page = (ROOT / 'docs' / 'errors.md').read_text(encoding='utf-8')
    table = set(re.findall(r'^\| `([\w.-]+)` \|', page, re.MULTILINE))
    findings = {f'data.{kind}' for kind in KINDS}
    assert table - findings == {code for _, code, _ in find_raised() if code} - findings
    listed = set(re.findall(r'`(data\.[\w-]+)`', page))
    assert listed - table == findings - table


def test_what_an_error_carries():
    assert UserError('a').code == 'error' and ArgumentError('a').code == 'argument'
    error = UserError('what, where and what to do', code='config.missing')
    assert str(error) == 'what, where and what to do'
    again = pickle.loads(pickle.dumps(error))  # from a worker process
    assert (type(again), str(again), again.code) == (UserError, str(error), error.code)
    with pytest.raises(TypeError):
        raise ArgumentError('a')
