"""Errors for users: each has a code, and docs/errors.md lists them."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from mmresnest.data.checks.findings import KINDS
from mmresnest.errors import ArgumentError, UserError

ROOT = Path(__file__).resolve().parents[2]


def find_raised() -> list[tuple[str, str | None, str]]:
    """List where errors are made, with their code: None for none, '' for one that is computed."""
    found = []
    for path in sorted((ROOT / 'mmresnest').rglob('*.py')):
        if '.mim' in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ('UserError', 'ArgumentError'):
                named = [key.value for key in node.keywords if key.arg == 'code']
                code = next(iter([*node.args[1:], *named]), None)
                literal = code.value if isinstance(code, ast.Constant) else ''
                place = f'{path.relative_to(ROOT)}:{node.lineno}'
                found.append((place, None if code is None else literal, node.func.id))
    return found


def test_every_error_has_a_code():
    found = find_raised()
    assert len(found) > 300
    missing = [place for place, code, name in found if code is None and name == 'UserError']
    assert missing == [], 'ArgumentError has one by itself'
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
